-- Payments, their attempts, the decisions behind them, and the notices of PSPs.
-- Amounts are minor units; times come from the daemon; a version moves by one with each change.

CREATE SCHEMA router;

CREATE TABLE router.payment (
    id            text PRIMARY KEY CHECK (id ~ '^PY[0-9A-Z]{18}$'),
    version       bigint NOT NULL CHECK (version > 0),
    state         text NOT NULL CHECK (state IN ('in_progress', 'approved', 'declined', 'review')),
    book          integer NOT NULL,
    client_id     text NOT NULL,
    entity        text NOT NULL,
    brand         text NOT NULL,
    country       text NOT NULL,
    method        text NOT NULL,
    risk_band     text NOT NULL,
    instrument    text NOT NULL,
    amount_minor  bigint NOT NULL CHECK (amount_minor > 0),
    currency      text NOT NULL,
    account_id    text NOT NULL,
    caller        text NOT NULL,
    correlation   text NOT NULL,
    rulebook      text NOT NULL,
    created       timestamptz NOT NULL,
    due_at        timestamptz,
    reason        text NOT NULL
) WITH (fillfactor = 80);

-- A client's payments, newest first: what support asks for.
CREATE INDEX payment_client ON router.payment (client_id, id);

-- Small: only what somebody still has to look at.
CREATE INDEX payment_due ON router.payment (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE router.attempt (
    id             text NOT NULL UNIQUE CHECK (id ~ '^AT[0-9A-Z]{18}$'),
    payment_id     text NOT NULL,
    no             integer NOT NULL CHECK (no > 0),
    version        bigint NOT NULL CHECK (version > 0),
    psp            text NOT NULL,
    state          text NOT NULL CHECK (state IN (
        'sent', 'not_sent', 'pending', 'unknown', 'approved', 'declined', 'not_found', 'mismatch')),
    lease_owner    text NOT NULL,
    lease_until    timestamptz,
    psp_reference  text NOT NULL,
    code           text NOT NULL,
    category       text NOT NULL,
    cascade        boolean NOT NULL,
    message        text NOT NULL,
    inquiries      integer NOT NULL CHECK (inquiries >= 0),
    not_found_at   timestamptz,
    sent_at        timestamptz NOT NULL,
    updated        timestamptz NOT NULL,
    PRIMARY KEY (payment_id, no),
    CHECK ((lease_owner = '') = (lease_until IS NULL))
) WITH (fillfactor = 80);

-- Why a payment went where it went: written once, with the payment.
CREATE TABLE router.decision (
    payment_id  text PRIMARY KEY,
    rulebook    text NOT NULL,
    trace       jsonb NOT NULL
);

-- One row for each change of state; `version` is the version the object moved to.
CREATE TABLE router.event (
    object_id   text NOT NULL,
    version     bigint NOT NULL,
    from_state  text NOT NULL,
    to_state    text NOT NULL,
    event       text NOT NULL,
    cause       jsonb NOT NULL,
    actor       text NOT NULL,
    at          timestamptz NOT NULL,
    PRIMARY KEY (object_id, version)
);

-- Verified notices of PSPs, each once. `parked`: nobody knew its reference yet.
CREATE TABLE router.inbox (
    key         text PRIMARY KEY,
    version     bigint NOT NULL CHECK (version > 0),
    psp         text NOT NULL,
    event_id    text NOT NULL,
    reference   text NOT NULL,
    payment_id  text NOT NULL,
    state       text NOT NULL CHECK (state IN ('applied', 'parked')),
    reason      text NOT NULL,
    raw         bytea NOT NULL,
    received    timestamptz NOT NULL,
    applied_at  timestamptz
);

CREATE INDEX inbox_parked ON router.inbox (received) WHERE state = 'parked';

GRANT USAGE ON SCHEMA router TO brokerd_daemon;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA router TO brokerd_daemon;
GRANT UPDATE (version, state, due_at, reason) ON router.payment TO brokerd_daemon;
GRANT UPDATE (version, state, lease_owner, lease_until, psp_reference, code, category, cascade,
              message, inquiries, not_found_at, updated) ON router.attempt TO brokerd_daemon;
GRANT UPDATE (version, state, reason, payment_id, applied_at) ON router.inbox TO brokerd_daemon;
