"""The SQL of changes of attribution. Knows their record and the dated rows that they add only."""

from __future__ import annotations

from typing import Final

# The last row a client has, which may begin in the future: another change is made after it or not at all.
LAST_ATTRIBUTION: Final = """
SELECT contract_id, since, since > clock_timestamp() AS ahead FROM gateway.attribution
WHERE client_id = $1 ORDER BY since DESC LIMIT 1
"""

# No wish ($2 null) is now. The lock on the book's inputs is held: what begins now begins after every accrual that did not know it.
ADD_ATTRIBUTION: Final = """
INSERT INTO gateway.attribution (client_id, since, contract_id, book, captured, inputs, actor)
VALUES ($1, greatest($2::timestamptz, statement_timestamp()), $3, $4, $5::jsonb, $6, $7) RETURNING since
"""

INSERT_CHANGE: Final = """
INSERT INTO gateway.attribution_change (id, client_id, effective, old_contract, new_contract, entity, brand, book, inputs,
                                        asked_by, asked_role, approved_by, ground, reason, evidence, approval, at)
SELECT u.id, u.client_id, u.effective, u.old_contract, u.new_contract, u.entity, u.brand, u.book, u.inputs, u.asked_by,
       u.asked_role, string_to_array(u.approved_by, ','), u.ground, u.reason, u.evidence, u.approval,
       least(u.effective, statement_timestamp())
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[], $9::bigint[],
            $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[])
     AS u(id, client_id, effective, old_contract, new_contract, entity, brand, book, inputs, asked_by, asked_role,
          approved_by, ground, reason, evidence, approval)
"""

_CHANGES: Final = """
SELECT h.id, h.client_id, h.effective, h.old_contract, h.new_contract, coalesce(o.code, '') AS old_code,
       coalesce(n.code, '') AS new_code, h.entity, h.brand, h.book, h.inputs, h.asked_by, h.asked_role, h.approved_by,
       h.ground, h.reason, h.evidence, h.approval, h.at
FROM gateway.attribution_change h
LEFT JOIN gateway.contract o ON o.id = h.old_contract
LEFT JOIN gateway.contract n ON n.id = h.new_contract
"""

SELECT_CHANGES_OF: Final = f"{_CHANGES} WHERE h.client_id = $1 ORDER BY h.id DESC LIMIT $2"

# Newest first, those that took a client from one of these contracts ($1) or to it; $2 the cursor.
SELECT_CHANGES_BY: Final = f"""{_CHANGES}
WHERE (h.old_contract = ANY($1::text[]) OR h.new_contract = ANY($1::text[])) AND ($2 = '' OR h.id < $2)
ORDER BY h.id DESC LIMIT $3
"""
