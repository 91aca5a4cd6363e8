"""Rooms against real servers: PostgreSQL, Redis and the wire."""
