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
