"""The statements that read what partners earned; nothing here writes.

Knows lines, batches and balances of contracts. Refuses to know who may read them.
"""

from __future__ import annotations

from typing import Final

# $1, $2: books and contracts; $3: the day that is today; $4..$6: numbers of the three kinds of
# account. A contract that has no account yet is a row of zeros. The days are few (one row a day),
# batches are many: the newest is found from its end.
CONTRACT_BALANCES: Final = """
SELECT u.owner, u.book_id, held.currency, held.accrued, held.held, held.payable, held.version,
       coalesce(days.today, 0) AS today, coalesce(days.lines, 0) AS lines,
       coalesce(days.last_line, 0) AS last_line, newest.at
  FROM unnest($1::smallint[], $2::text[]) WITH ORDINALITY AS u (book_id, owner, place)
 CROSS JOIN LATERAL (
       SELECT coalesce(max(a.currency), '') AS currency,
              coalesce(sum(b.sign * b.posted) FILTER (WHERE a.kind = $4), 0)::bigint AS accrued,
              coalesce(sum(b.sign * b.posted) FILTER (WHERE a.kind = $5), 0)::bigint AS held,
              coalesce(sum(b.sign * b.posted) FILTER (WHERE a.kind = $6), 0)::bigint AS payable,
              coalesce(sum(b.version), 0)::bigint AS version,
              max(a.id) FILTER (WHERE a.kind = $4) AS account_id
         FROM ledger.account a
         JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
        WHERE a.book_id = u.book_id AND a.owner = u.owner AND a.kind IN ($4, $5, $6)) held
 CROSS JOIN LATERAL (
       SELECT sum(d.net) FILTER (WHERE d.day = $3)::bigint AS today,
              sum(d.lines)::bigint AS lines, max(d.last_line) AS last_line
         FROM ledger.contract_day d
        WHERE d.book_id = u.book_id AND d.account_id = held.account_id) days
  LEFT JOIN LATERAL (
       SELECT b.at
         FROM ledger.contract_batch c
         JOIN ledger.accrual_batch b ON b.book_id = c.book_id AND b.batch = c.batch
        WHERE c.book_id = u.book_id AND c.account_id = held.account_id
        ORDER BY c.batch DESC LIMIT 1) newest ON true
 ORDER BY u.place
"""
