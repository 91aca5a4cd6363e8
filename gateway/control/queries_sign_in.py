"""The SQL of sign-in: passwords, devices, identities, sessions. Knows digests and no secret."""

from __future__ import annotations

from typing import Final

# --- how a person proves who they are -------------------------------------------------------------

KEEP_HASH: Final = """
INSERT INTO gateway.password (person, version, hash, changed, changed_by) VALUES ($1, 1, $2, $3, $4)
ON CONFLICT (person) DO UPDATE
   SET version = password.version + 1, hash = excluded.hash, changed = excluded.changed, changed_by = excluded.changed_by
"""

# The codes of a new device begin anew: none of its steps was used.
KEEP_DEVICE: Final = """
INSERT INTO gateway.device (person, version, secret, changed, changed_by) VALUES ($1, 1, $2, $3, $4)
ON CONFLICT (person) DO UPDATE
   SET version = device.version + 1, secret = excluded.secret, used = 0, changed = excluded.changed, changed_by = excluded.changed_by
"""

SELECT_PROOFS: Final = """
SELECT p.hash, d.secret, d.used
FROM gateway.password p LEFT JOIN gateway.device d ON d.person = p.person WHERE p.person = $1
"""

# Whoever moves the row has used the step; a second one finds it used.
USE_STEP: Final = """
UPDATE gateway.device SET used = $2 WHERE person = $1 AND secret = $3 AND used < $2 RETURNING person
"""

INSERT_IDENTITY: Final = """
INSERT INTO gateway.identity (issuer, subject, person, added, added_by) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (issuer, subject) WHERE removed IS NULL DO NOTHING RETURNING person
"""

REMOVE_IDENTITY: Final = """
UPDATE gateway.identity SET removed = $3, removed_by = $4
 WHERE issuer = $1 AND subject = $2 AND removed IS NULL RETURNING person
"""

# Held until the session stands: whoever takes a proof away meanwhile waits, and then ends the session too.
HOLD_IDENTITY: Final = """
SELECT person FROM gateway.identity WHERE issuer = $1 AND subject = $2 AND removed IS NULL FOR SHARE
"""

HOLD_HASH: Final = """
SELECT hash FROM gateway.password WHERE person = $1 FOR SHARE
"""

SELECT_PROOFS_OF_ALL: Final = """
SELECT coalesce(p.person, d.person, i.person) AS person, p.changed AS password, d.changed AS device, i.subjects
FROM gateway.password p
FULL JOIN gateway.device d ON d.person = p.person
FULL JOIN (SELECT person, array_agg(issuer || ' ' || subject ORDER BY issuer, subject) AS subjects
           FROM gateway.identity WHERE removed IS NULL GROUP BY person) i ON i.person = coalesce(p.person, d.person)
ORDER BY 1
"""

# --- sessions -------------------------------------------------------------------------------------

INSERT_SIGN_IN: Final = """
INSERT INTO gateway.sign_in (id, digest, person, method, address, opened, seen, expires)
VALUES ($1, $2, $3, $4, $5, $6, $6, $7)
"""

# The session in force now: $2 now, $3 the moment since which it must have been seen.
SELECT_SIGN_IN: Final = """
SELECT id, person, seen, expires FROM gateway.sign_in
WHERE digest = $1 AND ended IS NULL AND expires > $2 AND seen > $3
"""

# Seen again: never back in time, never a session that is over.
SEE_SIGN_IN: Final = """
UPDATE gateway.sign_in SET seen = $2 WHERE id = $1 AND seen < $2 AND ended IS NULL
"""

END_SIGN_IN: Final = """
UPDATE gateway.sign_in SET ended = $2, ended_by = $3 WHERE id = $1 AND ended IS NULL AND expires > $2 RETURNING person
"""

END_SIGN_INS: Final = """
UPDATE gateway.sign_in SET ended = $2, ended_by = $3 WHERE person = $1 AND ended IS NULL AND expires > $2 RETURNING id
"""

