"""The SQL of the bridge: constants with names, one statement each, over the schema `bridge` only.

Knows tables and columns. Refuses to know when a statement may run: the lane and the readers do.
"""

from typing import Final

INSERT_ACCOUNTS: Final = """
INSERT INTO bridge.account (id, version, client_id, book, server, entity, brand, account_type,
    currency, platform_group, leverage, rights, login, state, attempts, reason, due_at,
    lease_owner, lease_until, caller, correlation, created, updated)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::integer[], $5::text[], $6::text[],
    $7::text[], $8::text[], $9::text[], $10::text[], $11::integer[], $12::bigint[], $13::bigint[],
    $14::text[], $15::integer[], $16::text[], $17::timestamptz[], $18::text[],
    $19::timestamptz[], $20::text[], $21::text[], $22::timestamptz[], $23::timestamptz[])
"""

MOVE_ACCOUNTS: Final = """
UPDATE bridge.account AS t
SET version = t.version + 1, login = u.login, state = u.state, attempts = u.attempts,
    reason = u.reason, due_at = u.due_at, lease_owner = u.lease_owner,
    lease_until = u.lease_until, updated = u.updated
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::integer[], $6::text[],
    $7::timestamptz[], $8::text[], $9::timestamptz[], $10::timestamptz[])
    AS u(id, expected, login, state, attempts, reason, due_at, lease_owner, lease_until, updated)
WHERE t.id = u.id
"""

LOOK_ACCOUNTS: Final = """
SELECT id, version, state FROM bridge.account WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""

INSERT_OPERATIONS: Final = """
INSERT INTO bridge.operation (id, version, account_id, server, login, book, amount_minor, currency,
    state, payment_id, ticket, attempts, lookups, reason, sent_at, unknown_at, due_at,
    lease_owner, lease_until, correlation, created, updated)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[],
    $6::integer[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::bigint[],
    $12::integer[], $13::integer[], $14::text[], $15::timestamptz[], $16::timestamptz[],
    $17::timestamptz[], $18::text[], $19::timestamptz[], $20::text[], $21::timestamptz[],
    $22::timestamptz[])
"""

MOVE_OPERATIONS: Final = """
UPDATE bridge.operation AS t
SET version = t.version + 1, state = u.state, ticket = u.ticket, attempts = u.attempts,
    lookups = u.lookups, reason = u.reason, sent_at = u.sent_at, unknown_at = u.unknown_at,
    due_at = u.due_at, lease_owner = u.lease_owner, lease_until = u.lease_until,
    updated = u.updated
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::integer[], $6::integer[],
    $7::text[], $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::text[],
    $12::timestamptz[], $13::timestamptz[])
    AS u(id, expected, state, ticket, attempts, lookups, reason, sent_at, unknown_at, due_at,
         lease_owner, lease_until, updated)
WHERE t.id = u.id
"""

LOOK_OPERATIONS: Final = """
SELECT id, version, state FROM bridge.operation WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""

INSERT_JOBS: Final = """
INSERT INTO bridge.job (object_id, attempt, server, method, payload, payload_hash, code, text,
    class, decision, took_ms, at)
SELECT u.object_id, u.attempt, u.server, u.method, u.payload::jsonb, u.payload_hash, u.code,
    u.text, u.class, u.decision, u.took_ms, u.at
FROM unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[],
    $7::integer[], $8::text[], $9::text[], $10::text[], $11::integer[], $12::timestamptz[])
    AS u(object_id, attempt, server, method, payload, payload_hash, code, text, class, decision,
         took_ms, at)
"""

INSERT_EVENTS: Final = """
INSERT INTO bridge.event (object_id, from_state, to_state, event, cause, actor, at)
SELECT u.object_id, u.from_state, u.to_state, u.event, u.cause::jsonb, u.actor, u.at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
    $7::timestamptz[])
    AS u(object_id, from_state, to_state, event, cause, actor, at)
"""

ACCOUNT: Final = """
SELECT id, version, client_id, book, server, entity, brand, account_type, currency,
    platform_group, leverage, rights, login, state, attempts, reason, due_at, lease_owner,
    lease_until, caller, correlation, created, updated
FROM bridge.account WHERE id = $1
"""

