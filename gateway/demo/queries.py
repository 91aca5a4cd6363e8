"""The SQL of scenarios: what must be impossible, tried for real. Knows the audit's table only."""

from __future__ import annotations

from typing import Final

CHANGE_A_RECORD: Final = "UPDATE gateway.audit SET reason = 'all was well' WHERE id = $1"

REMOVE_A_RECORD: Final = "DELETE FROM gateway.audit WHERE id = $1"
