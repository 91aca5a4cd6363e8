"""The statements that read what partners earned; nothing here writes.

Knows lines, batches and balances of contracts. Refuses to know who may read them.
"""

from __future__ import annotations

from typing import Final

# Until the transaction ends, rows are looked up by key, always. How many lines lie between two deals
# cannot be estimated, so the planner would rather read all lines of a book once; a contract that has
# nearly none of them would wait for it. The same plan serves every contract.
BY_KEY: Final = """
SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
SET LOCAL plan_cache_mode = force_generic_plan
"""

# $1, $2: books and contracts; $3: the day that is today; $4..$6: numbers of the three kinds of
# account. A contract that has no account yet is a row of zeros. Its newest batch tells what it ever
# came to, however long its history is.
CONTRACT_BALANCES: Final = """
SELECT u.owner, u.book_id, held.currency, held.accrued, held.held, held.payable, held.version,
       coalesce(days.net, 0) AS today, coalesce(newest.lines_ever, 0) AS lines,
       coalesce(newest.last_line, 0) AS last_line, newest.at
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
  LEFT JOIN LATERAL (
       SELECT d.net FROM ledger.contract_day d
        WHERE d.book_id = u.book_id AND d.account_id = held.account_id AND d.day = $3
       OFFSET 0) days ON true
  LEFT JOIN LATERAL (
       SELECT c.lines_ever, c.last_line, b.at
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
# which never falls from one batch of a book to the next, so the book's last one at the moment is
# found first; the balances are those of the books. `today` is added up from the day's batches only.
CONTRACT_BALANCES_AS_OF: Final = """
WITH reached AS MATERIALIZED (
    SELECT k.book_id,
           (SELECT b.batch FROM ledger.accrual_batch b
             WHERE b.book_id = k.book_id AND b.at <= $3 ORDER BY b.at DESC, b.batch DESC LIMIT 1) AS batch,
           (SELECT b.batch FROM ledger.accrual_batch b
             WHERE b.book_id = k.book_id AND b.day = $7 ORDER BY b.batch LIMIT 1) AS first_of_day
      FROM (SELECT DISTINCT unnest($1::smallint[]) AS book_id) k
)
SELECT u.owner, u.book_id, held.currency, held.accrued, held.held, held.payable, held.version,
       coalesce(day.net, 0) AS today, coalesce(newest.lines_ever, 0) AS lines,
       coalesce(newest.last_line, 0) AS last_line, newest.at
  FROM unnest($1::smallint[], $2::text[]) WITH ORDINALITY AS u (book_id, owner, place)
  JOIN reached ON reached.book_id = u.book_id
 CROSS JOIN LATERAL (
       SELECT coalesce(max(a.currency), '') AS currency,
              coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $4), 0)::bigint AS accrued,
              coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $5), 0)::bigint AS held,
              coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $6), 0)::bigint AS payable,
              coalesce(sum(p.version), 0)::bigint AS version,
              max(a.id) FILTER (WHERE a.kind = $4) AS account_id
         FROM ledger.account a
         JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
         LEFT JOIN LATERAL (
              SELECT x.balance, x.version FROM ledger.posting x
               WHERE x.book_id = a.book_id AND x.account_id = a.id
                 AND x.version = ledger.version_as_of(a.book_id, a.id, $3)
              OFFSET 0) p ON true
        WHERE a.book_id = u.book_id AND a.owner = u.owner AND a.kind IN ($4, $5, $6)) held
  LEFT JOIN LATERAL (
       SELECT c.lines_ever, c.last_line, b.at
         FROM ledger.contract_batch c
         JOIN ledger.accrual_batch b ON b.book_id = c.book_id AND b.batch = c.batch
        WHERE c.book_id = u.book_id AND c.account_id = held.account_id AND c.batch <= reached.batch
        ORDER BY c.batch DESC LIMIT 1) newest ON true
 CROSS JOIN LATERAL (
       SELECT sum(c.net)::bigint AS net
         FROM ledger.contract_batch c
        WHERE c.book_id = u.book_id AND c.account_id = held.account_id AND c.day = $7
          AND c.batch BETWEEN reached.first_of_day AND reached.batch) day
 ORDER BY u.place
"""

_LINE: Final = """
r.book_id, r.no, r.batch, r.feed, r.deal_no, r.concerned_no, r.account_id, a.owner, a.currency,
r.component, r.kind, r.level, r.reason, r.plan, r.amount, r.at, d.ticket, d.version, d.symbol,
d.closed, d.at AS dealt
"""
# Of chosen lines: whose they are and which deals they pay for. OFFSET 0 keeps each a look-up.
_OF_LINES: Final = """
  JOIN ledger.account a ON a.book_id = r.book_id AND a.id = r.account_id
  LEFT JOIN LATERAL (
       SELECT x.ticket, x.version, x.symbol, x.closed, x.at FROM ledger.deal x
        WHERE x.book_id = r.book_id AND x.feed = r.feed AND x.no = r.deal_no AND r.concerned_no > 0
       OFFSET 0) d ON true
