"""The SQL of clients. Knows the client, its events, and whom it came through only."""

from __future__ import annotations

from typing import Final

from gateway.control.queries_reach import held, within

CLAIM_CLIENT: Final = """
INSERT INTO gateway.client (reference_key, id, version, caller, reference, brand, entity, book, country, currency,
                            client_type, risk_band, state, correlation, created, updated, desk)
SELECT u.reference_key, u.id, 1, u.caller, u.reference, u.brand, u.entity, u.book, u.country, u.currency,
       u.client_type, u.risk_band, u.state, u.correlation, u.created, u.created, u.desk
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[], $9::text[],
            $10::text[], $11::text[], $12::text[], $13::text[], $14::timestamptz[], $15::text[])
     AS u(reference_key, id, caller, reference, brand, entity, book, country, currency, client_type, risk_band, state,
          correlation, created, desk)
ORDER BY u.reference_key
ON CONFLICT (reference_key) DO NOTHING RETURNING reference_key
"""

LOOK_CLIENT: Final = """
SELECT reference_key, id, state FROM gateway.client WHERE reference_key = ANY($1::text[])
"""

LOCK_CLIENT: Final = """
SELECT id, version FROM gateway.client WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""

MOVE_CLIENT: Final = """
UPDATE gateway.client t SET version = t.version + 1, state = u.state, blocks = string_to_array(u.blocks, ','),
       came_from = u.came_from, updated = u.updated
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
     AS u(id, expected, state, blocks, came_from, updated)
WHERE t.id = u.id
"""

INSERT_CLIENT_EVENT: Final = """
INSERT INTO gateway.client_event (object_id, version, from_state, to_state, event, cause, actor, at)
SELECT u.object_id, u.version, u.from_state, u.to_state, u.event, u.cause::jsonb, u.actor, u.at
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
     AS u(object_id, version, from_state, to_state, event, cause, actor, at)
"""

# Distinct `id@state` that hold: the unit decided on this state, and it must not change under it.
CLIENT_STILL: Final = """
SELECT id || '@' || version FROM gateway.client
WHERE id || '@' || version = ANY($1::text[]) AND id = ANY(SELECT split_part(v, '@', 1) FROM unnest($1::text[]) AS v)
ORDER BY id FOR SHARE
"""

# With whom the client came through: the last attribution, and that contract's code.
_CLIENTS: Final = """
SELECT k.id, k.version, k.caller, k.reference, k.brand, k.entity, k.book, k.country, k.currency, k.client_type,
       k.risk_band, k.state, k.blocks, k.came_from, k.correlation, k.created, k.updated, k.desk,
       coalesce(a.contract_id, '') AS contract, coalesce(c.code, '') AS code
FROM gateway.client k
LEFT JOIN LATERAL (SELECT contract_id FROM gateway.attribution x WHERE x.client_id = k.id
                     AND since <= statement_timestamp() ORDER BY since DESC LIMIT 1) a ON true
LEFT JOIN gateway.contract c ON c.id = a.contract_id
"""

SELECT_CLIENT: Final = f"{_CLIENTS} WHERE k.id = $1"

SELECT_THESE: Final = f"{_CLIENTS} WHERE k.id = ANY($1::text[])"

_WITHIN: Final = within("k.entity", "k.brand", "k.desk", "a.contract_id")

# $1 the client, $2 the filter of the caller
CLIENT_WITHIN: Final = f"""{held(2)} {_CLIENTS} WHERE k.id = $1 AND {_WITHIN}"""

# Newest first: $1 the cursor, $2 the filter, $3 state or '', $4 caller and $5 reference or ''.
SELECT_CLIENTS: Final = f"""{held(2)} {_CLIENTS}
WHERE ($1 = '' OR k.id < $1) AND {_WITHIN} AND ($3 = '' OR k.state = $3)
  AND ($5 = '' OR k.reference_key = $4 || ':' || $5)
ORDER BY k.id DESC LIMIT $6
"""

SELECT_CLIENT_EVENTS: Final = """
SELECT version, from_state, to_state, event, cause::text AS cause, actor, at FROM gateway.client_event
WHERE object_id = $1 ORDER BY version, id LIMIT $2
"""