# Those in force, newest first: $1 the cursor, $2 a person or '', $3 now, $4 seen since.
SELECT_SIGN_INS: Final = """
SELECT id, person, method, address, opened, seen, expires FROM gateway.sign_in
WHERE ($1 = '' OR id < $1) AND ($2 = '' OR person = $2) AND ended IS NULL AND expires > $3 AND seen > $4
ORDER BY id DESC LIMIT $5
"""

# Audit keeps who signed in; the rows themselves are kept for a while after their end, with where from.
PURGE_SIGN_INS: Final = """
DELETE FROM gateway.sign_in
 WHERE id = ANY(ARRAY(SELECT id FROM gateway.sign_in WHERE expires <= $1 ORDER BY expires LIMIT $2))
"""

# --- certificates ---------------------------------------------------------------------------------

INSERT_CERTIFICATE: Final = """
INSERT INTO gateway.certificate (id, name, owner, person, grant_id, created, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (name) WHERE revoked IS NULL DO NOTHING RETURNING id
"""

REVOKE_CERTIFICATE: Final = """
UPDATE gateway.certificate SET revoked = $2, revoked_by = $3 WHERE id = $1 AND revoked IS NULL RETURNING name
"""

# Those that bear any of the names, and whether their grant allows anything now.
SELECT_CERTIFICATES: Final = """
SELECT c.id, c.owner, c.person, c.grant_id,
       g.revoked IS NULL AND g.valid_from <= statement_timestamp()
           AND (g.valid_until IS NULL OR g.valid_until > statement_timestamp()) AS in_force
FROM gateway.certificate c JOIN gateway.access_grant g ON g.id = c.grant_id
WHERE c.name = ANY($1::text[]) AND c.revoked IS NULL LIMIT 2
"""

SELECT_ALL_CERTIFICATES: Final = """
SELECT c.id, c.owner, c.person, c.name, g.role, g.entities, c.created, c.revoked
FROM gateway.certificate c JOIN gateway.access_grant g ON g.id = c.grant_id ORDER BY c.id
"""

# --- break-glass ----------------------------------------------------------------------------------

INSERT_BREAK_GLASS: Final = """
INSERT INTO gateway.break_glass (grant_id, approval, person, since, until, reason, item)
SELECT u.grant_id, u.approval, u.person, u.since, u.until, u.reason, u.item
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[])
     AS u(grant_id, approval, person, since, until, reason, item)
"""

SELECT_BREAK_GLASS: Final = """
SELECT b.grant_id, b.approval, b.person, g.role, b.since, b.until, b.reason, b.item, b.ended, b.ended_by
FROM gateway.break_glass b JOIN gateway.access_grant g ON g.id = b.grant_id
WHERE ($1 = '' OR b.grant_id < $1) AND ($2::text[] IS NULL OR g.entities <@ $2)
ORDER BY b.grant_id DESC LIMIT $3
"""

# Whoever moves the row ends it, and takes the grant back with it: one that somebody else took back earlier stays
# as it is.
END_BREAK_GLASS: Final = """
WITH due AS (
    SELECT b.grant_id FROM gateway.break_glass b JOIN gateway.access_grant g ON g.id = b.grant_id
    WHERE b.ended IS NULL AND (b.until <= $1 OR g.revoked <= $1)
    ORDER BY b.grant_id LIMIT $2 FOR UPDATE OF b SKIP LOCKED),
taken AS (
    UPDATE gateway.access_grant g SET version = g.version + 1, revoked = $1, revoked_by = 'clock'
    FROM due WHERE g.id = due.grant_id AND g.revoked IS NULL)
UPDATE gateway.break_glass b SET ended = $1, ended_by = 'clock' FROM due WHERE b.grant_id = due.grant_id
RETURNING b.grant_id, b.person, b.approval
"""

COUNT_BREAK_GLASS: Final = """
SELECT count(*) FROM gateway.break_glass WHERE ended IS NULL
"""