"""
# All lines of one contract in the batches of `s`.
_LINES_OF_BATCHES: Final = """
SELECT x.*, c.at
  FROM s
  JOIN ledger.accrual_batch c ON c.book_id = s.book_id AND c.batch = s.batch
 CROSS JOIN LATERAL (
       SELECT * FROM ledger.rebate_line l
        WHERE l.book_id = c.book_id AND l.feed = c.feed AND l.account_id = s.account_id
          AND l.deal_no BETWEEN c.first_deal AND c.last_deal
       OFFSET 0) x
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
# $1 book, $2 contract, $3 the kind of its accrued account, $4 after this line, $5 how many, $6 up to
# this line. A batch of a contract has a line at least, so one batch more than lines is enough.
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
{_ENOUGH}, r AS MATERIALIZED (
{_LINES_OF_BATCHES} WHERE x.no > $4 AND x.no <= $6 ORDER BY x.no LIMIT $5
)
SELECT {_LINE} FROM r {_OF_LINES} ORDER BY r.no
"""
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
{_ENOUGH}, r AS MATERIALIZED (
{_LINES_OF_BATCHES} WHERE x.no < $4 ORDER BY x.no DESC LIMIT $5
)
SELECT {_LINE} FROM r {_OF_LINES} ORDER BY r.no DESC
"""
# $1 book, $2 a closed moment. A batch's time never falls and its lines follow on those before it: the
# last batch of the moment has the last line of it. One without lines says the line before it.
LAST_LINE_AS_OF: Final = """
SELECT last_line FROM ledger.accrual_batch
 WHERE book_id = $1 AND at <= $2 ORDER BY at DESC, batch DESC LIMIT 1
"""
# $1 book, $2 line. The batch of a line is found by its first line, then its deals' range is looked
# through: lines have no index by their number.
LINE: Final = f"""
WITH s AS MATERIALIZED (
    SELECT b.book_id, b.feed, b.first_deal, b.last_deal, b.at
      FROM ledger.accrual_batch b
     WHERE b.book_id = $1 AND b.first_line <= $2
     ORDER BY b.first_line DESC, b.batch DESC LIMIT 1
), r AS MATERIALIZED (
    SELECT x.*, s.at
      FROM s
     CROSS JOIN LATERAL (
           SELECT * FROM ledger.rebate_line l
            WHERE l.book_id = s.book_id AND l.feed = s.feed
              AND l.deal_no BETWEEN s.first_deal AND s.last_deal AND l.no = $2
           OFFSET 0) x
)
SELECT {_LINE} FROM r {_OF_LINES}
"""

# $1 books, $2..$4 the three kinds of account. What was earned is what the newest batch of each
# contract says it ever came to, apart from the accounts.
LIABILITY: Final = """
SELECT a.book_id, a.currency,
       coalesce(sum(b.sign * b.posted) FILTER (WHERE a.kind = $2), 0)::bigint AS accrued,
       coalesce(sum(b.sign * b.posted) FILTER (WHERE a.kind = $3), 0)::bigint AS held,
       coalesce(sum(b.sign * b.posted) FILTER (WHERE a.kind = $4), 0)::bigint AS payable,
       coalesce(sum(c.earned), 0)::bigint AS earned, count(DISTINCT a.owner) AS contracts
  FROM ledger.account a
  JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
  LEFT JOIN LATERAL (
       SELECT k.earned FROM ledger.contract_batch k
        WHERE k.book_id = a.book_id AND k.account_id = a.id ORDER BY k.batch DESC LIMIT 1) c ON true
 WHERE a.book_id = ANY($1::smallint[]) AND a.kind IN ($2, $3, $4)
 GROUP BY a.book_id, a.currency
 ORDER BY a.book_id, a.currency
"""
# The same as of a closed moment: $5.
LIABILITY_AS_OF: Final = """
WITH reached AS MATERIALIZED (
    SELECT k.book_id,
           (SELECT b.batch FROM ledger.accrual_batch b
             WHERE b.book_id = k.book_id AND b.at <= $5 ORDER BY b.at DESC, b.batch DESC LIMIT 1) AS batch
      FROM (SELECT DISTINCT unnest($1::smallint[]) AS book_id) k
)
SELECT a.book_id, a.currency,
       coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $2), 0)::bigint AS accrued,
       coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $3), 0)::bigint AS held,
       coalesce(sum(b.sign * p.balance) FILTER (WHERE a.kind = $4), 0)::bigint AS payable,
       coalesce(sum(c.earned), 0)::bigint AS earned, count(DISTINCT a.owner) AS contracts
  FROM reached
  JOIN ledger.account a ON a.book_id = reached.book_id
  JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
  LEFT JOIN LATERAL (
       SELECT x.balance FROM ledger.posting x
        WHERE x.book_id = a.book_id AND x.account_id = a.id
          AND x.version = ledger.version_as_of(a.book_id, a.id, $5)
       OFFSET 0) p ON true
  LEFT JOIN LATERAL (
       SELECT k.earned FROM ledger.contract_batch k
        WHERE k.book_id = a.book_id AND k.account_id = a.id AND k.batch <= reached.batch
        ORDER BY k.batch DESC LIMIT 1) c ON true
 WHERE a.kind IN ($2, $3, $4)
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
SELECT b.book_id, b.batch, b.feed, f.server, b.first_deal, b.last_deal, b.day, b.settles, b.inputs, b.at
  FROM ledger.accrual_batch b JOIN ledger.feed_cursor f ON f.feed = b.feed
 WHERE b.book_id = $1 AND b.batch = $2
"""
