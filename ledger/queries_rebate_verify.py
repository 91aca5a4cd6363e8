"""What must hold between lines, batches, postings and sums; each returns what is wrong.

Knows lines as the subsidiary ledger of the accrued accounts. Refuses to know rates and chains: that
a line pays what it should is computed again elsewhere.
"""

from __future__ import annotations

from typing import Final

# One pass over the lines serves four findings, told apart by `code`. $1 the account kind
# partner_accrued, $2 the line kind ROUNDING, $3 the entry kind accrual.
SUMS: Final = """
WITH summed AS MATERIALIZED (
    SELECT book_id, batch, account_id, component, sum(amount) AS net, count(*) AS lines,
           min(no) AS low, max(no) AS high, coalesce(sum(amount) FILTER (WHERE kind = $2), 0) AS rounding,
           min(feed) AS feed, max(feed) AS other_feed, min(deal_no) AS first_deal, max(deal_no) AS last_deal
      FROM ledger.rebate_line
     GROUP BY book_id, batch, account_id, component
), of_batch AS MATERIALIZED (
    SELECT book_id, batch, account_id, sum(net) AS net, sum(lines) AS lines, max(high) AS high,
           sum(sum(net)) OVER w AS earned, sum(sum(lines)) OVER w AS lines_ever
      FROM summed GROUP BY book_id, batch, account_id
    WINDOW w AS (PARTITION BY book_id, account_id ORDER BY batch)
), posted AS (
    SELECT e.book_id, b.batch, e.id, p.account_id, -sum(p.amount) AS net
      FROM ledger.entry e
      JOIN ledger.posting p ON p.book_id = e.book_id AND p.entry_id = e.id
      JOIN ledger.account a ON a.book_id = p.book_id AND a.id = p.account_id AND a.kind = $1
      LEFT JOIN ledger.accrual_batch b ON b.book_id = e.book_id AND b.entry_id = e.id
     WHERE e.kind = $3
     GROUP BY e.book_id, b.batch, e.id, p.account_id
)
SELECT 'lines-off-postings' AS code,
       coalesce(l.book_id, p.book_id) || '/' || coalesce(l.batch, p.batch, 0) AS subject,
       'account ' || coalesce(l.account_id, p.account_id) || ': lines say ' || coalesce(l.net, 0)
           || ', the posting says ' || coalesce(p.net, 0) AS detail
  FROM of_batch l
  FULL JOIN posted p
    ON p.book_id = l.book_id AND p.batch = l.batch AND p.account_id = l.account_id
 WHERE coalesce(l.net, 0) <> coalesce(p.net, 0)
UNION ALL
SELECT 'contract-batch-off',
       coalesce(l.book_id, c.book_id) || '/' || coalesce(l.batch, c.batch),
       'account ' || coalesce(l.account_id, c.account_id) || ': says ' || coalesce(c.net, 0) || ' in '
           || coalesce(c.lines, 0) || ' lines up to ' || coalesce(c.last_line, 0) || ', ' || coalesce(c.earned, 0)
           || ' in ' || coalesce(c.lines_ever, 0) || ' ever; lines say ' || coalesce(l.net, 0) || ' in '
           || coalesce(l.lines, 0) || ' up to ' || coalesce(l.high, 0) || ', ' || coalesce(l.earned, 0) || ' in '
           || coalesce(l.lines_ever, 0) || ' ever'
  FROM of_batch l
  FULL JOIN (SELECT c.book_id, c.batch, c.account_id, c.net, c.lines, c.last_line, c.earned, c.lines_ever,
                    c.day = b.day AS dated
               FROM ledger.contract_batch c
               LEFT JOIN ledger.accrual_batch b ON b.book_id = c.book_id AND b.batch = c.batch) c
    ON c.book_id = l.book_id AND c.batch = l.batch AND c.account_id = l.account_id
 WHERE (l.net, l.lines, l.high, l.earned, l.lines_ever)
       IS DISTINCT FROM (c.net::numeric, c.lines::numeric, c.last_line, c.earned::numeric, c.lines_ever::numeric)
    OR c.dated IS NOT TRUE
UNION ALL
SELECT 'contract-day-off',
       coalesce(s.book_id, d.book_id) || '/' || coalesce(s.account_id, d.account_id) || ' '
           || coalesce(s.day, d.day),
       'says ' || coalesce(d.net, 0) || ', lines say ' || coalesce(s.net, 0)
  FROM (SELECT l.book_id, l.account_id, b.day, sum(l.net) AS net
          FROM of_batch l
          JOIN ledger.accrual_batch b ON b.book_id = l.book_id AND b.batch = l.batch
         GROUP BY l.book_id, l.account_id, b.day) s
  FULL JOIN ledger.contract_day d
    ON d.book_id = s.book_id AND d.account_id = s.account_id AND d.day = s.day
 WHERE s.net IS DISTINCT FROM d.net::numeric
UNION ALL
SELECT 'batch-numbers', coalesce(b.book_id, l.book_id) || '/' || coalesce(b.batch, l.batch),
       coalesce('says lines ' || b.first_line || ' to ' || b.last_line || ' of deals ' || b.feed || '/'
                || b.first_deal || ' to ' || b.last_deal, 'is not there') || ', has '
           || coalesce(l.lines || ' lines from ' || l.low || ' to ' || l.high || ' of deals ' || l.feed || '/'
                       || l.first_deal || ' to ' || l.last_deal, 'none')
  FROM ledger.accrual_batch b
  FULL JOIN (SELECT book_id, batch, sum(lines) AS lines, min(low) AS low, max(high) AS high,
                    min(feed) AS feed, max(other_feed) AS other_feed, min(first_deal) AS first_deal,
                    max(last_deal) AS last_deal
               FROM summed GROUP BY book_id, batch) l
    ON l.book_id = b.book_id AND l.batch = b.batch
 WHERE CASE WHEN b.batch IS NULL THEN true
            WHEN l.batch IS NULL THEN b.last_line >= b.first_line
            ELSE (l.low, l.high, l.lines, l.feed, l.other_feed)
                 <> (b.first_line, b.last_line, (b.last_line - b.first_line + 1)::numeric, b.feed, b.feed)
                 OR l.first_deal < b.first_deal OR l.last_deal > b.last_deal END
UNION ALL
SELECT 'remainder-off',
       coalesce(s.book_id, r.book_id) || '/' || coalesce(s.account_id, r.account_id) || ' '
           || coalesce(s.period, r.period),
       'says ' || coalesce(r.paid, 0) || ' paid of ' || coalesce(r.exact, 0) || ', rounding lines paid '
           || coalesce(s.paid, 0)
  FROM (SELECT l.book_id, l.account_id, l.component, date_trunc('month', b.settles)::date AS period,
               sum(l.rounding) AS paid
          FROM summed l
          JOIN ledger.accrual_batch b ON b.book_id = l.book_id AND b.batch = l.batch
         GROUP BY l.book_id, l.account_id, l.component, date_trunc('month', b.settles)
        HAVING sum(l.rounding) <> 0) s
  FULL JOIN ledger.remainder r
    ON r.book_id = s.book_id AND r.account_id = s.account_id AND r.component = s.component
   AND r.period = s.period
 WHERE coalesce(s.paid, 0) <> coalesce(r.paid, 0)
    OR r.paid <> div(r.exact, 10000000000000000)
"""
# Batches and lines are numbered without gaps, and the deals of a feed are covered without gaps up to
# the position; the head tells the last of both.
BATCH_NUMBERS: Final = """
WITH chain AS (
    SELECT book_id, batch, feed, first_deal, last_deal, first_line, last_line,
           coalesce(lag(batch) OVER all_of, 0) AS batch_before,
           coalesce(lag(last_line) OVER all_of, 0) AS line_before,
           coalesce(lag(last_deal) OVER of_feed, 0) AS deal_before
      FROM ledger.accrual_batch
    WINDOW all_of AS (PARTITION BY book_id ORDER BY batch),
           of_feed AS (PARTITION BY book_id, feed ORDER BY batch)
)
SELECT book_id || '/' || batch AS subject,
       'batch ' || batch || ' after ' || batch_before || ', line ' || first_line || ' after ' || line_before
           || ', deal ' || first_deal || ' of feed ' || feed || ' after ' || deal_before AS detail
  FROM chain
 WHERE batch <> batch_before + 1 OR first_line <> line_before + 1 OR first_deal <> deal_before + 1
UNION ALL
SELECT coalesce(h.book_id, b.book_id)::text,
       'the head says batch ' || coalesce(h.batch, 0) || ' and line ' || coalesce(h.line, 0)
           || ', the last are ' || coalesce(b.batch, 0) || ' and ' || coalesce(b.line, 0)
  FROM ledger.accrual_head h
  FULL JOIN (SELECT book_id, max(batch) AS batch, max(last_line) AS line
               FROM ledger.accrual_batch GROUP BY book_id) b ON b.book_id = h.book_id
 WHERE (coalesce(h.batch, 0), coalesce(h.line, 0)) <> (coalesce(b.batch, 0), coalesce(b.line, 0))
UNION ALL
SELECT coalesce(p.book_id, b.book_id) || ' feed ' || coalesce(p.feed, b.feed),
       'the position says ' || coalesce(p.reached, 0) || ', batches reach ' || coalesce(b.reached, 0)
           || ' of ' || coalesce(f.landed, 0) || ' landed'
  FROM ledger.accrual_position p
  FULL JOIN (SELECT book_id, feed, max(last_deal) AS reached
               FROM ledger.accrual_batch GROUP BY book_id, feed) b
    ON b.book_id = p.book_id AND b.feed = p.feed
  LEFT JOIN ledger.feed_book f
    ON f.book_id = coalesce(p.book_id, b.book_id) AND f.feed = coalesce(p.feed, b.feed)
 WHERE coalesce(p.reached, 0) <> coalesce(b.reached, 0) OR coalesce(p.reached, 0) > coalesce(f.landed, 0)
"""
# A batch's time is its entry's, and never before the last one's.
BATCH_TIMES: Final = """
SELECT b.book_id || '/' || b.batch AS subject,
       'says ' || b.at || ' behind ' || coalesce(b.before::text, 'nothing') || ', its entry is of '
           || coalesce(e.recorded::text, 'none') AS detail
  FROM (SELECT book_id, batch, entry_id, at, lag(at) OVER (PARTITION BY book_id ORDER BY batch) AS before
          FROM ledger.accrual_batch) b
  LEFT JOIN ledger.entry e ON e.book_id = b.book_id AND e.id = b.entry_id
 WHERE CASE WHEN e.id IS NULL THEN b.at < b.before ELSE b.at <> greatest(e.recorded, b.before) END
"""
# What is still left over is what the last batch left.
REMAINDERS_OFF_STEPS: Final = """
SELECT coalesce(s.book_id, r.book_id) || '/' || coalesce(s.account_id, r.account_id) || ' '
           || coalesce(s.period, r.period) AS subject,
       'says ' || coalesce(r.exact, 0) || ', the last batch left ' || coalesce(s.exact, 0) AS detail
  FROM (SELECT DISTINCT ON (book_id, account_id, component, period)
               book_id, account_id, component, period, exact
          FROM ledger.remainder_step
         ORDER BY book_id, account_id, component, period, batch DESC) s
  FULL JOIN ledger.remainder r
    ON r.book_id = s.book_id AND r.account_id = s.account_id AND r.component = s.component
   AND r.period = s.period
 WHERE r.exact IS DISTINCT FROM s.exact
"""
# The canonical bytes of `rebates/encode.py`, computed from the rows.
BATCHES_ALTERED: Final = r"""
SELECT b.book_id || '/' || b.batch AS subject, 'its lines do not say what they said when they were booked' AS detail
  FROM ledger.accrual_batch b
  LEFT JOIN (
       SELECT book_id, batch, sha256(string_agg(
                  '\x000d00000002'::bytea || int2send(book_id)
                  || '\x00000008'::bytea || int8send(no) || '\x00000008'::bytea || int8send(batch)
                  || '\x00000002'::bytea || int2send(feed) || '\x00000008'::bytea || int8send(deal_no)
                  || '\x00000008'::bytea || int8send(concerned_no)
                  || '\x00000008'::bytea || int8send(account_id)
                  || '\x00000002'::bytea || int2send(component) || '\x00000002'::bytea || int2send(kind)
                  || '\x00000002'::bytea || int2send(level) || '\x00000002'::bytea || int2send(reason)
                  || '\x00000004'::bytea || int4send(plan) || '\x00000008'::bytea || int8send(amount),
                  ''::bytea ORDER BY no)) AS content
         FROM ledger.rebate_line GROUP BY book_id, batch) l
    ON l.book_id = b.book_id AND l.batch = b.batch
 WHERE b.lines <> coalesce(l.content, sha256(''::bytea))
"""
# $1 the entry kind accrual: one entry a batch that paid, under its key, on its day.
ENTRIES_WITHOUT_BATCHES: Final = """
SELECT coalesce(e.book_id, b.book_id) || '/' || coalesce(e.id, b.entry_id) AS subject,
       CASE WHEN b.book_id IS NULL THEN 'an accrual of no batch'
            WHEN e.book_id IS NULL THEN 'batch ' || b.batch || ' names an entry that is not there'
            ELSE 'batch ' || b.batch || ' of ' || b.day || ', its entry is ' || e.key || ' ref ' || e.ref
                 || ' of ' || e.effective END AS detail
  FROM (SELECT * FROM ledger.entry WHERE kind = $1) e
  FULL JOIN (SELECT * FROM ledger.accrual_batch WHERE entry_id IS NOT NULL) b
    ON b.book_id = e.book_id AND b.entry_id = e.id
 WHERE (e.key, e.ref, e.effective)
       IS DISTINCT FROM (b.feed || ':' || b.first_deal, b.batch || ':' || encode(b.content, 'hex'), b.day)
"""
# What the stream tells, computed from postings and lines instead of balances and sums. $1 the three
# kinds of account, $2 the day that is today.
STREAM: Final = """
SELECT a.book_id, a.owner, a.currency,
       coalesce(-sum(p.amount) FILTER (WHERE a.kind = ($1::smallint[])[1]), 0)::bigint AS accrued,
       coalesce(-sum(p.amount) FILTER (WHERE a.kind = ($1::smallint[])[2]), 0)::bigint AS held,
       coalesce(-sum(p.amount) FILTER (WHERE a.kind = ($1::smallint[])[3]), 0)::bigint AS payable,
       count(p.account_id) AS version,
       coalesce(max(c.today), 0) AS today, coalesce(max(c.lines), 0) AS lines
  FROM ledger.account a
  LEFT JOIN ledger.posting p ON p.book_id = a.book_id AND p.account_id = a.id
  LEFT JOIN (SELECT book_id, account_id, coalesce(sum(net) FILTER (WHERE day = $2), 0)::bigint AS today,
                    sum(lines)::bigint AS lines
               FROM ledger.contract_batch GROUP BY book_id, account_id) c
    ON c.book_id = a.book_id AND c.account_id = a.id
 WHERE a.kind = ANY($1::smallint[])
 GROUP BY a.book_id, a.owner, a.currency
"""
NOW: Final = "SELECT now()"

