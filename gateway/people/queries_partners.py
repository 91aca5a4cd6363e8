"""The SQL of partners, contracts and attribution. Knows the tables of `migrations/0011_partners.sql`.

Refuses to know what a partner earns: those tables are the ledger's.
"""

from __future__ import annotations

from typing import Final

from gateway.control.queries_reach import held, within

# --- commands -----------------------------------------------------------------------------------

CLAIM_PARTNER: Final = """
INSERT INTO gateway.partner (reference_key, id, version, caller, reference, kind, state, correlation, created)
SELECT u.reference_key, u.id, 1, u.caller, u.reference, u.kind, u.state, u.correlation, u.created
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
     AS u(reference_key, id, caller, reference, kind, state, correlation, created)
ORDER BY u.reference_key
ON CONFLICT (reference_key) DO NOTHING RETURNING reference_key
"""

LOOK_PARTNER: Final = """
SELECT reference_key, id FROM gateway.partner WHERE reference_key = ANY($1::text[])
"""

# A conflict on the code loses the claim as well; CODE_FREE then says which of the two it was.
CLAIM_CONTRACT: Final = """
INSERT INTO gateway.contract (key, id, partner_id, brand, entity, book, currency, code, inputs, correlation, created)
SELECT u.key, u.id, u.partner_id, u.brand, u.entity, u.book, u.currency, u.code, u.inputs, u.correlation, u.created
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[], $8::text[], $9::bigint[],
            $10::text[], $11::timestamptz[])
     AS u(key, id, partner_id, brand, entity, book, currency, code, inputs, correlation, created)
ORDER BY u.key
ON CONFLICT DO NOTHING RETURNING key
"""

LOOK_CONTRACT: Final = """
SELECT key, id FROM gateway.contract WHERE key = ANY($1::text[])
"""

CODE_FREE: Final = """
SELECT v FROM unnest($1::text[]) AS v WHERE NOT EXISTS (SELECT 1 FROM gateway.contract c WHERE c.code = v)
"""

# What is dated begins when its statement does, by the server's clock: after the lock on the book's
# inputs, so after every batch that did not know it; a client's after its contract. No replica's clock
# has a say.
INSERT_EDGE: Final = """
INSERT INTO gateway.contract_edge (contract_id, since, parent, book, inputs)
SELECT u.contract_id, statement_timestamp(), u.parent, u.book, u.inputs
FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[]) AS u(contract_id, parent, book, inputs)
"""

INSERT_TERMS: Final = """
INSERT INTO gateway.contract_terms (contract_id, since, plan, book, inputs)
SELECT u.contract_id, statement_timestamp(), u.plan, u.book, u.inputs
FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[]) AS u(contract_id, plan, book, inputs)
"""

INSERT_ATTRIBUTION: Final = """
INSERT INTO gateway.attribution (client_id, since, contract_id, book, captured, inputs, actor)
SELECT u.client_id, statement_timestamp(), u.contract_id, u.book, u.captured::jsonb, u.inputs, u.actor
FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::bigint[], $6::text[])
     AS u(client_id, contract_id, book, captured, inputs, actor)
"""

# --- partners -----------------------------------------------------------------------------------

# A contract has no desk.
_WITHIN: Final = within("c.entity", "c.brand", "NULL", "c.id")

# $1 the partner, $2 the caller's filter, $3 the caller: a partner exists for who made it known and for
# those within whose reach it has a contract.
SELECT_PARTNER: Final = f"""{held(2)}
SELECT id, version, caller, reference, kind, state, correlation, created FROM gateway.partner p
WHERE id = $1 AND ($2::jsonb IS NULL OR caller = $3
                   OR EXISTS (SELECT 1 FROM gateway.contract c WHERE c.partner_id = p.id AND {_WITHIN}))
"""

# Newest first: $1 the cursor, $2 the filter, $3 caller and $4 reference or ''.
SELECT_PARTNERS: Final = f"""{held(2)}
SELECT id, version, caller, reference, kind, state, correlation, created FROM gateway.partner p
WHERE ($1 = '' OR id < $1) AND ($4 = '' OR reference_key = $3 || ':' || $4)
  AND ($2::jsonb IS NULL OR caller = $3
       OR EXISTS (SELECT 1 FROM gateway.contract c WHERE c.partner_id = p.id AND {_WITHIN}))
ORDER BY id DESC LIMIT $5
"""

