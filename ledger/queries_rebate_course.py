"""The SQL of a day's course. Knows batches by the minute they were booked in; reads, never writes."""

from __future__ import annotations

from typing import Final

# $1, $2 books and contracts; $3 the kind of their accrued account; $4 a UTC day; $5 the last batch of
# each book that is known. Only the day's batches behind it are looked at, each by its key. What was
# booked after the day's end belongs to its last minute.
COURSE: Final = """
SELECT a.book_id, a.currency, floor(least(greatest(extract(epoch FROM b.at - $4::date::timestamp AT TIME ZONE 'UTC') / 60, 0), 1439))::int AS minute,
       sum(c.net)::bigint AS net, max(c.batch) AS batch
  FROM unnest($1::smallint[], $2::text[], $5::bigint[]) AS u (book_id, owner, known)
  JOIN ledger.account a ON a.book_id = u.book_id AND a.owner = u.owner AND a.kind = $3
 CROSS JOIN LATERAL (
       SELECT f.batch FROM ledger.accrual_batch f
        WHERE f.book_id = u.book_id AND f.day = $4 ORDER BY f.batch LIMIT 1) first
 CROSS JOIN LATERAL (
       SELECT s.batch, s.net FROM ledger.contract_batch s
        WHERE s.book_id = a.book_id AND s.account_id = a.id AND s.day = $4
          AND s.batch >= greatest(first.batch, u.known + 1)
       OFFSET 0) c
 CROSS JOIN LATERAL (
       SELECT n.at FROM ledger.accrual_batch n
        WHERE n.book_id = a.book_id AND n.batch = c.batch
       OFFSET 0) b
 GROUP BY 1, 2, 3
"""
