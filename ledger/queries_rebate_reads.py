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

# $1, $2: books and contracts; $3: the number of the kind of accrued accounts.
MOVED_SILENTLY: Final = """
SELECT u.book_id, u.owner
  FROM unnest($1::smallint[], $2::text[]) AS u (book_id, owner)
  JOIN ledger.account a ON a.book_id = u.book_id AND a.owner = u.owner AND a.kind = $3
 CROSS JOIN LATERAL (
       SELECT c.net FROM ledger.contract_batch c
        WHERE c.book_id = a.book_id AND c.account_id = a.id
        ORDER BY c.batch DESC LIMIT 1) newest
 WHERE newest.net = 0
"""

# As of a closed moment: $3 the moment, $7 its UTC day. A batch belongs to the moment by its time,
# which never falls from one batch of a book to the next; the balances are those of the books.
CONTRACT_BALANCES_AS_OF: Final = """
SELECT u.owner, u.book_id, held.currency, held.accrued, held.held, held.payable, held.version,
       coalesce(sums.today, 0) AS today, coalesce(sums.lines, 0) AS lines,
       coalesce(newest.last_line, 0) AS last_line, newest.at
  FROM unnest($1::smallint[], $2::text[]) WITH ORDINALITY AS u (book_id, owner, place)
 CROSS JOIN LATERAL (
       SELECT coalesce(max(a.currency), '') AS currency,
              coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $4), 0)::bigint AS accrued,
              coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $5), 0)::bigint AS held,
              coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $6), 0)::bigint AS payable,
              coalesce(sum(p.version), 0)::bigint AS version,
              max(a.id) FILTER (WHERE a.kind = $4) AS account_id
         FROM ledger.account a
         JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
        CROSS JOIN LATERAL ledger.version_as_of(a.book_id, a.id, $3) AS v (version)
         LEFT JOIN ledger.posting p
           ON p.book_id = a.book_id AND p.account_id = a.id AND p.version = v.version
        WHERE a.book_id = u.book_id AND a.owner = u.owner AND a.kind IN ($4, $5, $6)) held
  LEFT JOIN LATERAL (
       SELECT b.batch, b.at, l.last_line
         FROM ledger.contract_batch c
         JOIN ledger.accrual_batch b ON b.book_id = c.book_id AND b.batch = c.batch
        CROSS JOIN LATERAL (
              SELECT max(r.no) AS last_line
                FROM ledger.rebate_line r
               WHERE r.book_id = b.book_id AND r.feed = b.feed AND r.account_id = c.account_id
                 AND r.deal_no BETWEEN b.first_deal AND b.last_deal) l
        WHERE c.book_id = u.book_id AND c.account_id = held.account_id AND b.at <= $3
        ORDER BY c.batch DESC LIMIT 1) newest ON true
 CROSS JOIN LATERAL (
       SELECT sum(c.net) FILTER (WHERE c.day = $7)::bigint AS today, sum(c.lines)::bigint AS lines
         FROM ledger.contract_batch c
        WHERE c.book_id = u.book_id AND c.account_id = held.account_id
          AND c.batch <= newest.batch) sums
 ORDER BY u.place
"""

_LINE: Final = """
r.book_id, r.no, r.batch, r.feed, r.deal_no, r.concerned_no, r.account_id, a.owner, a.currency,
r.component, r.kind, r.level, r.reason, r.plan, r.amount, c.at, d.ticket, d.version, d.symbol,
d.closed, d.at AS dealt
"""
_LINES_OF_BATCH: Final = """
  JOIN ledger.accrual_batch c ON c.book_id = s.book_id AND c.batch = s.batch
  JOIN ledger.rebate_line r
    ON r.book_id = c.book_id AND r.feed = c.feed AND r.account_id = s.account_id
   AND r.deal_no BETWEEN c.first_deal AND c.last_deal
  JOIN ledger.account a ON a.book_id = r.book_id AND a.id = r.account_id
  LEFT JOIN ledger.deal d
    ON d.book_id = r.book_id AND d.feed = r.feed AND d.no = r.deal_no AND r.concerned_no > 0
"""