# -- what is computed again, a page of batches at a time ------------------------------------------

# Each row is looked up by its key: how many a range holds is more than a planner can guess.
BY_KEYS: Final = """
SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)
"""
BATCHED: Final = (
    "SELECT book_id, max(batch) AS batch FROM ledger.accrual_batch GROUP BY book_id ORDER BY 1"
)
BATCHES: Final = """
SELECT b.book_id, b.batch, b.feed, coalesce(f.server, '') AS server, b.first_deal, b.last_deal,
       b.first_line, b.last_line, b.day, b.settles, b.cut_off, b.inputs, b.epoch, b.at, b.deals, b.lines, b.content
  FROM ledger.accrual_batch b LEFT JOIN ledger.feed_cursor f ON f.feed = b.feed
 WHERE b.book_id = $1 AND b.batch > $2 AND b.batch <= $3 ORDER BY b.batch LIMIT $4
"""
# $1 book, $2 feed, $3 and $4 first and last deal.
LINES_OF_DEALS: Final = """
SELECT r.no, r.batch, r.deal_no, r.concerned_no, a.owner, r.component, r.kind, r.level, r.reason, r.plan, r.amount
  FROM ledger.rebate_line r
  JOIN ledger.account a ON a.book_id = r.book_id AND a.id = r.account_id
 WHERE r.book_id = $1 AND r.feed = $2 AND r.deal_no BETWEEN $3 AND $4
 ORDER BY r.no
"""
# Accounts are many: each is looked up for its steps, never the other way round.
STEPS: Final = """
WITH s AS MATERIALIZED (SELECT * FROM ledger.remainder_step WHERE book_id = $1 AND batch BETWEEN $2 AND $3)
SELECT s.batch, s.account_id, a.owner, s.component, s.period, s.exact
  FROM s
 CROSS JOIN LATERAL (SELECT owner FROM ledger.account WHERE book_id = $1 AND id = s.account_id OFFSET 0) a
"""
# $5 the last batch that counts.
LEFT_BEFORE: Final = """
SELECT exact FROM ledger.remainder_step
 WHERE book_id = $1 AND account_id = $2 AND component = $3 AND period = $4 AND batch <= $5
 ORDER BY batch DESC LIMIT 1
"""
