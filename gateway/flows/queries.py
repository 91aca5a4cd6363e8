"""The statements of the flows' own tables: the outbox and who is told.

Knows schema `gateway` only. Refuses to know what the rows mean.
"""

from __future__ import annotations

from typing import Final

EMIT: Final = """
INSERT INTO gateway.outbox (lane, kind, aggregate, body, correlation, due_at, created)
SELECT u.lane, u.kind, u.aggregate, u.body, u.correlation, u.at, u.at
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
       AS u (lane, kind, aggregate, body, correlation, at)
"""

# Numbers what is committed and unnumbered, each subscriber's densely from its last number. Who has
# named no address pulls: a row of theirs has its number and is done.
NUMBER: Final = """
WITH fresh AS (
    SELECT id, lane, row_number() OVER (PARTITION BY lane ORDER BY id) AS nth,
           count(*) OVER (PARTITION BY lane) AS among
      FROM (SELECT id, lane FROM gateway.outbox
             WHERE no IS NULL ORDER BY id LIMIT $1) unnumbered
), lanes AS (
    INSERT INTO gateway.outbox_number AS n (lane, last)
    SELECT lane, max(nth) FROM fresh GROUP BY lane
    ON CONFLICT (lane) DO UPDATE SET last = n.last + excluded.last
    RETURNING n.lane, n.last
), known AS (
    SELECT lane, last, lane LIKE 'subscriber:%' AND NOT EXISTS (
               SELECT FROM gateway.subscriber s
                WHERE s.caller = substr(lane, 12) AND s.webhook_url <> '') AS pulls
      FROM lanes
)
UPDATE gateway.outbox o
   SET no = known.last - fresh.among + fresh.nth,
       state = CASE WHEN known.pulls THEN 'done' ELSE o.state END,
       ended = CASE WHEN known.pulls THEN $2::timestamptz END,
       last_error = CASE WHEN known.pulls THEN 'pull only' ELSE '' END
  FROM fresh JOIN known USING (lane)
 WHERE o.id = fresh.id
"""

# The first waiting row of each aggregate (a later one is not looked at before it has ended), at
# most $2 due ones of a lane: one with a long queue hides no other.
DUE: Final = """
SELECT id, version, lane, no, kind, aggregate, body, correlation, attempts, created
  FROM (SELECT first.*, row_number() OVER (PARTITION BY lane ORDER BY id) AS nth
          FROM (SELECT DISTINCT ON (lane, aggregate) id, version, lane, no, kind, aggregate, body,
                       correlation, attempts, created, due_at
                  FROM gateway.outbox WHERE state = 'waiting'
                 ORDER BY lane, aggregate, id) first
         WHERE due_at <= $1 AND no IS NOT NULL) due
 WHERE nth <= $2
 ORDER BY id LIMIT $3
"""

LOOK_OUTBOX: Final = """
SELECT id::text AS id, version FROM gateway.outbox
 WHERE id = ANY($1::text[]::bigint[]) ORDER BY id FOR UPDATE
"""
MOVE_OUTBOX: Final = """
UPDATE gateway.outbox o
   SET version = o.version + 1, state = u.state, attempts = u.attempts, due_at = u.due_at,
       ended = u.ended, last_error = u.last_error
  FROM unnest($1::text[], $2::bigint[], $3::text[], $4::integer[], $5::timestamptz[],
              $6::timestamptz[], $7::text[])
       AS u (id, expected, state, attempts, due_at, ended, last_error)
 WHERE o.id = u.id::bigint
"""

EVENTS_AFTER: Final = """
SELECT id, no, kind, aggregate, body, correlation, state, attempts, created
  FROM gateway.outbox WHERE lane = $1 AND no > $2 AND ($4 = '' OR state = $4)
 ORDER BY no LIMIT $3
"""
EVENT: Final = """
SELECT id, version, lane, no, kind, aggregate, body, correlation, state, attempts, created
  FROM gateway.outbox WHERE lane = $1 AND no = $2
"""
DEPTH: Final = """
SELECT lane, state, count(*) AS rows, min(created) AS oldest
  FROM gateway.outbox WHERE state IN ('waiting', 'dead', 'unknown') GROUP BY lane, state
"""

SUBSCRIBER: Final = "SELECT caller, version, webhook_url FROM gateway.subscriber WHERE caller = $1"
SET_SUBSCRIBER: Final = """
INSERT INTO gateway.subscriber (caller, webhook_url)
SELECT u.caller, u.url FROM unnest($1::text[], $2::text[]) AS u (caller, url)
ON CONFLICT (caller) DO UPDATE
   SET webhook_url = excluded.webhook_url, version = gateway.subscriber.version + 1,
       updated = now()
"""
