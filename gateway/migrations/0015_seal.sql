-- The audit's seal: each record hashed into a chain, in the order in which writers began.

-- Whose grant and visit an act was done with, what allowed it, and whom it concerns: what a record may be found by.
-- xid is the writer's transaction: a record above the oldest writer that still runs cannot be sealed, one may come below it.
ALTER TABLE gateway.audit
    ADD COLUMN session   text   NOT NULL DEFAULT '',
    ADD COLUMN grant_id  text   NOT NULL DEFAULT '',
    ADD COLUMN approvals text[] NOT NULL DEFAULT '{}',
    ADD COLUMN entity    text   NOT NULL DEFAULT '',
    ADD COLUMN brand     text   NOT NULL DEFAULT '',
    ADD COLUMN client    text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN contract  text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN xid       xid8   NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX audit_xid ON gateway.audit (xid, id);

-- One sealed record: no is dense, hash covers the record, its no and the hash before it (gateway/audit_check.py).
-- What records are looked up by is indexed here, where the sealer writes, and not where deposits wait for it.
CREATE TABLE gateway.audit_seal (
    no       bigint      PRIMARY KEY CHECK (no > 0),
    audit_id text COLLATE "C" NOT NULL UNIQUE,
    xid      xid8        NOT NULL,
    hash     bytea       NOT NULL CHECK (octet_length(hash) = 32),
    sealed   timestamptz NOT NULL,
    at       timestamptz NOT NULL,
    actor    text        NOT NULL,
    subject  text COLLATE "C" NOT NULL,
    client   text COLLATE "C" NOT NULL
);
CREATE INDEX audit_seal_xid ON gateway.audit_seal (xid);
CREATE INDEX audit_seal_at ON gateway.audit_seal USING brin (at) WITH (pages_per_range = 16); -- they come in about this order
CREATE INDEX audit_seal_actor ON gateway.audit_seal (actor, no);
CREATE INDEX audit_seal_subject ON gateway.audit_seal (subject, no);
CREATE INDEX audit_seal_client ON gateway.audit_seal (client, no) WHERE client <> '';
GRANT SELECT, INSERT ON gateway.audit_seal TO brokerd_daemon;

-- What was signed and sent to a second place: so many records, the last of them with this hash.
CREATE TABLE gateway.audit_anchor (
    no        bigint      PRIMARY KEY CHECK (no > 0),
    count     bigint      NOT NULL CHECK (count >= 0),
    head      bytea       NOT NULL CHECK (octet_length(head) = 32),
    at        timestamptz NOT NULL,
    signer    text        NOT NULL,
    signature bytea       NOT NULL
);
CREATE INDEX audit_anchor_count ON gateway.audit_anchor (count);
GRANT SELECT, INSERT ON gateway.audit_anchor TO brokerd_daemon;

CREATE TRIGGER audit_seal_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.audit_seal
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
CREATE TRIGGER audit_anchor_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.audit_anchor
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
