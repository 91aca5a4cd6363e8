"""The SQL of the gateway's own top-level modules.

It knows the migration table. It refuses to know any other room's tables: each has its own file.
"""

from __future__ import annotations

from typing import Final

# --- gateway/migrate.py -------------------------------------------------------------------------

# Two numbers that mean "brokerd migrations" in this database; advisory locks are per database.
MIGRATION_LOCK: Final = """
SELECT pg_try_advisory_lock(1651666795, 1)
"""

MIGRATION_UNLOCK: Final = """
SELECT pg_advisory_unlock(1651666795, 1)
"""

CREATE_MIGRATION_TABLE: Final = """
CREATE TABLE IF NOT EXISTS public.schema_migration (
    package    text        NOT NULL,
    version    integer     NOT NULL,
    name       text        NOT NULL,
    sha256     text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (package, version)
);
GRANT SELECT ON public.schema_migration TO brokerd_daemon
"""

MIGRATION_TABLE_EXISTS: Final = """
SELECT to_regclass('public.schema_migration') IS NOT NULL
"""

APPLIED_MIGRATIONS: Final = """
SELECT package, version, name, sha256 FROM public.schema_migration ORDER BY package, version
"""

RECORD_MIGRATION: Final = """
INSERT INTO public.schema_migration (package, version, name, sha256) VALUES ($1, $2, $3, $4)
"""

DAEMON_ROLE_EXISTS: Final = """
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'brokerd_daemon')
"""

# No LOGIN and no password: the operator, or the embedded server, decides who may log in with it.
CREATE_DAEMON_ROLE: Final = """
CREATE ROLE brokerd_daemon NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE
"""

# A migration may change session settings; the next one starts from the defaults.
RESET_SETTINGS: Final = """
RESET ALL
"""

# -- owners -------------------------------------------------------------------------------------

TRY_OWN: Final = "SELECT pg_try_advisory_lock(hashtextextended('brokerd:' || $1, 0))"
NEW_EPOCH: Final = """
INSERT INTO gateway.owner (name, epoch, holder) VALUES ($1, 1, $2)
ON CONFLICT (name) DO UPDATE SET epoch = gateway.owner.epoch + 1, holder = $2, since = now()
RETURNING epoch
"""
OWNER_PING: Final = "SELECT 1"
# Held in share until the unit commits: a new owner's epoch waits for it, and it sees the new one.
OWNER_STILL: Final = """
SELECT o.name || '@' || o.epoch FROM gateway.owner o
  JOIN unnest($1::text[]) AS u (value) ON u.value = o.name || '@' || o.epoch
   FOR SHARE OF o
"""
OWNERS: Final = "SELECT name, holder, since FROM gateway.owner WHERE name = ANY($1::text[])"
