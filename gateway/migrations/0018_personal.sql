-- What is known of people as people: ciphertext only, each subject's under a key of their own.

-- The key of one subject, wrapped by a key that is never in the database. Destroyed, it leaves an empty row, so that
-- none is made for the subject again: what it closed, here and in the audit, nobody can read any more.
CREATE TABLE gateway.subject_key (
    subject      text COLLATE "C" PRIMARY KEY,
    version      bigint      NOT NULL DEFAULT 1,
    wrapped      bytea,
    made         timestamptz NOT NULL,
    destroyed    timestamptz,
    destroyed_by text        NOT NULL DEFAULT '',
    CHECK ((wrapped IS NULL) = (destroyed IS NOT NULL))
);
GRANT SELECT, INSERT, UPDATE (version, wrapped, destroyed, destroyed_by) ON gateway.subject_key TO brokerd_daemon;

CREATE TABLE gateway.client_personal (
    client_id text COLLATE "C" PRIMARY KEY,
    version   bigint      NOT NULL,
    fields    jsonb       NOT NULL, -- name of a field -> ciphertext under the client's key
    updated   timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE (version, fields, updated) ON gateway.client_personal TO brokerd_daemon;

-- A destroyed key stays destroyed, whoever writes.
CREATE FUNCTION gateway.keep_destroyed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.destroyed IS NOT NULL THEN
        RAISE EXCEPTION 'the key of % is destroyed or in use, and stays so', OLD.subject USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER subject_key_destroyed BEFORE UPDATE OR DELETE ON gateway.subject_key
    FOR EACH ROW EXECUTE FUNCTION gateway.keep_destroyed();
