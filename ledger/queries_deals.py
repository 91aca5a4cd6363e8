"""The statements of landed deals: cursors, numbers, deals, what waits beside the books.

Knows the tables of `ledger.feed_cursor`, `feed_book`, `deal` and `deal_parked` only. Refuses to
know what a deal means.
"""

from __future__ import annotations

from typing import Final

# A writer's plans may have been made while a table was empty, when a scan of all of it is as good as
# any. Where many keys are looked up at once each is a lookup of its own therefore: OFFSET 0 keeps
# the planner from turning the join round.

# A newer owner's epoch stays: then no row comes back.
OPEN_FEED: Final = """
INSERT INTO ledger.feed_cursor AS c (server, epoch) VALUES ($1, $2)
ON CONFLICT (server) DO UPDATE SET epoch = excluded.epoch WHERE c.epoch <= excluded.epoch
RETURNING feed, cursor::text
"""

HOLD_FEED: Final = "SELECT epoch FROM ledger.feed_cursor WHERE feed = $1 FOR UPDATE"

MOVE_CURSOR: Final = """
UPDATE ledger.feed_cursor SET cursor = $2::jsonb, moved = clock_timestamp() WHERE feed = $1
"""

_DEAL: Final = """d.ticket, d.phase, d.login, d.position, d.action, d.entry, d.reason, d.symbol, d.volume, d.closed,
       d.price, d.digits, d.profit, d.commission, d.swap, d.fee, d.flags, d.comment, d.at, d.server_ms, d.opened"""

# The newest version of each ticket, in whichever book: an account that moved is found out.
NEWEST: Final = f"""
SELECT d.book_id, d.version, {_DEAL}
  FROM ledger.feed_book b
 CROSS JOIN unnest($2::bigint[], $3::smallint[]) AS u (ticket, phase)
 CROSS JOIN LATERAL (
       SELECT * FROM ledger.deal d
        WHERE d.book_id = b.book_id AND d.feed = b.feed AND d.ticket = u.ticket AND d.phase = u.phase
        ORDER BY d.version DESC LIMIT 1) d
 WHERE b.feed = $1
"""

OPENINGS: Final = """
SELECT u.book_id, u.login, u.position, d.at, d.ticket, d.entry
  FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS u (book_id, login, position)
 CROSS JOIN LATERAL (
       SELECT o.at, o.ticket, o.entry FROM ledger.deal o
        WHERE o.book_id = u.book_id AND o.feed = $1 AND o.login = u.login AND o.position = u.position
          AND o.entry IN (0, 2) AND o.position > 0
       OFFSET 0) d
"""

# The last number of each book after so many more; the rows stay locked to the commit.
TAKE_NUMBERS: Final = """
INSERT INTO ledger.feed_book AS b (book_id, feed, landed)
SELECT u.book_id, $1::smallint, u.deals FROM unnest($2::smallint[], $3::bigint[]) AS u (book_id, deals)
 ORDER BY u.book_id
ON CONFLICT (book_id, feed) DO UPDATE SET landed = b.landed + excluded.landed
RETURNING book_id, landed
"""

# What waits already waits on; what waits for another reason now, or again, says so. `parked` is the
# order in which the rows were seen.
PARK: Final = """
INSERT INTO ledger.deal_parked AS p (feed, ticket, phase, content, reason, subject, body)
SELECT $1::smallint, u.ticket, u.phase, u.content, u.reason, u.subject, u.body::jsonb
  FROM unnest($2::bigint[], $3::smallint[], $4::bytea[], $5::text[], $6::text[], $7::text[])
       WITH ORDINALITY AS u (ticket, phase, content, reason, subject, body, nth)
 ORDER BY u.nth
ON CONFLICT (feed, ticket, phase, content) DO UPDATE
   SET reason = excluded.reason, subject = excluded.subject, landed = NULL
 WHERE p.landed IS NOT NULL OR p.reason <> excluded.reason OR p.subject <> excluded.subject
RETURNING reason, subject
"""

# A fresh look at a ticket that could be booked ($5) settles all that waited of it; a row that is
# booked from here settles itself.
SETTLE: Final = """
UPDATE ledger.deal_parked p SET landed = clock_timestamp()
 WHERE p.ctid = ANY (ARRAY(
       SELECT w.ctid FROM unnest($2::bigint[], $3::smallint[], $4::bytea[]) AS u (ticket, phase, content)
        CROSS JOIN LATERAL (
              SELECT d.ctid, d.content, d.landed FROM ledger.deal_parked d
               WHERE d.feed = $1 AND d.ticket = u.ticket AND d.phase = u.phase
              OFFSET 0) w
        WHERE w.landed IS NULL AND ($5::boolean OR w.content = u.content)))
RETURNING p.reason, p.subject
"""

