"""The SQL of approvals and delegations. Knows these tables and their events only."""

from __future__ import annotations

from typing import Final

from gateway.control.queries_reach import held, within

CLAIM_APPROVAL: Final = """
INSERT INTO gateway.approval (open_key, id, version, kind, subject, entity, brand, desk, contracts, about, risk, amount, state,
                              maker, maker_role, maker_owner, needed, permission, level, policy, payload, reason, correlation,
                              created, expires)
SELECT u.open_key, u.id, 1, u.kind, u.subject, u.entity, u.brand, u.desk, string_to_array(u.contracts, ','),
       string_to_array(u.about, ','), u.risk, u.amount, 'open', u.maker, u.maker_role, u.maker_owner, u.needed, u.permission, u.level, u.policy, u.payload::jsonb, u.reason, u.correlation,
       u.created, u.expires
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::int[], $16::text[], $17::text[],
            $18::text[], $19::text[], $20::text[], $21::text[], $22::timestamptz[], $23::timestamptz[])
     AS u(open_key, id, kind, subject, entity, brand, desk, contracts, about, risk, amount, maker, maker_role, maker_owner,
          needed, permission, level, policy, payload, reason, correlation, created, expires)
ORDER BY u.open_key
ON CONFLICT (open_key) DO NOTHING RETURNING open_key
"""

LOOK_APPROVAL: Final = """
SELECT open_key, id FROM gateway.approval WHERE open_key = ANY($1::text[])
"""

LOCK_APPROVAL: Final = """
SELECT id, version FROM gateway.approval WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""

# By the server's clock, at the moment of the effect: a unit that waited too long is too late.
APPROVAL_IN_TIME: Final = """
SELECT id FROM gateway.approval WHERE id = ANY($1::text[]) AND expires > clock_timestamp()
"""

MOVE_APPROVAL: Final = """
UPDATE gateway.approval t SET version = t.version + 1, state = u.state,
       open_key = CASE WHEN u.state = 'open' THEN t.open_key END,
       votes = string_to_array(u.votes, ','), authorities = string_to_array(u.authorities, ','), decided = u.decided
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
     AS u(id, expected, state, votes, authorities, decided)
WHERE t.id = u.id
"""

INSERT_APPROVAL_EVENT: Final = """
INSERT INTO gateway.approval_event (object_id, version, from_state, to_state, event, cause, actor, at)
SELECT u.object_id, u.version, u.from_state, u.to_state, u.event, u.cause::jsonb, u.actor, u.at
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
     AS u(object_id, version, from_state, to_state, event, cause, actor, at)
"""

_APPROVALS: Final = """
SELECT id, version, kind, subject, entity, brand, desk, contracts, about, risk, amount, state, maker, maker_role,
       maker_owner, needed, permission, level, votes, authorities, policy, payload::text AS payload, reason, correlation, created, expires, decided
FROM gateway.approval
"""

SELECT_APPROVAL: Final = f"{_APPROVALS} WHERE id = $1"

# Newest first: $1 the cursor, $2 the filter of the caller, $3 state or ''.
SELECT_APPROVALS: Final = f"""{held(2)} {_APPROVALS}
WHERE ($1 = '' OR id < $1) AND {within("entity", "brand", "desk", "NULL", "contracts")} AND ($3 = '' OR state = $3)
ORDER BY id DESC LIMIT $4
"""

# Open and past their time, the oldest first.
SELECT_DUE: Final = f"""{_APPROVALS}
WHERE state = 'open' AND expires <= $1 ORDER BY expires, id LIMIT $2
"""

# --- delegations --------------------------------------------------------------------------------

# Lists are one text with commas: kinds and entities have none.
INSERT_DELEGATION: Final = """
INSERT INTO gateway.delegation (id, version, giver, delegate, kinds, entities, since, until, reason, created)
SELECT u.id, 1, u.giver, u.delegate, string_to_array(u.kinds, ','), string_to_array(u.entities, ','), u.since, u.until,
       u.reason, u.created
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::text[],
            $9::timestamptz[])
     AS u(id, giver, delegate, kinds, entities, since, until, reason, created)
"""

LOCK_DELEGATION: Final = """
SELECT id, version FROM gateway.delegation WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""

END_DELEGATION: Final = """
UPDATE gateway.delegation t SET version = t.version + 1, ended = u.ended, ended_by = u.ended_by
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[]) AS u(id, expected, ended, ended_by)
WHERE t.id = u.id
"""

# The vote by a lent right holds only while it is lent, by the server's clock.
DELEGATION_HOLDS: Final = """
SELECT id FROM gateway.delegation
WHERE id = ANY($1::text[]) AND ended IS NULL AND since <= clock_timestamp() AND until > clock_timestamp()
FOR SHARE
"""

_DELEGATIONS: Final = """
SELECT id, version, giver, delegate, kinds, entities, since, until, reason, created, ended, ended_by FROM gateway.delegation
"""

SELECT_DELEGATION: Final = f"{_DELEGATIONS} WHERE id = $1"

# Lent to a person ($1) for a kind ($2) and entity ($3) at a moment ($4).
SELECT_DELEGATIONS_TO: Final = f"""{_DELEGATIONS}
WHERE delegate = $1 AND ended IS NULL AND since <= $4 AND until > $4
  AND ('*' = ANY(kinds) OR $2 = ANY(kinds)) AND ('*' = ANY(entities) OR $3 = ANY(entities))
ORDER BY id
"""

# Newest first: $1 the cursor, $2 who asks, who sees their own, $3 entities or null for all, $4 person or ''.
SELECT_DELEGATIONS: Final = f"""{_DELEGATIONS}
WHERE ($1 = '' OR id < $1) AND (giver = $2 OR delegate = $2 OR $3::text[] IS NULL OR entities <@ $3)
  AND ($4 = '' OR giver = $4 OR delegate = $4)
ORDER BY id DESC LIMIT $5
"""

SELECT_MAKERS: Final = """
SELECT DISTINCT maker FROM gateway.approval
WHERE kind = ANY($1::text[]) AND created > clock_timestamp() - interval '90 days' ORDER BY maker
"""