# --- contracts ----------------------------------------------------------------------------------

# As of now: the last edge and the last terms that have begun, and how many have it as their parent.
_CONTRACTS: Final = """
SELECT c.id, c.partner_id, c.brand, c.entity, c.book, c.currency, c.code, c.inputs, c.correlation, c.created,
       coalesce(e.parent, '') AS parent, coalesce(t.plan, '') AS plan,
       (SELECT count(*) FROM gateway.contract_edge b
         WHERE b.parent = c.id AND b.parent <> ''
           AND NOT EXISTS (SELECT 1 FROM gateway.contract_edge l
                            WHERE l.contract_id = b.contract_id AND l.since > b.since)) AS children
FROM gateway.contract c
LEFT JOIN LATERAL (SELECT parent FROM gateway.contract_edge x WHERE x.contract_id = c.id
                   ORDER BY since DESC LIMIT 1) e ON true
LEFT JOIN LATERAL (SELECT plan FROM gateway.contract_terms x WHERE x.contract_id = c.id
                   ORDER BY since DESC LIMIT 1) t ON true
"""

SELECT_CONTRACT: Final = f"{_CONTRACTS} WHERE c.id = $1"

# $1 the contracts, $2 the filter
CONTRACTS_WITHIN: Final = (
    f"""{held(2)} SELECT c.id FROM gateway.contract c WHERE c.id = ANY($1::text[]) AND {_WITHIN}"""
)

SELECT_CONTRACT_OF_CODE: Final = f"{_CONTRACTS} WHERE c.code = $1"

SELECT_CONTRACTS_OF: Final = f"{_CONTRACTS} WHERE c.partner_id = ANY($1::text[]) ORDER BY c.id"

# --- what accrual reads: $1 the book, $2 the last version of its inputs that counts -----------------

BOOK_CONTRACTS: Final = """
SELECT id, currency FROM gateway.contract WHERE book = $1 AND inputs <= $2 ORDER BY id
"""

# Contracts of a book of which any version of its inputs after $2 said something.
CHANGED_CONTRACTS: Final = """
SELECT id FROM gateway.contract WHERE book = $1 AND inputs > $2
UNION SELECT contract_id FROM gateway.contract_edge WHERE book = $1 AND inputs > $2
UNION SELECT contract_id FROM gateway.contract_terms WHERE book = $1 AND inputs > $2
"""

CONTRACTS: Final = """
SELECT id, currency FROM gateway.contract WHERE id = ANY($1::text[]) ORDER BY id
"""

EDGES: Final = """
SELECT contract_id, since, parent AS value FROM gateway.contract_edge
WHERE contract_id = ANY($1::text[]) ORDER BY contract_id, since
"""

TERMS: Final = """
SELECT contract_id, since, plan AS value FROM gateway.contract_terms
WHERE contract_id = ANY($1::text[]) ORDER BY contract_id, since
"""

BOOK_EDGES: Final = """
SELECT e.contract_id, e.since, e.parent AS value FROM gateway.contract_edge e
JOIN gateway.contract c ON c.id = e.contract_id
WHERE c.book = $1 AND e.inputs <= $2 ORDER BY e.contract_id, e.since
"""

BOOK_TERMS: Final = """
SELECT t.contract_id, t.since, t.plan AS value FROM gateway.contract_terms t
JOIN gateway.contract c ON c.id = t.contract_id
WHERE c.book = $1 AND t.inputs <= $2 ORDER BY t.contract_id, t.since
"""

# $1 the clients, $2 as above
ATTRIBUTIONS: Final = """
SELECT client_id, since, contract_id AS value FROM gateway.attribution
WHERE client_id = ANY($1::text[]) AND inputs <= $2 ORDER BY client_id, since
"""

# Those made with their clients (0) are no change.
ATTRIBUTIONS_CHANGED: Final = """
SELECT EXISTS (SELECT FROM gateway.attribution WHERE book = $1 AND inputs > $2 AND inputs > 0)
"""
