-- Sign-in: how people and services prove who they are, and the sessions of people. No secret stands here that
-- could be used: passwords are argon2id, devices' secrets are ciphertext, sessions are keyed digests.

CREATE TABLE gateway.password (
    person     text COLLATE "C" PRIMARY KEY,
    version    bigint      NOT NULL,
    hash       text        NOT NULL CHECK (hash LIKE '$argon2id$%'),
    changed    timestamptz NOT NULL,
    changed_by text        NOT NULL
);
GRANT SELECT, INSERT, UPDATE (version, hash, changed, changed_by) ON gateway.password TO brokerd_daemon;

-- The device that shows a person's codes. A code works once: `used` is the newest step that was.
CREATE TABLE gateway.device (
    person     text COLLATE "C" PRIMARY KEY,
    version    bigint      NOT NULL,
    secret     bytea       NOT NULL,
    used       bigint      NOT NULL DEFAULT 0,
    changed    timestamptz NOT NULL,
    changed_by text        NOT NULL
);
GRANT SELECT, INSERT, UPDATE (version, secret, used, changed, changed_by) ON gateway.device TO brokerd_daemon;

-- Who a person is to an identity provider: only who stands here is let in by it.
CREATE TABLE gateway.identity (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    issuer     text COLLATE "C" NOT NULL, -- its name in the settings
    subject    text COLLATE "C" NOT NULL,
    person     text COLLATE "C" NOT NULL,
    added      timestamptz NOT NULL,
    added_by   text        NOT NULL,
    removed    timestamptz,
    removed_by text        NOT NULL DEFAULT ''
);
-- A subject is one person at a time.
CREATE UNIQUE INDEX identity_subject ON gateway.identity (issuer, subject) WHERE removed IS NULL;
GRANT SELECT, INSERT, UPDATE (removed, removed_by) ON gateway.identity TO brokerd_daemon;

-- A session of a person, from signing in to its end. `seen` is as old as a minute when it is in use.
CREATE TABLE gateway.sign_in (
    id       text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    digest   bytea       NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    person   text COLLATE "C" NOT NULL,
    method   text        NOT NULL CHECK (method IN ('password', 'oidc')),
    address  text        NOT NULL, -- where the browser came from
    opened   timestamptz NOT NULL,
    seen     timestamptz NOT NULL,
    expires  timestamptz NOT NULL,
    ended    timestamptz,
    ended_by text        NOT NULL DEFAULT '',
    CHECK ((ended IS NULL) = (ended_by = ''))
);
CREATE INDEX sign_in_person ON gateway.sign_in (person, id);
CREATE INDEX sign_in_expiry ON gateway.sign_in (expires);
GRANT SELECT, INSERT, UPDATE (seen, ended, ended_by), DELETE ON gateway.sign_in TO brokerd_daemon;

-- A client certificate is a credential of a grant as a key is; `name` is what it says of its holder (SAN).
CREATE TABLE gateway.certificate (
    id         text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    name       text COLLATE "C" NOT NULL CHECK (name ~ '^(DNS|URI|email):[\x21-\x7e]{1,255}$'),
    owner      text        NOT NULL CHECK (owner ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    person     text        NOT NULL,
    grant_id   text COLLATE "C" NOT NULL,
    created    timestamptz NOT NULL,
    created_by text        NOT NULL,
    revoked    timestamptz,
    revoked_by text        NOT NULL DEFAULT ''
);
-- One holder for a name at a time.
CREATE UNIQUE INDEX certificate_name ON gateway.certificate (name) WHERE revoked IS NULL;
GRANT SELECT, INSERT, UPDATE (revoked, revoked_by) ON gateway.certificate TO brokerd_daemon;

-- A grant that was given over the usual rules for a short while. `item` asks another person what was done with it.
CREATE TABLE gateway.break_glass (
    grant_id text COLLATE "C" PRIMARY KEY,
    approval text COLLATE "C" NOT NULL UNIQUE,
    person   text        NOT NULL,
    since    timestamptz NOT NULL,
    until    timestamptz NOT NULL CHECK (until > since),
    reason   text        NOT NULL,
    item     text COLLATE "C" NOT NULL,
    ended    timestamptz,
    ended_by text        NOT NULL DEFAULT '',
    CHECK ((ended IS NULL) = (ended_by = ''))
);
CREATE INDEX break_glass_open ON gateway.break_glass (until) WHERE ended IS NULL;
GRANT SELECT, INSERT, UPDATE (ended, ended_by) ON gateway.break_glass TO brokerd_daemon;
