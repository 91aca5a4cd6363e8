-- Approvals as one engine: what the policy of the hour said is kept with the question, votes say by whose right they
-- were given, a maker may withdraw, and a person may lend the right to decide to another for a while.

ALTER TABLE gateway.approval
    ADD COLUMN permission  text   NOT NULL DEFAULT 'lifecycle:approve', -- what a checker must hold
    ADD COLUMN level       text   NOT NULL DEFAULT 'global'
        CHECK (level IN ('brand', 'entity', 'global', 'default')),    -- where the policy was written
    ADD COLUMN brand       text   NOT NULL DEFAULT '',
    ADD COLUMN desk        text   NOT NULL DEFAULT '',
    ADD COLUMN contracts   text[] NOT NULL DEFAULT '{}',
    ADD COLUMN about       text[] NOT NULL DEFAULT '{}',             -- whom else it concerns: acts count for them too
    ADD COLUMN risk        text   NOT NULL DEFAULT '',
    ADD COLUMN amount      text   NOT NULL DEFAULT '',                -- as `100.00 EUR`; empty where none is at stake
    ADD COLUMN authorities text[] NOT NULL DEFAULT '{}';              -- by whose right each vote was given
UPDATE gateway.approval SET authorities = votes;
ALTER TABLE gateway.approval
    ALTER COLUMN permission DROP DEFAULT,
    ALTER COLUMN level DROP DEFAULT,
    DROP CONSTRAINT approval_state_check,
    ADD CONSTRAINT approval_state_check CHECK (state IN ('open', 'approved', 'refused', 'expired', 'withdrawn')),
    ADD CONSTRAINT approval_authorities CHECK (cardinality(authorities) = cardinality(votes)),
    ADD CONSTRAINT approval_own_right CHECK (NOT maker = ANY (authorities)),
    ADD CONSTRAINT approval_enough CHECK (state <> 'approved' OR cardinality(votes) >= needed);
GRANT UPDATE (authorities) ON gateway.approval TO brokerd_daemon;
CREATE INDEX approval_due ON gateway.approval (expires) WHERE state = 'open';

-- What was decided stays decided, and what was asked stays as it was asked.
CREATE FUNCTION gateway.refuse_reopening() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'open' THEN
        RAISE EXCEPTION 'approval % is %, and stays so', OLD.id, OLD.state USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER approval_is_decided BEFORE UPDATE ON gateway.approval
    FOR EACH ROW EXECUTE FUNCTION gateway.refuse_reopening();
CREATE TRIGGER approval_is_kept BEFORE DELETE OR TRUNCATE ON gateway.approval
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();

-- The right of one person to decide, lent to another: for kinds, for entities ('*' is all the giver has), for a while.
CREATE TABLE gateway.delegation (
    id         text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    version    bigint      NOT NULL,
    giver      text        NOT NULL,
    delegate   text        NOT NULL,
    kinds      text[]      NOT NULL CHECK (cardinality(kinds) > 0),
    entities   text[]      NOT NULL CHECK (cardinality(entities) > 0),
    since      timestamptz NOT NULL,
    until      timestamptz NOT NULL,
    reason     text        NOT NULL CHECK (reason <> ''),
    created    timestamptz NOT NULL,
    ended      timestamptz,
    ended_by   text        NOT NULL DEFAULT '',
    CHECK (giver <> delegate),
    CHECK (until > since)
);
CREATE INDEX delegation_delegate ON gateway.delegation (delegate, until);
CREATE INDEX delegation_giver ON gateway.delegation (giver, until);
GRANT SELECT, INSERT, UPDATE (version, ended, ended_by) ON gateway.delegation TO brokerd_daemon;
CREATE TRIGGER delegation_is_kept BEFORE DELETE OR TRUNCATE ON gateway.delegation
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