ACCOUNTS_OF_CLIENT: Final = """
SELECT id, version, client_id, book, server, entity, brand, account_type, currency,
    platform_group, leverage, rights, login, state, attempts, reason, due_at, lease_owner,
    lease_until, caller, correlation, created, updated
FROM bridge.account WHERE client_id = $1 ORDER BY id
"""

ACCOUNTS_DUE: Final = """
SELECT id, version, client_id, book, server, entity, brand, account_type, currency,
    platform_group, leverage, rights, login, state, attempts, reason, due_at, lease_owner,
    lease_until, caller, correlation, created, updated
FROM bridge.account WHERE server = $1 AND due_at <= $2 ORDER BY due_at, id LIMIT $3
"""

OPERATION: Final = """
SELECT id, version, account_id, server, login, book, amount_minor, currency, state, payment_id,
    ticket, attempts, lookups, reason, sent_at, unknown_at, due_at, lease_owner, lease_until,
    correlation, created, updated
FROM bridge.operation WHERE id = $1
"""

OPERATIONS_OF_PAYMENT: Final = """
SELECT id, version, account_id, server, login, book, amount_minor, currency, state, payment_id,
    ticket, attempts, lookups, reason, sent_at, unknown_at, due_at, lease_owner, lease_until,
    correlation, created, updated
FROM bridge.operation WHERE payment_id = $1 ORDER BY id
"""

OPERATIONS_OF_ACCOUNT: Final = """
SELECT id, version, account_id, server, login, book, amount_minor, currency, state, payment_id,
    ticket, attempts, lookups, reason, sent_at, unknown_at, due_at, lease_owner, lease_until,
    correlation, created, updated
FROM bridge.operation WHERE account_id = $1 ORDER BY id
"""

OPERATIONS_DUE: Final = """
SELECT id, version, account_id, server, login, book, amount_minor, currency, state, payment_id,
    ticket, attempts, lookups, reason, sent_at, unknown_at, due_at, lease_owner, lease_until,
    correlation, created, updated
FROM bridge.operation WHERE server = $1 AND due_at <= $2 ORDER BY due_at, id LIMIT $3
"""

PLATFORM_TOTALS: Final = """
SELECT a.id, a.server, a.login, a.currency,
    COALESCE(sum(o.amount_minor) FILTER (WHERE o.state = 'done'), 0)::bigint AS done_minor,
    count(o.id) FILTER (WHERE o.state IN ('queued', 'sent', 'unknown')) AS open
FROM bridge.account AS a LEFT JOIN bridge.operation AS o ON o.account_id = a.id
WHERE a.login IS NOT NULL
GROUP BY a.id ORDER BY a.id
"""

COUNTS: Final = """
SELECT 'account' AS kind, server, state, count(*) AS count FROM bridge.account GROUP BY 2, 3
UNION ALL
SELECT 'operation', server, state, count(*) FROM bridge.operation GROUP BY 2, 3
"""

JOBS_OF: Final = """
SELECT object_id, attempt, server, method, payload::text AS payload, payload_hash, code, text,
    class, decision, took_ms, at
FROM bridge.job WHERE object_id = $1 ORDER BY id
"""

EVENTS_OF: Final = """
SELECT object_id, from_state, to_state, event, cause::text AS cause, actor, at
FROM bridge.event WHERE object_id = $1 ORDER BY id
"""

LEASED_LOGIN: Final = """
SELECT login FROM bridge.login_lease WHERE account_id = $1
"""

OPEN_LOGIN_RANGE: Final = """
INSERT INTO bridge.login_range (server, range_from, next) VALUES ($1, $2, $2)
ON CONFLICT DO NOTHING
"""

LOCK_LOGIN_RANGE: Final = """
SELECT next FROM bridge.login_range WHERE server = $1 AND range_from = $2 FOR UPDATE
"""

LEASE_LOGIN: Final = """
INSERT INTO bridge.login_lease (server, login, range_from, account_id) VALUES ($1, $2, $3, $4)
ON CONFLICT (server, login) DO NOTHING RETURNING login
"""

MOVE_LOGIN_RANGE: Final = """
UPDATE bridge.login_range SET next = $3 WHERE server = $1 AND range_from = $2
"""

HOLDERS: Final = """
SELECT login, book, client_id, id FROM bridge.account WHERE server = $1 AND login = ANY($2::bigint[])
"""
