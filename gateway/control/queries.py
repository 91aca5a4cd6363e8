"""The SQL of control: keys, audit, items, idempotency. Knows these tables only."""

from __future__ import annotations

from typing import Final

from gateway.control.queries_reach import contract_of, held, within

# --- keys ---------------------------------------------------------------------------------------

INSERT_KEY: Final = """
INSERT INTO gateway.api_key (id, version, owner, person, grant_id, digest, created, created_by)
VALUES ($1, 1, $2, $3, $4, $5, $6, $7)
"""

# With the grant it is a credential of; `in_force` says whether both allow anything now.
SELECT_KEY: Final = """
SELECT k.id, k.owner, k.person, k.digest, k.grant_id, g.role, g.entities, g.brands, g.jurisdictions, g.desks, g.partners,
       k.revoked IS NULL AND g.revoked IS NULL AND g.valid_from <= statement_timestamp()
       AND (g.valid_until IS NULL OR g.valid_until > statement_timestamp()) AS in_force
FROM gateway.api_key k JOIN gateway.access_grant g ON g.id = k.grant_id WHERE k.id = $1
"""

SELECT_KEYS: Final = """
SELECT k.id, k.owner, k.person, g.role, g.entities, k.created, k.revoked, k.grant_id
FROM gateway.api_key k JOIN gateway.access_grant g ON g.id = k.grant_id ORDER BY k.id
"""

REVOKE_KEY: Final = """
UPDATE gateway.api_key SET version = version + 1, revoked = $2, revoked_by = $3
WHERE id = $1 AND revoked IS NULL RETURNING owner
"""

# --- idempotency --------------------------------------------------------------------------------

CLAIM_IDEMPOTENCY: Final = """
INSERT INTO gateway.idempotency (key, version, fingerprint, subject, location, status, body, answering_until, created)
SELECT u.key, 1, u.fingerprint, u.subject, u.location, u.status, u.body, u.answering_until, u.created
FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::int[], $6::bytea[], $7::timestamptz[], $8::timestamptz[])
     AS u(key, fingerprint, subject, location, status, body, answering_until, created)
ORDER BY u.key
ON CONFLICT (key) DO NOTHING RETURNING key
"""

LOOK_IDEMPOTENCY: Final = """
SELECT key, version, fingerprint, subject, location, status, body, answering_until
FROM gateway.idempotency WHERE key = ANY($1::text[])
"""

LOCK_IDEMPOTENCY: Final = """
SELECT key AS id, version FROM gateway.idempotency WHERE key = ANY($1::text[]) ORDER BY key FOR UPDATE
"""

FINISH_IDEMPOTENCY: Final = """
UPDATE gateway.idempotency t SET version = t.version + 1, status = u.status, body = u.body, location = u.location
FROM unnest($1::text[], $2::bigint[], $3::int[], $4::bytea[], $5::text[]) AS u(key, expected, status, body, location)
WHERE t.key = u.key
"""

PURGE_IDEMPOTENCY: Final = """
DELETE FROM gateway.idempotency WHERE key IN
    (SELECT key FROM gateway.idempotency WHERE created < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)
"""

# --- items --------------------------------------------------------------------------------------

OPEN_ITEM: Final = """
WITH opened AS (
    INSERT INTO gateway.item (id, version, kind, owner_team, subject, entity, reason, state, correlation, opened)
    SELECT u.id, 1, u.kind, u.owner_team, u.subject, u.entity, u.reason, 'open', u.correlation, u.opened
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
         AS u(id, kind, owner_team, subject, entity, reason, correlation, opened)
    ORDER BY u.kind, u.subject
    ON CONFLICT (kind, subject) WHERE state = 'open' DO NOTHING
    RETURNING id, kind, reason, opened)
INSERT INTO gateway.item_event (object_id, version, from_state, to_state, event, cause, actor, at)
SELECT id, 1, '', 'open', 'opened', jsonb_build_object('kind', kind, 'reason', reason), 'brokerd', opened FROM opened
"""

LOCK_ITEM: Final = """
SELECT id, version FROM gateway.item WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""

RESOLVE_ITEM: Final = """
UPDATE gateway.item t SET version = t.version + 1, state = 'resolved', resolved = u.resolved,
       resolved_by = u.resolved_by, resolution = u.resolution
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[])
     AS u(id, expected, resolved, resolved_by, resolution)
WHERE t.id = u.id
"""

INSERT_ITEM_EVENT: Final = """
INSERT INTO gateway.item_event (object_id, version, from_state, to_state, event, cause, actor, at)
SELECT u.object_id, u.version, u.from_state, u.to_state, u.event, u.cause::jsonb, u.actor, u.at
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
     AS u(object_id, version, from_state, to_state, event, cause, actor, at)
"""

# An item about a client has the client's tags; any other has its entity alone.
_ITEMS: Final = f"""{held(2)}
SELECT i.id, i.version, i.kind, i.owner_team, i.subject, i.entity, i.reason, i.state, i.correlation, i.opened, i.resolved,
       i.resolved_by, i.resolution
FROM gateway.item i LEFT JOIN gateway.client k ON k.id = i.subject
WHERE {within("i.entity", "k.brand", "k.desk", contract_of("k.id"))}
"""

# $1 the item, $2 the filter of the caller
SELECT_ITEM: Final = f"{_ITEMS} AND i.id = $1"

# Newest first: $1 the cursor ('' for the first page), $2 the filter, $3 state or '', $4 team or ''.
SELECT_ITEMS: Final = f"""{_ITEMS}
  AND ($1 = '' OR i.id < $1) AND ($3 = '' OR i.state = $3) AND ($4 = '' OR i.owner_team = $4)
ORDER BY i.id DESC LIMIT $5
"""

HOLD_OPEN_ITEMS: Final = """
SELECT id, version, kind, owner_team, subject, entity, reason, state, correlation, opened, resolved, resolved_by, resolution
FROM gateway.item WHERE kind = $1 AND subject = ANY($2::text[]) AND state = 'open' ORDER BY id FOR UPDATE
"""

COUNT_OPEN_ITEMS: Final = """
SELECT kind, owner_team, count(*) AS items, min(opened) AS oldest FROM gateway.item WHERE state = 'open' GROUP BY kind, owner_team
"""
