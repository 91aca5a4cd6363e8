"""All SQL of the router: set-based statements for the lane and reads, as named constants.

Knows the tables of schema `router` and no others. Refuses to decide anything.
"""

from __future__ import annotations

from typing import Final

PAYMENT_INSERT: Final = """
INSERT INTO router.payment (
    id, version, state, book, client_id, entity, brand, country, method, risk_band, instrument,
    amount_minor, currency, account_id, caller, correlation, rulebook, created, due_at, reason)
SELECT * FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], $14::text[],
    $15::text[], $16::text[], $17::text[], $18::timestamptz[], $19::timestamptz[], $20::text[])
"""

PAYMENT_LOOK: Final = """
SELECT id, version, state FROM router.payment WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""

PAYMENT_MOVE: Final = """
UPDATE router.payment t
SET version = t.version + 1, state = u.state, due_at = u.due_at, reason = u.reason
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[], $5::text[])
    AS u (id, expected, state, due_at, reason)
WHERE t.id = u.id
"""

ATTEMPT_INSERT: Final = """
INSERT INTO router.attempt (
    id, payment_id, no, version, psp, state, lease_owner, lease_until, psp_reference, code,
    category, cascade, message, inquiries, not_found_at, sent_at, updated)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::integer[], $4::bigint[], $5::text[], $6::text[], $7::text[],
    $8::timestamptz[], $9::text[], $10::text[], $11::text[], $12::boolean[], $13::text[],
    $14::integer[], $15::timestamptz[], $16::timestamptz[], $17::timestamptz[])
"""

ATTEMPT_LOOK: Final = """
SELECT id, version, state FROM router.attempt WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""

ATTEMPT_MOVE: Final = """
UPDATE router.attempt t
SET version = t.version + 1, state = u.state, lease_owner = u.lease_owner,
    lease_until = u.lease_until, psp_reference = u.psp_reference, code = u.code,
    category = u.category, cascade = u.cascade, message = u.message, inquiries = u.inquiries,
    not_found_at = u.not_found_at, updated = u.updated
FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[],
    $8::text[], $9::boolean[], $10::text[], $11::integer[], $12::timestamptz[], $13::timestamptz[])
    AS u (id, expected, state, lease_owner, lease_until, psp_reference, code, category, cascade,
          message, inquiries, not_found_at, updated)
WHERE t.id = u.id
"""

DECISION_INSERT: Final = """
INSERT INTO router.decision (payment_id, rulebook, trace)
SELECT u.payment_id, u.rulebook, u.trace::jsonb
FROM unnest($1::text[], $2::text[], $3::text[]) AS u (payment_id, rulebook, trace)
"""

EVENT_INSERT: Final = """
INSERT INTO router.event (object_id, version, from_state, to_state, event, cause, actor, at)
SELECT u.object_id, u.version, u.from_state, u.to_state, u.event, u.cause::jsonb, u.actor, u.at
FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::timestamptz[])
    AS u (object_id, version, from_state, to_state, event, cause, actor, at)
"""

INBOX_CLAIM: Final = """
INSERT INTO router.inbox (
    key, version, psp, event_id, reference, payment_id, state, reason, raw, received, applied_at)
SELECT * FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::bytea[], $10::timestamptz[], $11::timestamptz[])
ON CONFLICT DO NOTHING RETURNING key
"""

INBOX_CLAIMED: Final = """
SELECT key, payment_id, state FROM router.inbox WHERE key = ANY($1::text[])
"""

INBOX_LOOK: Final = """
SELECT key AS id, version, state FROM router.inbox WHERE key = ANY($1::text[]) ORDER BY key FOR UPDATE
"""

INBOX_MOVE: Final = """
UPDATE router.inbox t
SET version = t.version + 1, state = u.state, reason = u.reason, payment_id = u.payment_id,
    applied_at = u.applied_at
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
    AS u (key, expected, state, reason, payment_id, applied_at)
WHERE t.key = u.key
"""

# -- reads -----------------------------------------------------------------------------------------

PAYMENT: Final = """
SELECT p.*, d.trace::text AS trace
FROM router.payment p JOIN router.decision d ON d.payment_id = p.id
WHERE p.id = $1
"""

PAYMENTS: Final = """
SELECT * FROM router.payment
WHERE ($1 = '' OR client_id = $1)
  AND ($2::jsonb IS NULL OR EXISTS (
       SELECT 1 FROM jsonb_to_recordset($2::jsonb) AS h(entities text[], brands text[])
       WHERE (h.entities IS NULL OR entity = ANY(h.entities)) AND (h.brands IS NULL OR brand = ANY(h.brands))))
  AND ($3 = '' OR state = $3) AND ($4 = '' OR id < $4)
ORDER BY id DESC LIMIT $5
"""

ATTEMPTS: Final = """
SELECT * FROM router.attempt WHERE payment_id = $1 ORDER BY no
"""

PAYMENT_OF_REFERENCE: Final = """
SELECT payment_id FROM router.attempt WHERE id = $1
"""

DUE: Final = """
SELECT id FROM router.payment WHERE due_at IS NOT NULL AND due_at <= $1 ORDER BY due_at LIMIT $2
"""

EVENTS: Final = """
SELECT e.object_id, e.version, e.from_state, e.to_state, e.event, e.cause::text AS cause, e.actor, e.at
FROM router.event e
WHERE e.object_id = $1 OR e.object_id = ANY(ARRAY(SELECT id FROM router.attempt WHERE payment_id = $1))
ORDER BY e.at, e.object_id, e.version
"""

PARKED: Final = """
SELECT i.key, i.version, i.psp, i.event_id, i.reference, a.payment_id, i.state, i.reason, i.raw,
    i.received
FROM router.inbox i JOIN router.attempt a ON a.id = i.reference
WHERE i.state = 'parked'
ORDER BY i.received LIMIT $1
"""

PARKED_COUNT: Final = """
SELECT count(*) FROM router.inbox WHERE state = 'parked'
"""

# One row for each attempt, and one for each payment that never had any.
SURVEY: Final = """
SELECT p.id AS payment_id, p.state AS payment_state, p.amount_minor AS minor, p.currency, p.created,
    coalesce(a.id, '') AS reference, coalesce(a.no, 0) AS no, coalesce(a.psp, '') AS psp,
    coalesce(a.state, '') AS state,
    EXISTS (SELECT FROM router.event e
            WHERE e.object_id = a.id AND e.from_state = 'unknown'
              AND e.to_state IN ('approved', 'declined', 'not_found')) AS resolved
FROM router.payment p LEFT JOIN router.attempt a ON a.payment_id = p.id
ORDER BY p.id, a.no
"""

NEWEST: Final = """
SELECT * FROM router.payment ORDER BY id DESC LIMIT $1
"""

OPEN_ATTEMPTS: Final = """
SELECT psp, count(*) AS attempts FROM router.attempt
WHERE psp = ANY($1::text[]) AND state = ANY($2::text[]) GROUP BY psp
"""
