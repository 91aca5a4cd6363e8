"""The SQL of reach: which contracts of a partner a caller may see. Knows the tree as it stands only."""

from __future__ import annotations

from typing import Final

from gateway.control.queries_reach import held, within

# $1 the partner, $2 the filter of the caller (null: all). One row a contract, and one row of nulls
# for a partner without a contract.
CONTRACTS_OF_KEY: Final = f"""{held(2)}
SELECT c.id, c.partner_id, c.book, c.brand, c.code, c.currency, c.id IS NULL AS none
  FROM gateway.partner p LEFT JOIN gateway.contract c ON c.partner_id = p.id
 WHERE p.id = $1 AND (c.id IS NULL OR {within("c.entity", "c.brand", "NULL", "c.id")})
 ORDER BY c.id
"""

# $1 the partner, $2 the partner who asks, $3 now. Upwards from each contract, along the edges in
# force: it is in reach when one of the asking partner's own contracts is above it, or is it.
CONTRACTS_OF_PARTNER: Final = """
WITH RECURSIVE above AS (
    SELECT c.id AS origin, c.id, c.partner_id FROM gateway.contract c WHERE c.partner_id = $1
    UNION
    SELECT a.origin, p.id, p.partner_id
      FROM above a
     CROSS JOIN LATERAL (
           SELECT e.parent FROM gateway.contract_edge e
            WHERE e.contract_id = a.id AND e.since <= $3 ORDER BY e.since DESC LIMIT 1) edge
      JOIN gateway.contract p ON p.id = edge.parent
)
SELECT c.id, c.partner_id, c.book, c.brand, c.code, c.currency, c.id IS NULL AS none
  FROM gateway.partner p LEFT JOIN gateway.contract c ON c.partner_id = p.id
 WHERE p.id = $1 AND ((p.id = $2 AND c.id IS NULL)
       OR EXISTS (SELECT 1 FROM above a WHERE a.origin = c.id AND a.partner_id = $2))
 ORDER BY c.id
"""

PARTNER_OF_CONTRACT: Final = """
SELECT partner_id FROM gateway.contract WHERE id = $1
"""
