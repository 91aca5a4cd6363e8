"""The SQL of a day's course. Knows batches by the minute they were booked in; reads, never writes."""

from __future__ import annotations

from typing import Final

# $1, $2 books and contracts; $3 the kind of their accrued account; $4 a UTC day. Only batches from
# the day's first on are looked at. What was booked after the day's end belongs to its last minute.
COURSE: Final = """
SELECT a.currency, floor(least(greatest(extract(epoch FROM b.at - $4::date::timestamp AT TIME ZONE 'UTC') / 60, 0), 1439))::int AS minute,
       sum(c.net)::bigint AS net
  FROM unnest($1::smallint[], $2::text[]) AS u (book_id, owner)
  JOIN ledger.account a ON a.book_id = u.book_id AND a.owner = u.owner AND a.kind = $3
 CROSS JOIN LATERAL (
       SELECT min(f.batch) AS batch FROM ledger.accrual_batch f WHERE f.book_id = u.book_id AND f.day = $4) first
  JOIN ledger.contract_batch c
    ON c.book_id = a.book_id AND c.account_id = a.id AND c.batch >= first.batch AND c.day = $4
  JOIN ledger.accrual_batch b ON b.book_id = c.book_id AND b.batch = c.batch
 GROUP BY 1, 2 ORDER BY 1, 2
"""
