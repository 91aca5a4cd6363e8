"""The SQL of reach: which rows lie within the grants of a caller, the same in lists, totals and singles.

Knows the shape of `Caller.filter` and the tree of contracts as it stands. A statement begins with
`held(n)`, where parameter n is the filter, and asks `within(...)` of each row; no filter is no limit.
"""

from __future__ import annotations


def held(parameter: int) -> str:
    """The common tables `held`, a row a grant, and `below`, the contracts of its subtrees."""
    return f"""
WITH RECURSIVE held AS (
    SELECT no, entities, brands, desks, partners
    FROM jsonb_to_recordset(coalesce(${parameter}::jsonb, '[{{}}]'))
         AS h(no int, entities text[], brands text[], desks text[], partners text[])
), below(no, id) AS (
    SELECT held.no, root COLLATE "C" FROM held CROSS JOIN LATERAL unnest(held.partners) AS root
    UNION
    SELECT b.no, e.contract_id FROM below b JOIN gateway.contract_edge e ON e.parent = b.id
    WHERE NOT EXISTS (SELECT 1 FROM gateway.contract_edge l WHERE l.contract_id = e.contract_id AND l.since > e.since)
)"""


def within(entity: str, brand: str, desk: str, contract: str, line: str = "") -> str:
    """The condition that one and the same grant holds all these tags; NULL lies in no set but `*`.

    line  where the row keeps its contract with all above it, instead of the contract
    """
    below = f"(h.no, {contract}) IN (SELECT below.no, below.id FROM below)"
    partner = f"{line} && h.partners" if line else below
    return f"""EXISTS (
    SELECT 1 FROM held h
    WHERE (h.entities IS NULL OR {entity} = ANY(h.entities)) AND (h.brands IS NULL OR {brand} = ANY(h.brands))
      AND (h.desks IS NULL OR {desk} = ANY(h.desks))
      AND (h.partners IS NULL OR {partner}))"""


def contract_of(client: str) -> str:
    """The contract through which a client came last; "" for nobody's."""
    return f"""(SELECT x.contract_id FROM gateway.attribution x WHERE x.client_id = {client} ORDER BY x.since DESC LIMIT 1)"""
