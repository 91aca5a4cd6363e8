-- The memory of commands: which request a caller's key stood for, and what it was answered.
-- Rows are deleted when they are older than the promise of seven days. The room left in each page
-- lets the answer be stored beside the claim without touching the index.

CREATE TABLE gateway.idempotency (
    key             text COLLATE "C" PRIMARY KEY, -- caller:key
    version         bigint      NOT NULL,
    fingerprint     bytea       NOT NULL,
    subject         text        NOT NULL,
    location        text        NOT NULL,
    status          integer,
    body            bytea,
    answering_until timestamptz NOT NULL,
    created         timestamptz NOT NULL,
    CHECK ((status IS NULL) = (body IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX idempotency_created ON gateway.idempotency USING brin (created);
GRANT SELECT, INSERT, DELETE, UPDATE (version, status, body, location) ON gateway.idempotency TO brokerd_daemon;
