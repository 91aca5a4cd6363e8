"""The SQL of keys of subjects and of what they close. Knows these two tables and no others."""

from __future__ import annotations

from typing import Final

ADD_SUBJECT_KEY: Final = """
INSERT INTO gateway.subject_key (subject, wrapped, made) VALUES ($1, $2, $3) ON CONFLICT (subject) DO NOTHING
"""

SUBJECT_KEY: Final = """
SELECT wrapped FROM gateway.subject_key WHERE subject = $1
"""

DESTROY_SUBJECT_KEY: Final = """
UPDATE gateway.subject_key SET version = version + 1, wrapped = NULL, destroyed = $2, destroyed_by = $3
 WHERE subject = $1 AND destroyed IS NULL RETURNING subject
"""

KEEP_PERSONAL: Final = """
INSERT INTO gateway.client_personal (client_id, version, fields, updated) VALUES ($1, 1, $2::jsonb, $3)
ON CONFLICT (client_id) DO UPDATE SET version = gateway.client_personal.version + 1, fields = $2::jsonb, updated = $3
RETURNING version
"""

# Held until the caller's transaction ends: whoever replaces it says in the audit what it was.
HOLD_PERSONAL: Final = """
SELECT version, fields::text AS fields, updated FROM gateway.client_personal WHERE client_id = $1 FOR UPDATE
"""

PERSONAL: Final = """
SELECT version, fields::text AS fields, updated FROM gateway.client_personal WHERE client_id = $1
"""
