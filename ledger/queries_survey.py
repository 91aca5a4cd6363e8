"""The statements that count what became of deals. Knows schema `ledger` only."""

from __future__ import annotations

from typing import Final

# Tickets, not versions: an edit is the same deal. Booked is landed and at or below the position.
COUNT_DEALS: Final = """
SELECT (SELECT count(DISTINCT (d.feed, d.ticket, d.phase)) FROM ledger.deal d
          JOIN ledger.accrual_position p USING (book_id, feed) WHERE d.no <= p.reached) AS booked,
       (SELECT count(DISTINCT (d.feed, d.ticket, d.phase)) FROM ledger.deal d) AS landed,
       (SELECT count(DISTINCT (k.feed, k.ticket, k.phase)) FROM ledger.deal_parked k
         WHERE k.landed IS NULL AND NOT EXISTS (
               SELECT FROM ledger.deal d WHERE d.feed = k.feed AND d.ticket = k.ticket AND d.phase = k.phase
           )) AS parked,
       (SELECT coalesce(sum(h.line), 0) FROM ledger.accrual_head h)::bigint AS lines
"""

# What each contract has earned in all, credit positive, and its currency; by the lines themselves.
EARNED: Final = """
SELECT a.owner AS contract, a.currency, sum(l.amount)::bigint AS minor
  FROM ledger.rebate_line l JOIN ledger.account a ON a.book_id = l.book_id AND a.id = l.account_id
 GROUP BY a.owner, a.currency
"""

# The newest version of each of these tickets, and what an edit may have changed of it.
NEWEST_VERSIONS: Final = """
SELECT DISTINCT ON (d.book_id, d.feed, d.ticket, d.phase)
       d.ticket, d.profit, d.commission, d.swap, d.fee, d.flags, d.comment
  FROM ledger.deal d WHERE d.ticket = ANY($1::bigint[])
 ORDER BY d.book_id, d.feed, d.ticket, d.phase, d.version DESC
"""

# The lines that a deal brought these contracts when it was booked first, and its ticket.
FIRST_LINES: Final = """
SELECT a.owner AS contract, l.no, d.ticket
  FROM ledger.rebate_line l
  JOIN ledger.account a ON a.book_id = l.book_id AND a.id = l.account_id
  JOIN ledger.deal d ON d.book_id = l.book_id AND d.feed = l.feed AND d.no = l.deal_no
 WHERE a.owner = ANY($1::text[]) AND l.concerned_no = l.deal_no AND d.version = 1
"""
