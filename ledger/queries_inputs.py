"""The SQL of inputs and plan versions.

Knows `ledger.inputs` and `ledger.plan_version`. Refuses to know what a plan's body says.
"""

from __future__ import annotations

from typing import Final

OPEN_INPUTS: Final = """
INSERT INTO ledger.inputs (book_id) SELECT unnest($1::smallint[]) ON CONFLICT (book_id) DO NOTHING
"""

INPUTS_VERSION: Final = """
SELECT version FROM ledger.inputs WHERE book_id = $1
"""

SHARE_INPUTS: Final = """
SELECT version FROM ledger.inputs WHERE book_id = $1 FOR SHARE
"""

# MOVE of the lane: the id is the book's number as text, as ids of all moves are.
LOCK_INPUTS: Final = """
SELECT book_id::text AS id, version FROM ledger.inputs
WHERE book_id = ANY(($1::text[])::smallint[]) ORDER BY book_id FOR UPDATE
"""

MOVE_INPUTS: Final = """
UPDATE ledger.inputs t SET version = t.version + 1
FROM unnest($1::text[], $2::bigint[]) AS u(id, expected) WHERE t.book_id = u.id::smallint
"""

ADVANCE_INPUTS: Final = """
UPDATE ledger.inputs SET version = version + 1 WHERE book_id = $1 RETURNING version
"""

# Every book's, in the one order, before a plan is published: no accrual commits from here on.
LOCK_ALL_INPUTS: Final = """
SELECT book_id FROM ledger.inputs ORDER BY book_id FOR UPDATE
"""

MOVE_ALL_INPUTS: Final = """
UPDATE ledger.inputs SET version = version + 1
"""

# `since` is taken while the locks are held: it is after every accrual that did not know the plan.
INSERT_PLANS: Final = """
INSERT INTO ledger.plan_version (plan, hash, body, since)
SELECT u.plan, u.hash, u.body::jsonb, m.since
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS u(plan, hash, body, place),
     (SELECT clock_timestamp() AS since) AS m
ORDER BY u.place
"""

LATEST_PLANS: Final = """
SELECT DISTINCT ON (plan) plan, hash FROM ledger.plan_version ORDER BY plan, since DESC, id DESC
"""

# $1 plans, $2 the currency each is to have. All their versions count: contracts stay on a plan that was
# taken out of the rulebook, and it may come back.
OTHER_CURRENCIES: Final = """
SELECT DISTINCT ON (v.plan) v.plan, v.body->>'currency' AS currency
  FROM unnest($1::text[], $2::text[]) AS u (plan, currency)
  JOIN ledger.plan_version v ON v.plan = u.plan AND v.body->>'currency' <> u.currency
 ORDER BY v.plan, v.since DESC, v.id DESC
"""

SELECT_PLANS: Final = """
SELECT id, plan, hash, body::text AS body, since FROM ledger.plan_version ORDER BY plan, since, id
"""

SELECT_PLAN: Final = """
SELECT id, plan, hash, body::text AS body, since FROM ledger.plan_version WHERE id = $1
"""