# The batches that hold the next lines of a contract, from one of them on: those behind which as many
# lines as asked are found already are left out. The first may be read in part, so it does not count.
_ENOUGH: Final = """
), s AS MATERIALIZED (
   SELECT book_id, account_id, batch
     FROM (SELECT n.*, sum(n.lines) OVER (ORDER BY n.place) - n.lines
                       - first_value(n.lines) OVER (ORDER BY n.place) AS before
             FROM nearest n) counted
    WHERE before < $5
)
"""
# $1 book, $2 contract, $3 the kind of its accrued account, $4 after this line, $5 how many. A batch
# of a contract has a line at least, so one batch more than lines is enough.
LINES_AFTER: Final = f"""
WITH nearest AS (
    SELECT b.book_id, b.account_id, b.batch, b.lines, b.batch AS place
      FROM ledger.account a
      JOIN ledger.contract_batch b ON b.book_id = a.book_id AND b.account_id = a.id
     WHERE a.book_id = $1 AND a.owner = $2 AND a.kind = $3
       AND b.batch >= coalesce((SELECT batch FROM ledger.accrual_batch
                                 WHERE book_id = $1 AND first_line <= $4
                                 ORDER BY first_line DESC, batch DESC LIMIT 1), 0)
     ORDER BY b.batch LIMIT $5 + 1
{_ENOUGH}
SELECT {_LINE} FROM s {_LINES_OF_BATCH} WHERE r.no > $4 ORDER BY r.no LIMIT $5
"""  # noqa: S608 - made of constants
# $4 before this line; the newest first.
LINES_BEFORE: Final = f"""
WITH nearest AS (
    SELECT b.book_id, b.account_id, b.batch, b.lines, -b.batch AS place
      FROM ledger.account a
      JOIN ledger.contract_batch b ON b.book_id = a.book_id AND b.account_id = a.id
     WHERE a.book_id = $1 AND a.owner = $2 AND a.kind = $3
       AND b.batch <= (SELECT batch FROM ledger.accrual_batch
                        WHERE book_id = $1 AND first_line < $4
                        ORDER BY first_line DESC, batch DESC LIMIT 1)
     ORDER BY b.batch DESC LIMIT $5 + 1
{_ENOUGH}
SELECT {_LINE} FROM s {_LINES_OF_BATCH} WHERE r.no < $4 ORDER BY r.no DESC LIMIT $5
"""  # noqa: S608 - made of constants
# $1 book, $2 line. The batch of a line is found by its first line, then its deals' range is looked
# through: lines have no index by their number.
LINE: Final = f"""
WITH s AS MATERIALIZED (
    SELECT b.book_id, b.batch
      FROM ledger.accrual_batch b
     WHERE b.book_id = $1 AND b.first_line <= $2
     ORDER BY b.first_line DESC, b.batch DESC LIMIT 1
)
SELECT {_LINE}
  FROM s
  JOIN ledger.accrual_batch c ON c.book_id = s.book_id AND c.batch = s.batch
  JOIN ledger.rebate_line r
    ON r.book_id = c.book_id AND r.feed = c.feed
   AND r.deal_no BETWEEN c.first_deal AND c.last_deal AND r.no = $2
  JOIN ledger.account a ON a.book_id = r.book_id AND a.id = r.account_id
  LEFT JOIN ledger.deal d
    ON d.book_id = r.book_id AND d.feed = r.feed AND d.no = r.deal_no AND r.concerned_no > 0
"""  # noqa: S608 - made of constants

# $1 books, $2 the moment or null, $3..$5 the three kinds of account. What was earned is summed from
# what batches did to contracts, apart from the accounts.
LIABILITY: Final = """
SELECT a.book_id, a.currency,
       coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $3), 0)::bigint AS accrued,
       coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $4), 0)::bigint AS held,
       coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $5), 0)::bigint AS payable,
       coalesce(sum(c.net), 0)::bigint AS earned, count(DISTINCT a.owner) AS contracts
  FROM ledger.account a
  JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
 CROSS JOIN LATERAL (
       SELECT CASE WHEN $2::timestamptz IS NULL THEN b.version
                   ELSE ledger.version_as_of(a.book_id, a.id, $2) END AS version) v
  LEFT JOIN ledger.posting p
    ON p.book_id = a.book_id AND p.account_id = a.id AND p.version = v.version
 CROSS JOIN LATERAL (
       SELECT CASE WHEN $2::timestamptz IS NULL
              THEN (SELECT sum(d.net) FROM ledger.contract_day d
                     WHERE d.book_id = a.book_id AND d.account_id = a.id)
              ELSE (SELECT sum(k.net)
                      FROM ledger.contract_batch k
                      JOIN ledger.accrual_batch n ON n.book_id = k.book_id AND n.batch = k.batch
                     WHERE k.book_id = a.book_id AND k.account_id = a.id AND n.at <= $2)
              END AS net) c
 WHERE a.book_id = ANY($1::smallint[]) AND a.kind IN ($3, $4, $5)
 GROUP BY a.book_id, a.currency
 ORDER BY a.book_id, a.currency
"""

BEHIND: Final = """
SELECT f.book_id, sum(f.landed - coalesce(p.reached, 0))::bigint AS deals,
       coalesce(max(extract(epoch FROM clock_timestamp() - d.landed)), 0)::float8 AS seconds
  FROM ledger.feed_book f
  LEFT JOIN ledger.accrual_position p ON p.book_id = f.book_id AND p.feed = f.feed
  LEFT JOIN ledger.deal d
    ON d.book_id = f.book_id AND d.feed = f.feed AND d.no = coalesce(p.reached, 0) + 1
 GROUP BY f.book_id ORDER BY f.book_id
"""

# -- evidence: what a batch's lines follow from --------------------------------------------------

BATCH: Final = """
SELECT b.book_id, b.batch, b.feed, f.server, b.first_deal, b.last_deal, b.day, b.inputs, b.at
  FROM ledger.accrual_batch b JOIN ledger.feed_cursor f ON f.feed = b.feed
 WHERE b.book_id = $1 AND b.batch = $2
"""
