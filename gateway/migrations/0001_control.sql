-- Control: who may call, what was asked and decided, and what a person must look at.
-- Rows of audit and of the event tables are facts: they are inserted and never change.

CREATE SCHEMA IF NOT EXISTS gateway;
GRANT USAGE ON SCHEMA gateway TO brokerd_daemon;

CREATE FUNCTION gateway.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of %.% are facts and never change', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

-- One credential. Several keys of one calling system share its owner; several of one person share the person.
CREATE TABLE gateway.api_key (
    id         text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    version    bigint      NOT NULL,
    owner      text        NOT NULL CHECK (owner ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    person     text        NOT NULL CHECK (person ~ '^[a-z0-9][a-z0-9._@-]{0,63}$'),
    role       text        NOT NULL,
    entities   text[]      NOT NULL CHECK (cardinality(entities) > 0),
    digest     bytea       NOT NULL CHECK (octet_length(digest) = 32),
    created    timestamptz NOT NULL,
    created_by text        NOT NULL,
    revoked    timestamptz,
    revoked_by text        NOT NULL DEFAULT ''
);
GRANT SELECT, INSERT, UPDATE (version, revoked, revoked_by) ON gateway.api_key TO brokerd_daemon;

CREATE TABLE gateway.audit (
    id           text COLLATE "C" PRIMARY KEY,
    at           timestamptz NOT NULL,
    actor        text        NOT NULL,
    role         text        NOT NULL,
    on_behalf_of text        NOT NULL,
    command      text        NOT NULL,
    subject      text        NOT NULL,
    before       jsonb,
    after        jsonb,
    reason       text        NOT NULL,
    correlation  text        NOT NULL,
    key_id       text        NOT NULL
);
GRANT SELECT, INSERT ON gateway.audit TO brokerd_daemon;

-- open_key is kind:subject while the approval is open and null afterwards: one open question per subject.
CREATE TABLE gateway.approval (
    id          text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    version     bigint      NOT NULL,
    open_key    text COLLATE "C" UNIQUE,
    kind        text        NOT NULL,
    subject     text        NOT NULL,
    entity      text        NOT NULL,
    state       text        NOT NULL CHECK (state IN ('open', 'approved', 'refused', 'expired')),
    maker       text        NOT NULL,
    maker_role  text        NOT NULL,
    maker_owner text        NOT NULL,
    needed      integer     NOT NULL CHECK (needed > 0),
    votes       text[]      NOT NULL DEFAULT '{}',
    policy      text        NOT NULL,
    payload     jsonb       NOT NULL,
    reason      text        NOT NULL,
    correlation text        NOT NULL,
    created     timestamptz NOT NULL,
    expires     timestamptz NOT NULL,
    decided     timestamptz,
    CHECK ((state = 'open') = (open_key IS NOT NULL)),
    CHECK (NOT maker = ANY (votes))
);
GRANT SELECT, INSERT, UPDATE (version, open_key, state, votes, decided) ON gateway.approval TO brokerd_daemon;

CREATE TABLE gateway.approval_event (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_id  text COLLATE "C" NOT NULL,
    version    bigint      NOT NULL,
    from_state text        NOT NULL,
    to_state   text        NOT NULL,
    event      text        NOT NULL,
    cause      jsonb       NOT NULL,
    actor      text        NOT NULL,
    at         timestamptz NOT NULL
);
CREATE INDEX approval_event_object ON gateway.approval_event (object_id);
GRANT SELECT, INSERT ON gateway.approval_event TO brokerd_daemon;

-- Anything a person must look at.
CREATE TABLE gateway.item (
    id          text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    version     bigint      NOT NULL,
    kind        text        NOT NULL,
    owner_team  text        NOT NULL,
    subject     text        NOT NULL,
    entity      text        NOT NULL,
    reason      text        NOT NULL,
    state       text        NOT NULL CHECK (state IN ('open', 'resolved')),
    correlation text        NOT NULL,
    opened      timestamptz NOT NULL,
    resolved    timestamptz,
    resolved_by text        NOT NULL DEFAULT '',
    resolution  text        NOT NULL DEFAULT '',
    CHECK ((state = 'resolved') = (resolved IS NOT NULL))
);
-- The same thing is one item however often it is noticed.
CREATE UNIQUE INDEX item_open ON gateway.item (kind, subject) WHERE state = 'open';
GRANT SELECT, INSERT, UPDATE (version, state, resolved, resolved_by, resolution) ON gateway.item TO brokerd_daemon;

CREATE TABLE gateway.item_event (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_id  text COLLATE "C" NOT NULL,
    version    bigint      NOT NULL,
    from_state text        NOT NULL,
    to_state   text        NOT NULL,
    event      text        NOT NULL,
    cause      jsonb       NOT NULL,
    actor      text        NOT NULL,
    at         timestamptz NOT NULL
);
CREATE INDEX item_event_object ON gateway.item_event (object_id);
GRANT SELECT, INSERT ON gateway.item_event TO brokerd_daemon;

CREATE TRIGGER audit_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.audit
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
CREATE TRIGGER approval_event_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.approval_event
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
CREATE TRIGGER item_event_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.item_event
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
