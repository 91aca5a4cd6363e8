"""What a version of the rulebook would change for whom: questions about what is there.

Knows contracts with their terms, and grants. Refuses to write.
"""

from __future__ import annotations

from typing import Final

# The newest terms of each contract say which plan it is on.
CONTRACTS_ON: Final = """
SELECT plan, count(*) AS contracts
FROM (SELECT DISTINCT ON (contract_id) contract_id, plan FROM gateway.contract_terms ORDER BY contract_id, since DESC) t
WHERE plan = ANY($1::text[]) GROUP BY plan
"""

HOLDERS: Final = """
SELECT role, array_agg(DISTINCT person ORDER BY person) AS people FROM gateway.access_grant
WHERE role = ANY($1::text[]) AND revoked IS NULL AND valid_from <= clock_timestamp()
  AND (valid_until IS NULL OR valid_until > clock_timestamp())
GROUP BY role
"""
