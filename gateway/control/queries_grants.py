"""The SQL of people and of the grants they hold. Knows the tables of `migrations/0012_access.sql` only."""

from __future__ import annotations

from typing import Final

KNOW_PERSON: Final = """
INSERT INTO gateway.person (id, kind, created, created_by)
SELECT DISTINCT ON (u.id) u.id, u.kind, u.created, u.created_by
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) AS u(id, kind, created, created_by)
ORDER BY u.id
ON CONFLICT (id) DO NOTHING
"""

SELECT_PERSON_KIND: Final = """
SELECT kind FROM gateway.person WHERE id = $1
"""

# Each set is one text with commas: names of entities, brands, countries, desks and contracts have none.
INSERT_GRANT: Final = """
INSERT INTO gateway.access_grant (id, person, role, entities, brands, jurisdictions, desks, partners, valid_from,
                                  valid_until, approval, created, created_by)
SELECT u.id, u.person, u.role, string_to_array(u.entities, ','), string_to_array(u.brands, ','),
       string_to_array(u.jurisdictions, ','), string_to_array(u.desks, ','), string_to_array(u.partners, ','),
       u.valid_from, u.valid_until, u.approval, u.created, u.created_by
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::timestamptz[], $10::timestamptz[], $11::text[], $12::timestamptz[], $13::text[])
     AS u(id, person, role, entities, brands, jurisdictions, desks, partners, valid_from, valid_until, approval,
          created, created_by)
"""

LOCK_GRANT: Final = """
SELECT id, version FROM gateway.access_grant WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""

REVOKE_GRANT: Final = """
UPDATE gateway.access_grant t SET version = t.version + 1, revoked = u.revoked, revoked_by = u.revoked_by
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[]) AS u(id, expected, revoked, revoked_by)
WHERE t.id = u.id
"""

_GRANTS: Final = """
SELECT id, version, person, role, entities, brands, jurisdictions, desks, partners, valid_from, valid_until, approval,
       revoked, revoked_by, created, created_by
FROM gateway.access_grant
"""

SELECT_GRANT: Final = f"{_GRANTS} WHERE id = $1"

SELECT_GRANTS_OF: Final = f"{_GRANTS} WHERE person = $1 ORDER BY id"

SELECT_GRANTS_IN_FORCE: Final = f"""{_GRANTS}
WHERE person = $1 AND revoked IS NULL AND valid_from <= statement_timestamp()
  AND (valid_until IS NULL OR valid_until > statement_timestamp())
ORDER BY id
"""

# Newest first: $1 the cursor, $2 entities or null for all, $3 person or '', $4 role or ''. Of some entities are those
# that are limited to them.
SELECT_GRANTS: Final = f"""{_GRANTS}
WHERE ($1 = '' OR id < $1) AND ($2::text[] IS NULL OR entities <@ $2) AND ($3 = '' OR person = $3) AND ($4 = '' OR role = $4)
ORDER BY id DESC LIMIT $5
"""

SELECT_HOLDERS: Final = """
SELECT person, array_agg(DISTINCT role ORDER BY role) AS roles FROM gateway.access_grant
WHERE revoked IS NULL AND valid_from <= statement_timestamp()
  AND (valid_until IS NULL OR valid_until > statement_timestamp())
GROUP BY person ORDER BY person
"""
