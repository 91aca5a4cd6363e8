"""The SQL that prepares a fresh embedded PostgreSQL: roles, database, readiness.

It knows two roles and one database. It refuses to know any table.
"""

from __future__ import annotations

from typing import Final

READY: Final = """
SELECT 1
"""

DAEMON_ROLE_EXISTS: Final = """
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'brokerd_daemon')
"""

# DDL takes no parameters: the server itself quotes the password into the statement to run.
WRITE_CREATE_DAEMON_ROLE: Final = """
SELECT format('CREATE ROLE brokerd_daemon LOGIN PASSWORD %L', $1::text)
"""

WRITE_ALTER_DAEMON_ROLE: Final = """
SELECT format('ALTER ROLE brokerd_daemon LOGIN PASSWORD %L', $1::text)
"""

DATABASE_EXISTS: Final = """
SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'brokerd')
"""

CREATE_DATABASE: Final = """
CREATE DATABASE brokerd
"""
