-- What is told to subscribers and asked of providers beside a payment's own walk; and who owns what.

-- One owner per name in the whole cluster. The row's epoch rises with each new owner, so that the
-- commits of an old one can be refused.
CREATE TABLE gateway.owner (
    name   text PRIMARY KEY,
    epoch  bigint NOT NULL,
    holder text NOT NULL,
    since  timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT, UPDATE (epoch, holder, since) ON gateway.owner TO brokerd_daemon;

-- `lane` names who is told (`subscriber:crm`) or asked (`psp:acme`); one owner works each lane.
-- `no` is dense per subscriber, in commit order, given by that owner.
CREATE TABLE gateway.outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version     bigint      NOT NULL DEFAULT 1,
    lane        text COLLATE "C" NOT NULL,
    no          bigint,
    kind        text        NOT NULL,
    aggregate   text COLLATE "C" NOT NULL,
    body        text        NOT NULL,
    correlation text        NOT NULL,
    state       text        NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'done', 'refused', 'unknown', 'dead')),
    attempts    integer     NOT NULL DEFAULT 0,
    due_at      timestamptz NOT NULL,
    created     timestamptz NOT NULL,
    ended       timestamptz,
    last_error  text        NOT NULL DEFAULT ''
) WITH (fillfactor = 80);
CREATE INDEX outbox_waiting ON gateway.outbox (lane, aggregate, id) WHERE state = 'waiting';
CREATE INDEX outbox_unnumbered ON gateway.outbox (id) WHERE no IS NULL;
CREATE UNIQUE INDEX outbox_no ON gateway.outbox (lane, no) WHERE no IS NOT NULL;
GRANT SELECT, INSERT, UPDATE (version, no, state, attempts, due_at, ended, last_error)
    ON gateway.outbox TO brokerd_daemon;

-- The last number given to each lane; its row lock orders the givers.
CREATE TABLE gateway.outbox_number (
    lane text COLLATE "C" PRIMARY KEY,
    last bigint NOT NULL
);
GRANT SELECT, INSERT, UPDATE (last) ON gateway.outbox_number TO brokerd_daemon;

-- Where a calling system wants to be told. The signing secret is derived from the process's key,
-- the caller and `version`: none is stored, and setting the address again makes a new one.
CREATE TABLE gateway.subscriber (
    caller      text COLLATE "C" PRIMARY KEY,
    version     bigint NOT NULL DEFAULT 1,
    webhook_url text   NOT NULL,
    updated     timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT, UPDATE (version, webhook_url, updated) ON gateway.subscriber TO brokerd_daemon;
