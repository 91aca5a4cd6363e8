-- Changes of attribution: who asked, who agreed, why, from whom to whom, from when on. One row for each row of
-- gateway.attribution that was not made with its client; written with it, in the transaction of the last vote.

CREATE TABLE gateway.attribution_change (
    id           text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    client_id    text COLLATE "C" NOT NULL,
    effective    timestamptz NOT NULL,          -- since when the new one holds; never before `at`
    old_contract text COLLATE "C" NOT NULL,     -- '' is nobody
    new_contract text COLLATE "C" NOT NULL,
    entity       text        NOT NULL,
    brand        text        NOT NULL,
    book         smallint    NOT NULL,
    inputs       bigint      NOT NULL CHECK (inputs > 0),
    asked_by     text        NOT NULL,
    asked_role   text        NOT NULL,
    approved_by  text[]      NOT NULL CHECK (cardinality(approved_by) > 0),
    ground       text        NOT NULL,
    reason       text        NOT NULL CHECK (reason <> ''),
    evidence     text        NOT NULL CHECK (evidence <> ''),
    approval     text COLLATE "C" NOT NULL UNIQUE,
    at           timestamptz NOT NULL,
    UNIQUE (client_id, effective),
    CHECK (effective >= at),
    CHECK (old_contract <> new_contract),
    CHECK (NOT asked_by = ANY (approved_by))
);
CREATE INDEX attribution_change_old ON gateway.attribution_change (old_contract, id) WHERE old_contract <> '';
CREATE INDEX attribution_change_new ON gateway.attribution_change (new_contract, id) WHERE new_contract <> '';
CREATE TRIGGER attribution_change_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.attribution_change
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
GRANT SELECT, INSERT ON gateway.attribution_change TO brokerd_daemon;
