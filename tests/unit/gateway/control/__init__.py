"""Control as values: access, approvals, idempotency."""
