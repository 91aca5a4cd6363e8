"""The router against real sockets and a real database."""
