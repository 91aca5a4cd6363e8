-- The bridge: trading accounts and balance operations as we want them, and every platform call.
CREATE SCHEMA IF NOT EXISTS bridge;

CREATE TABLE bridge.account (
    id              text        PRIMARY KEY CHECK (length(id) = 20),
    version         bigint      NOT NULL CHECK (version > 0),
    client_id       text        NOT NULL,
    book            integer     NOT NULL,
    server          text        NOT NULL,
    entity          text        NOT NULL,
    brand           text        NOT NULL,
    account_type    text        NOT NULL,
    currency        text        NOT NULL,
    platform_group  text        NOT NULL,
    leverage        integer     NOT NULL CHECK (leverage > 0),
    rights          bigint      NOT NULL CHECK (rights >= 0),
    login           bigint      CHECK (login > 0),
    state           text        NOT NULL CHECK (state IN
        ('requested', 'sent', 'verified', 'verify_failed', 'refused', 'unknown')),
    attempts        integer     NOT NULL DEFAULT 0,
    reason          text        NOT NULL DEFAULT '',
    due_at          timestamptz,
    lease_owner     text        NOT NULL DEFAULT '',
    lease_until     timestamptz,
    caller          text        NOT NULL DEFAULT '',
    correlation     text        NOT NULL,
    created         timestamptz NOT NULL,
    updated         timestamptz NOT NULL,
    UNIQUE (server, login),
    CHECK (state NOT IN ('sent', 'verified', 'verify_failed', 'unknown') OR login IS NOT NULL)
);
CREATE INDEX account_client ON bridge.account (client_id);
CREATE INDEX account_due ON bridge.account (server, due_at) WHERE due_at IS NOT NULL;

CREATE TABLE bridge.operation (
    id              text        PRIMARY KEY CHECK (length(id) = 20),
    version         bigint      NOT NULL CHECK (version > 0),
    account_id      text        NOT NULL,
    server          text        NOT NULL,
    login           bigint      NOT NULL CHECK (login > 0),
    book            integer     NOT NULL,
    amount_minor    bigint      NOT NULL CHECK (amount_minor <> 0),
    currency        text        NOT NULL,
    state           text        NOT NULL CHECK (state IN
        ('queued', 'sent', 'done', 'refused', 'unknown')),
    payment_id      text        NOT NULL DEFAULT '',
    ticket          bigint      CHECK (ticket > 0),
    attempts        integer     NOT NULL DEFAULT 0,
    lookups         integer     NOT NULL DEFAULT 0,
    reason          text        NOT NULL DEFAULT '',
    sent_at         timestamptz,
    unknown_at      timestamptz,
    due_at          timestamptz,
    lease_owner     text        NOT NULL DEFAULT '',
    lease_until     timestamptz,
    correlation     text        NOT NULL,
    created         timestamptz NOT NULL,
    updated         timestamptz NOT NULL,
    CHECK ((state = 'done') = (ticket IS NOT NULL)),
    CHECK (state NOT IN ('sent', 'unknown') OR sent_at IS NOT NULL),
    CHECK ((state = 'unknown') = (unknown_at IS NOT NULL))
);
CREATE INDEX operation_account ON bridge.operation (account_id);
CREATE INDEX operation_due ON bridge.operation (server, due_at) WHERE due_at IS NOT NULL;
-- One payment puts its money on a platform once, unless the platform refused it.
CREATE UNIQUE INDEX operation_payment ON bridge.operation (payment_id)
    WHERE payment_id <> '' AND state <> 'refused';
-- One deal of a platform settles one operation.
CREATE UNIQUE INDEX operation_ticket ON bridge.operation (server, ticket) WHERE ticket IS NOT NULL;

CREATE TABLE bridge.job (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_id    text        NOT NULL,
    attempt      integer     NOT NULL,
    server       text        NOT NULL,
    method       text        NOT NULL,
    payload      jsonb       NOT NULL,
    payload_hash text        NOT NULL,
    code         integer,
    text         text        NOT NULL,
    class        text        NOT NULL,
    decision     text        NOT NULL,
    took_ms      integer     NOT NULL,
    at           timestamptz NOT NULL
);
CREATE INDEX job_object ON bridge.job (object_id);

CREATE TABLE bridge.event (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_id  text        NOT NULL,
    from_state text        NOT NULL,
    to_state   text        NOT NULL,
    event      text        NOT NULL,
    cause      jsonb       NOT NULL,
    actor      text        NOT NULL,
    at         timestamptz NOT NULL
);
CREATE INDEX event_object ON bridge.event (object_id);

CREATE TABLE bridge.login_range (
    server     text   NOT NULL,
    range_from bigint NOT NULL CHECK (range_from > 0),
    next       bigint NOT NULL,
    PRIMARY KEY (server, range_from)
);

CREATE TABLE bridge.login_lease (
    server     text        NOT NULL,
    login      bigint      NOT NULL CHECK (login > 0),
    range_from bigint      NOT NULL,
    account_id text        NOT NULL UNIQUE,
    PRIMARY KEY (server, login)
);

GRANT USAGE ON SCHEMA bridge TO brokerd_daemon;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA bridge TO brokerd_daemon;
GRANT UPDATE (version, login, state, attempts, reason, due_at, lease_owner, lease_until, updated)
    ON bridge.account TO brokerd_daemon;
GRANT UPDATE (version, state, ticket, attempts, lookups, reason, sent_at, unknown_at, due_at,
    lease_owner, lease_until, updated) ON bridge.operation TO brokerd_daemon;
GRANT UPDATE (next) ON bridge.login_range TO brokerd_daemon;
