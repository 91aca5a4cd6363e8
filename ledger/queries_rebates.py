"""The SQL that writes rebates: the head of a book's accrual and its batches.

Knows the tables of rebates that accrual writes. Refuses to know how lines come about; what reads
them has its own statements.
"""

from __future__ import annotations

from typing import Final

# An owner's epoch is taken once and for all older ones; an owner may take its own again. It waits
# for a transaction of ours that the server is still ending.
TAKE_HEAD: Final = """
INSERT INTO ledger.accrual_head AS h (book_id, epoch) VALUES ($1, $2)
ON CONFLICT (book_id) DO UPDATE SET epoch = excluded.epoch WHERE h.epoch <= excluded.epoch
RETURNING batch, line
"""
LAST_BATCH: Final = "SELECT at FROM ledger.accrual_batch WHERE book_id = $1 AND batch = $2"
POSITIONS: Final = "SELECT feed, reached FROM ledger.accrual_position WHERE book_id = $1"

REMAINDERS: Final = """
SELECT account_id, component, exact, paid FROM ledger.remainder WHERE book_id = $1 AND period = $2
"""

# Inputs held in share, and the head moved from where this owner left it; with what the batch before it
# left to be linked to.
BEGIN_BATCH: Final = """
WITH inputs AS MATERIALIZED (
    SELECT version FROM ledger.inputs WHERE book_id = $1 FOR SHARE
), head AS (
    UPDATE ledger.accrual_head h SET batch = $3::bigint, line = $5::bigint
      FROM inputs
     WHERE h.book_id = $1 AND h.epoch = $2 AND h.batch = $3::bigint - 1 AND h.line = $4::bigint - 1
    RETURNING 1
)
SELECT (SELECT version FROM inputs) AS inputs, EXISTS (SELECT FROM head) AS ours,
       b.at, b.content
  FROM (SELECT) one
  LEFT JOIN ledger.accrual_batch b ON b.book_id = $1 AND b.batch = $3::bigint - 1
"""

# Whether somebody else has written what we were about to.
OVERTAKEN: Final = """
SELECT epoch <> $2 OR batch >= $3::bigint FROM ledger.accrual_head WHERE book_id = $1
"""

# All that goes with a batch's lines and entry, in one round trip. `reached` is empty when the
# position is not where the batch begins. A batch's time is its entry's and never before the last one's.
END_BATCH: Final = """
WITH batch AS (
    INSERT INTO ledger.accrual_batch (book_id, batch, feed, first_deal, last_deal, first_line,
                                      last_line, day, inputs, epoch, entry_id, content, at, deals, lines,
                                      settles, cut_off)
    VALUES ($1, $2, $3, $4::bigint, $5::bigint, $6, $7, $8, $9, $10, $11, $12,
            greatest(coalesce($13::timestamptz, clock_timestamp()), $22::timestamptz), $24, $25, $26, $27)
    RETURNING at
), contracts AS (
    INSERT INTO ledger.contract_batch (book_id, account_id, batch, day, net, lines, last_line, earned,
                                       lines_ever)
    SELECT $1, u.account_id, $2, $8, u.net, u.lines, u.last_line, coalesce(before.earned, 0) + u.net,
           coalesce(before.lines_ever, 0) + u.lines
      FROM unnest($14::bigint[], $15::bigint[], $16::integer[], $23::bigint[])
           AS u (account_id, net, lines, last_line)
      LEFT JOIN LATERAL (
           SELECT c.earned, c.lines_ever FROM ledger.contract_batch c
            WHERE c.book_id = $1 AND c.account_id = u.account_id
            ORDER BY c.batch DESC LIMIT 1) before ON true
), days AS (
    INSERT INTO ledger.contract_day AS d (book_id, account_id, day, net)
    SELECT $1, u.account_id, $8, u.net
      FROM unnest($14::bigint[], $15::bigint[]) AS u (account_id, net)
    ON CONFLICT (book_id, account_id, day) DO UPDATE SET net = d.net + excluded.net
), remainders AS (
    INSERT INTO ledger.remainder AS r (book_id, account_id, component, period, exact, paid)
    SELECT $1, u.account_id, u.component, $17::date, u.exact, u.paid
      FROM unnest($18::bigint[], $19::smallint[], $20::numeric[], $21::bigint[])
           AS u (account_id, component, exact, paid)
    ON CONFLICT (book_id, account_id, component, period) DO UPDATE
       SET exact = excluded.exact, paid = excluded.paid
), steps AS (
    INSERT INTO ledger.remainder_step (book_id, account_id, component, period, batch, exact)
    SELECT $1, u.account_id, u.component, $17::date, $2, u.exact
      FROM unnest($18::bigint[], $19::smallint[], $20::numeric[]) AS u (account_id, component, exact)
), position AS (
    INSERT INTO ledger.accrual_position AS p (book_id, feed, reached) VALUES ($1, $3, $5::bigint)
    ON CONFLICT (book_id, feed) DO UPDATE
       SET reached = excluded.reached WHERE p.reached = $4::bigint - 1
    RETURNING 1
)
SELECT batch.at, EXISTS (SELECT FROM position) AS reached FROM batch
"""
