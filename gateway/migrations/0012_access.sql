-- Access: people, the grants of a role that they hold, and the keys that are credentials of a grant.

-- Whoever answers for an act. What is personal about them is no column of this table.
CREATE TABLE gateway.person (
    id         text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9._@-]{0,63}$'),
    version    bigint      NOT NULL DEFAULT 1,
    kind       text        NOT NULL CHECK (kind IN ('human', 'service')),
    created    timestamptz NOT NULL,
    created_by text        NOT NULL
);

-- A role, within sets of tags, for a time. '*' in a set is no limit; what has no such tag lies outside every
-- set without it. `approval` names the question by which it was given; '' at the machine itself.
CREATE TABLE gateway.access_grant (
    id            text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    version       bigint      NOT NULL DEFAULT 1,
    person        text COLLATE "C" NOT NULL,
    role          text        NOT NULL,
    entities      text[]      NOT NULL CHECK (cardinality(entities) > 0),
    brands        text[]      NOT NULL CHECK (cardinality(brands) > 0),
    jurisdictions text[]      NOT NULL CHECK (cardinality(jurisdictions) > 0),
    desks         text[]      NOT NULL CHECK (cardinality(desks) > 0),
    partners      text[]      NOT NULL CHECK (cardinality(partners) > 0), -- contracts at the top of subtrees
    valid_from    timestamptz NOT NULL,
    valid_until   timestamptz CHECK (valid_until > valid_from),
    approval      text        NOT NULL DEFAULT '',
    revoked       timestamptz,
    revoked_by    text        NOT NULL DEFAULT '',
    created       timestamptz NOT NULL,
    created_by    text        NOT NULL
);
CREATE INDEX access_grant_person ON gateway.access_grant (person);

-- Each key of the time before grants becomes the credential of a grant of its own.
INSERT INTO gateway.person (id, kind, created, created_by)
SELECT person, CASE WHEN bool_and(role LIKE 'svc.%') THEN 'service' ELSE 'human' END, min(created), 'migration'
FROM gateway.api_key GROUP BY person;
INSERT INTO gateway.access_grant (id, person, role, entities, brands, jurisdictions, desks, partners, valid_from,
                                  revoked, revoked_by, created, created_by)
SELECT 'GR' || substr(id, 3), person, role, entities, '{*}', '{*}', '{*}', '{*}', created, revoked, revoked_by, created,
       created_by
FROM gateway.api_key;
ALTER TABLE gateway.api_key ADD COLUMN grant_id text COLLATE "C";
UPDATE gateway.api_key SET grant_id = 'GR' || substr(id, 3);
ALTER TABLE gateway.api_key ALTER COLUMN grant_id SET NOT NULL, DROP COLUMN role, DROP COLUMN entities;
CREATE INDEX api_key_grant ON gateway.api_key (grant_id);

-- The desk that looks after a client; '' is none.
ALTER TABLE gateway.client ADD COLUMN desk text NOT NULL DEFAULT '';
CREATE INDEX client_desk ON gateway.client (desk, id) WHERE desk <> '';

GRANT SELECT, INSERT ON gateway.person, gateway.access_grant TO brokerd_daemon;
GRANT UPDATE (version, revoked, revoked_by) ON gateway.access_grant TO brokerd_daemon;
