"""The SQL of live balances: whose contracts moved. Reads only, never who may see them."""

from __future__ import annotations

from typing import Final

PARTNERS_OF_CONTRACTS: Final = """
SELECT id, partner_id FROM gateway.contract WHERE id = ANY($1::text[])
"""
