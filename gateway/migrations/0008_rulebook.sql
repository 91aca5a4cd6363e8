-- The rulebooks that were ever in force, by the hash of their content, and the one that is.

CREATE TABLE gateway.rulebook (
    hash   text COLLATE "C" PRIMARY KEY,
    source bytea       NOT NULL, -- canonical JSON; every decision can be explained with the rules it was taken by
    actor  text        NOT NULL,
    at     timestamptz NOT NULL,
    CHECK (hash = encode(sha256(source), 'hex'))
);
GRANT SELECT, INSERT ON gateway.rulebook TO brokerd_daemon;

-- One row: replicas that decide with another rulebook find their units left out.
CREATE TABLE gateway.rulebook_in_force (
    single  boolean     PRIMARY KEY DEFAULT true CHECK (single),
    hash    text        NOT NULL REFERENCES gateway.rulebook (hash),
    since   timestamptz NOT NULL,
    version bigint      NOT NULL
);
GRANT SELECT, INSERT, UPDATE (hash, since, version) ON gateway.rulebook_in_force TO brokerd_daemon;

CREATE TABLE gateway.rulebook_event (
    version   bigint      PRIMARY KEY,
    from_hash text        NOT NULL, -- '' for the first
    to_hash   text        NOT NULL REFERENCES gateway.rulebook (hash),
    event     text        NOT NULL,
    cause     jsonb       NOT NULL,
    actor     text        NOT NULL,
    at        timestamptz NOT NULL
);
GRANT SELECT, INSERT ON gateway.rulebook_event TO brokerd_daemon;

CREATE TRIGGER rulebook_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.rulebook
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
CREATE TRIGGER rulebook_event_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.rulebook_event
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
