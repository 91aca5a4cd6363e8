-- The rulebook as versions: each is drafted on the one in force, checked, agreed to by other people, in force from a
-- time on, and superseded. The contents stay in gateway.rulebook, once each, by their hash.

CREATE TABLE gateway.rulebook_version (
    id           text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    version      bigint      NOT NULL,
    state        text        NOT NULL CHECK (state IN
                     ('draft', 'checked', 'asked', 'approved', 'effective', 'superseded', 'withdrawn', 'outdated')),
    hash         text COLLATE "C" NOT NULL REFERENCES gateway.rulebook (hash),
    base         text COLLATE "C" NOT NULL, -- the content it was drafted on; '' for the first of a house
    areas        text[]      NOT NULL,      -- what it changes, each with people of its own who agree
    agreed       text[]      NOT NULL DEFAULT '{}',
    approvals    text[]      NOT NULL DEFAULT '{}', -- those by which it was agreed to
    restart      boolean     NOT NULL,      -- processes take it up only when they start
    findings     jsonb       NOT NULL DEFAULT '[]',
    effective_at timestamptz,               -- never before it; null: as soon as it is agreed to
    number       bigint      UNIQUE REFERENCES gateway.rulebook_event (version), -- its place among those ever in force
    author       text        NOT NULL,
    author_role  text        NOT NULL,
    reason       text        NOT NULL CHECK (reason <> ''),
    restores     bigint,                    -- the number of an earlier one whose content it brings back
    correlation  text        NOT NULL,
    created      timestamptz NOT NULL,
    asked        timestamptz,
    since        timestamptz,               -- in force from, and to
    until        timestamptz,
    -- No version takes effect on the word of one person: each area it changes was agreed to.
    CONSTRAINT rulebook_version_agreed CHECK (state NOT IN ('approved', 'effective', 'superseded') OR agreed @> areas),
    CONSTRAINT rulebook_version_proved CHECK (cardinality(agreed) <= cardinality(approvals)),
    CONSTRAINT rulebook_version_time CHECK (effective_at IS NULL OR since IS NULL OR since >= effective_at),
    CONSTRAINT rulebook_version_ahead CHECK (effective_at IS NULL OR asked IS NULL OR effective_at >= asked),
    CONSTRAINT rulebook_version_in_force CHECK ((state IN ('effective', 'superseded')) = (since IS NOT NULL)),
    CONSTRAINT rulebook_version_over CHECK ((state = 'superseded') = (until IS NOT NULL))
);
CREATE UNIQUE INDEX rulebook_version_one ON gateway.rulebook_version (state) WHERE state = 'effective';
CREATE INDEX rulebook_version_due ON gateway.rulebook_version (effective_at) WHERE state = 'approved';
CREATE INDEX rulebook_version_hash ON gateway.rulebook_version (hash);
GRANT SELECT, INSERT,
    UPDATE (version, state, agreed, approvals, restart, findings, effective_at, number, asked, since, until)
    ON gateway.rulebook_version TO brokerd_daemon;

CREATE TABLE gateway.rulebook_version_event (
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
CREATE INDEX rulebook_version_event_object ON gateway.rulebook_version_event (object_id);
GRANT SELECT, INSERT ON gateway.rulebook_version_event TO brokerd_daemon;

-- A version that ended stays as it ended, and what it changes is settled when it is drafted.
CREATE FUNCTION gateway.refuse_version_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state IN ('superseded', 'withdrawn', 'outdated') THEN
        RAISE EXCEPTION 'rulebook version % is %, and stays so', OLD.id, OLD.state USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER rulebook_version_ended BEFORE UPDATE ON gateway.rulebook_version
    FOR EACH ROW EXECUTE FUNCTION gateway.refuse_version_again();
CREATE TRIGGER rulebook_version_is_kept BEFORE DELETE OR TRUNCATE ON gateway.rulebook_version
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
CREATE TRIGGER rulebook_version_event_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.rulebook_version_event
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