ANY_WAITING: Final = """
SELECT EXISTS (SELECT FROM ledger.deal_parked WHERE feed = $1 AND landed IS NULL)
"""

STILL_WAITING: Final = """
SELECT u.reason, u.subject FROM unnest($2::text[], $3::text[]) AS u (reason, subject)
 CROSS JOIN LATERAL (
       SELECT FROM ledger.deal_parked p
        WHERE p.feed = $1 AND p.reason = u.reason AND p.subject = u.subject AND p.landed IS NULL
        LIMIT 1) w
"""

# One step through the index for each subject, however many rows wait for it.
WAITING_SUBJECTS: Final = """
WITH RECURSIVE subjects AS (
    (SELECT subject FROM ledger.deal_parked
      WHERE feed = $1 AND reason = $2 AND subject > $3 AND landed IS NULL ORDER BY subject LIMIT 1)
    UNION ALL
    SELECT (SELECT p.subject FROM ledger.deal_parked p
             WHERE p.feed = $1 AND p.reason = $2 AND p.subject > s.subject AND p.landed IS NULL
             ORDER BY p.subject LIMIT 1)
      FROM subjects s WHERE s.subject IS NOT NULL
)
SELECT subject FROM subjects WHERE subject IS NOT NULL LIMIT $4
"""

WAITING: Final = """
SELECT p.body::text AS body FROM ledger.deal_parked p
 WHERE p.feed = $1 AND p.reason = $2 AND p.subject = ANY($3::text[]) AND p.landed IS NULL
 ORDER BY p.parked LIMIT $4
"""

COUNT_WAITING: Final = """
SELECT c.server, p.reason, count(*) AS deals
  FROM ledger.deal_parked p JOIN ledger.feed_cursor c USING (feed)
 WHERE p.landed IS NULL GROUP BY c.server, p.reason
"""

AFTER: Final = f"""
SELECT d.no, d.version, {_DEAL}
  FROM ledger.deal d WHERE d.book_id = $1 AND d.feed = $2 AND d.no > $3 ORDER BY d.no LIMIT $4
"""

# Of each edit the versions before it: the first says which deal it is.
EARLIER: Final = f"""
SELECT d.no, d.version, {_DEAL}
  FROM unnest($3::bigint[], $4::smallint[], $5::smallint[]) AS u (ticket, phase, version)
 CROSS JOIN LATERAL (
       SELECT * FROM ledger.deal e
        WHERE e.book_id = $1 AND e.feed = $2 AND e.ticket = u.ticket AND e.phase = u.phase
          AND e.version < u.version
        ORDER BY e.version OFFSET 0) d
"""

FEEDS: Final = """
SELECT b.feed, c.server, b.landed FROM ledger.feed_book b JOIN ledger.feed_cursor c USING (feed)
 WHERE b.book_id = $1 ORDER BY b.feed
"""

# -- what must always be true -------------------------------------------------------------------

DEAL_NUMBERS: Final = """
SELECT coalesce(b.book_id, d.book_id) || '/' || coalesce(b.feed, d.feed) AS subject,
       'numbered to ' || coalesce(b.landed, 0) || ', has ' || coalesce(d.deals, 0) || ' deals, '
       || coalesce(d.least, 0) || ' to ' || coalesce(d.most, 0) AS detail
  FROM ledger.feed_book b
  FULL JOIN (SELECT book_id, feed, count(*) AS deals, min(no) AS least, max(no) AS most
               FROM ledger.deal GROUP BY book_id, feed) d USING (book_id, feed)
 WHERE coalesce(b.landed, -1) <> coalesce(d.deals, 0)
    OR (d.deals > 0 AND (d.least <> 1 OR d.most <> d.deals))
"""

DEAL_VERSIONS: Final = """
SELECT feed || '/' || ticket || '/' || phase AS subject,
       count(*) || ' versions, the newest is ' || max(version) || ', in books ' || min(book_id) || ' to ' || max(book_id) AS detail
  FROM ledger.deal GROUP BY feed, ticket, phase
HAVING max(version) <> count(*) OR min(book_id) <> max(book_id)
"""

DEALS_OFF_FEEDS: Final = """
SELECT 'feed ' || feed AS subject, 'no server has this number' AS detail
  FROM (SELECT feed FROM ledger.feed_book UNION SELECT feed FROM ledger.deal_parked) used
 WHERE NOT EXISTS (SELECT FROM ledger.feed_cursor c WHERE c.feed = used.feed)
"""
