"""The statements of the rulebook store.

Knows the tables of `migrations/0008_rulebook.sql`. Refuses to know who runs them and when.
"""

from __future__ import annotations

from typing import Final

INSERT_RULEBOOK: Final = """
INSERT INTO gateway.rulebook (hash, source, actor, at) VALUES ($1, $2, $3, $4)
ON CONFLICT (hash) DO NOTHING
"""

SELECT_SOURCE: Final = """
SELECT source FROM gateway.rulebook WHERE hash = $1
"""

SELECT_IN_FORCE: Final = """
SELECT hash, since, version FROM gateway.rulebook_in_force
"""

LOCK_IN_FORCE: Final = """
SELECT hash, since, version FROM gateway.rulebook_in_force FOR UPDATE
"""

# Of several replicas that start on an empty database one inserts; the others wait for it here.
INSERT_IN_FORCE: Final = """
INSERT INTO gateway.rulebook_in_force (hash, since, version) VALUES ($1, $2, 1)
ON CONFLICT (single) DO NOTHING RETURNING version
"""

MOVE_IN_FORCE: Final = """
UPDATE gateway.rulebook_in_force SET hash = $1, since = $2, version = version + 1
WHERE version = $3 RETURNING version
"""

INSERT_EVENT: Final = """
INSERT INTO gateway.rulebook_event (version, from_hash, to_hash, event, cause, actor, at)
VALUES ($1, $2, $3, $4, $5::text::jsonb, $6, $7)
"""

# CHECK of the lane: the rulebook a unit decided with is still in force when the unit is written.
CHECK_IN_FORCE: Final = """
SELECT hash FROM gateway.rulebook_in_force WHERE hash = ANY($1::text[]) FOR SHARE
"""


# --- versions -----------------------------------------------------------------------------------

# INSERT of the lane: a content, once; several drafts may have the same.
INSERT_CONTENT: Final = """
INSERT INTO gateway.rulebook (hash, source, actor, at)
SELECT DISTINCT ON (u.hash) u.hash, convert_to(u.source, 'UTF8'), u.actor, u.at
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS u(hash, source, actor, at)
ON CONFLICT (hash) DO NOTHING
"""

INSERT_VERSION: Final = """
INSERT INTO gateway.rulebook_version (id, version, state, hash, base, areas, restart, findings, author, author_role,
                                      reason, restores, correlation, created)
SELECT u.id, u.version, u.state, u.hash, u.base, string_to_array(u.areas, ','), u.restart, u.findings::jsonb, u.author,
       u.author_role, u.reason, u.restores, u.correlation, u.created
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::text[],
            $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], $14::timestamptz[])
     AS u(id, version, state, hash, base, areas, restart, findings, author, author_role, reason, restores, correlation,
          created)
"""

LOCK_VERSION: Final = """
SELECT id, version FROM gateway.rulebook_version WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""

MOVE_VERSION: Final = """
UPDATE gateway.rulebook_version t
SET version = t.version + 1, state = u.state, agreed = string_to_array(u.agreed, ','),
    approvals = string_to_array(u.approvals, ','), effective_at = u.effective_at, asked = u.asked
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[])
     AS u(id, expected, state, agreed, approvals, effective_at, asked)
WHERE t.id = u.id
"""

INSERT_VERSION_EVENT: Final = """
INSERT INTO gateway.rulebook_version_event (object_id, version, from_state, to_state, event, cause, actor, at)
SELECT u.object_id, u.version, u.from_state, u.to_state, u.event, u.cause::jsonb, u.actor, u.at
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
     AS u(object_id, version, from_state, to_state, event, cause, actor, at)
"""

_VERSION: Final = """
SELECT id, version, state, hash, base, areas, agreed, approvals, restart, findings::text AS findings, effective_at, number,
       author, author_role, reason, restores, correlation, created, asked, since, until
FROM gateway.rulebook_version
"""

SELECT_VERSION: Final = _VERSION + "WHERE id = $1"

SELECT_VERSIONS: Final = (
    _VERSION + "WHERE ($1 = '' OR id < $1) AND ($2 = '' OR state = $2) ORDER BY id DESC LIMIT $3"
)

SELECT_EFFECTIVE: Final = _VERSION + "WHERE state = 'effective'"

# The contents that ever were in force, whoever brought them: what may be restored.
SELECT_NUMBERED: Final = """
SELECT to_hash FROM gateway.rulebook_event WHERE version = $1
"""

# Asked by every process several times a second: nothing but the index of what is agreed to.
IS_DUE: Final = """
SELECT EXISTS (SELECT FROM gateway.rulebook_version
               WHERE state = 'approved' AND NOT restart AND (effective_at IS NULL OR effective_at <= clock_timestamp()))
"""

LOCK_DUE: Final = (
    _VERSION
    + """
WHERE state = 'approved' AND NOT restart AND (effective_at IS NULL OR effective_at <= clock_timestamp())
ORDER BY effective_at NULLS FIRST, id LIMIT 1 FOR UPDATE
"""
)

# What waits for a process to start with it.
LOCK_WAITING: Final = (
    _VERSION
    + """
WHERE state = 'approved' AND hash = $1 AND base = $2 AND (effective_at IS NULL OR effective_at <= clock_timestamp())
ORDER BY id LIMIT 1 FOR UPDATE
"""
)

# On their way, but drafted on what is not in force any more.
LOCK_OUTDATED: Final = (
    _VERSION + "WHERE state IN ('asked', 'approved') AND base <> $1 ORDER BY id FOR UPDATE"
)

END_VERSION: Final = """
UPDATE gateway.rulebook_version SET version = version + 1, state = $2, until = $3 WHERE id = $1
"""

ENACT_VERSION: Final = """
UPDATE gateway.rulebook_version SET version = version + 1, state = 'effective', number = $2, since = $3 WHERE id = $1
"""

SELECT_VERSION_EVENTS: Final = """
SELECT version, from_state, to_state, event, cause::text AS cause, actor, at FROM gateway.rulebook_version_event
WHERE object_id = $1 ORDER BY id
"""

CONTENT_KNOWN: Final = """
SELECT EXISTS (SELECT FROM gateway.rulebook WHERE hash = $1)
"""

DATABASE_NOW: Final = "SELECT clock_timestamp()"
