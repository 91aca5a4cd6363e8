"""The one place where a statement spans the rooms' schemas: what they say must agree.

Each statement returns the rows that are wrong, as `subject` and `detail`. Refuses to write.
"""

from __future__ import annotations

from typing import Final

# $1 is the number of the entry kind `deposit`, $2 that of `deposit_surplus`.
CREDITS_OFF_PAYMENTS: Final = """
SELECT coalesce(p.id, e.key) AS subject,
       'payment is ' || coalesce(p.state, 'missing') || ', booked as deposit '
           || CASE WHEN e.key IS NULL THEN 'never' ELSE 'once' END AS detail
  FROM (SELECT id, state FROM router.payment WHERE state = 'approved') p
  FULL JOIN (SELECT key FROM ledger.entry WHERE kind = $1) e ON e.key = p.id
 WHERE p.id IS NULL OR e.key IS NULL
"""
CREDITED_AMOUNTS: Final = """
SELECT p.id AS subject,
       'payment of ' || p.amount_minor || ' ' || p.currency || ', wallet got ' || -s.amount AS detail
  FROM router.payment p
  JOIN ledger.entry e ON e.book_id = p.book AND e.kind = $1 AND e.key = p.id
  JOIN ledger.posting s ON s.book_id = e.book_id AND s.entry_id = e.id
  JOIN ledger.account a ON a.book_id = s.book_id AND a.id = s.account_id
 WHERE a.kind = $2
   AND (-s.amount <> p.amount_minor OR a.currency <> p.currency OR a.owner <> p.client_id)
"""
CHARGES_OFF_BOOKS: Final = """
SELECT a.payment_id AS subject,
       count(*) || ' approved attempts, ' || coalesce(max(s.n), 0) || ' surplus entries' AS detail
  FROM router.attempt a
  LEFT JOIN (SELECT ref, count(*) AS n FROM ledger.entry WHERE kind = $1 GROUP BY ref) s
    ON s.ref = a.payment_id
 WHERE a.state = 'approved'
 GROUP BY a.payment_id
HAVING count(*) - 1 <> coalesce(max(s.n), 0)
"""
# $1 transfer_out, $2 transfer_done, $3 transfer_back
TRANSFERS_OFF_OPERATIONS: Final = """
SELECT coalesce(o.id, e.key) AS subject,
       'operation is ' || coalesce(o.state, 'missing') || ', entries ' || coalesce(e.kinds, 'none')
           AS detail
  FROM bridge.operation o
  FULL JOIN (SELECT key, string_agg(kind::text, ',' ORDER BY kind) AS kinds
               FROM ledger.entry WHERE kind IN ($1, $2, $3) GROUP BY key) e ON e.key = o.id
 WHERE coalesce(e.kinds, '') IS DISTINCT FROM CASE o.state
           WHEN 'done' THEN $1::text || ',' || $2::text
           WHEN 'refused' THEN $1::text || ',' || $3::text
           WHEN 'queued' THEN $1::text
           WHEN 'sent' THEN $1::text
           WHEN 'unknown' THEN $1::text
       END
"""
# $1 the account kind on_platform
PLATFORM_OFF_BOOKS: Final = """
SELECT coalesce(o.account_id, b.owner) AS subject,
       'operations say ' || coalesce(o.total, 0) || ', books ' || coalesce(b.balance, 0) AS detail
  FROM (SELECT account_id, sum(amount_minor) AS total FROM bridge.operation
         WHERE state = 'done' GROUP BY account_id) o
  FULL JOIN (SELECT a.owner, sum(b.sign * b.posted) AS balance
               FROM ledger.account a
               JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
              WHERE a.kind = $1 GROUP BY a.owner) b ON b.owner = o.account_id
 WHERE coalesce(o.total, 0) <> coalesce(b.balance, 0)
"""
# $1 the account kind in_transit
TRANSIT_OFF_BOOKS: Final = """
SELECT coalesce(o.server, b.owner) || ' ' || coalesce(o.currency, b.currency) AS subject,
       'open operations say ' || coalesce(o.total, 0) || ', books ' || coalesce(b.balance, 0)
           AS detail
  FROM (SELECT server, currency, sum(amount_minor) AS total FROM bridge.operation
         WHERE state IN ('queued', 'sent', 'unknown') GROUP BY server, currency) o
  FULL JOIN (SELECT a.owner, a.currency, sum(b.sign * b.posted) AS balance
               FROM ledger.account a
               JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
              WHERE a.kind = $1 GROUP BY a.owner, a.currency) b
    ON b.owner = o.server AND b.currency = o.currency
 WHERE coalesce(o.total, 0) <> coalesce(b.balance, 0)
"""
STATES_OFF_EVENTS: Final = """
SELECT s.id AS subject, 'row says ' || s.state || ', last event ' || coalesce(e.to_state, 'none')
           AS detail
  FROM (SELECT id, state FROM router.payment
        UNION ALL SELECT id, state FROM router.attempt) s
  LEFT JOIN LATERAL (SELECT to_state FROM router.event WHERE object_id = s.id
                      ORDER BY version DESC LIMIT 1) e ON true
 WHERE e.to_state IS DISTINCT FROM s.state
UNION ALL
SELECT s.id, 'row says ' || s.state || ', last event ' || coalesce(e.to_state, 'none')
  FROM (SELECT id, state FROM bridge.account
        UNION ALL SELECT id, state FROM bridge.operation) s
  LEFT JOIN LATERAL (SELECT to_state FROM bridge.event WHERE object_id = s.id
                      ORDER BY id DESC LIMIT 1) e ON true
 WHERE e.to_state IS DISTINCT FROM s.state
UNION ALL
SELECT s.id, 'row says ' || s.state || ', last event ' || coalesce(e.to_state, 'none')
  FROM gateway.client s
  LEFT JOIN LATERAL (SELECT to_state FROM gateway.client_event WHERE object_id = s.id
                      ORDER BY version DESC LIMIT 1) e ON true
 WHERE e.to_state IS DISTINCT FROM s.state
"""
OUTBOX_NUMBERS: Final = """
SELECT coalesce(n.lane, o.lane) AS subject,
       'last number ' || coalesce(n.last, 0) || ', rows ' || coalesce(o.n, 0) || ' up to '
           || coalesce(o.high, 0) AS detail
  FROM gateway.outbox_number n
  FULL JOIN (SELECT lane, count(no) AS n, max(no) AS high FROM gateway.outbox
              WHERE no IS NOT NULL GROUP BY lane) o ON o.lane = n.lane
 WHERE coalesce(n.last, 0) <> coalesce(o.n, 0) OR coalesce(n.last, 0) <> coalesce(o.high, 0)
"""
UNTOLD_ENDS: Final = """
SELECT e.object_id AS subject, e.to_state || ' at version ' || e.version || ' was never told'
           AS detail
  FROM router.event e
  JOIN router.payment p ON p.id = e.object_id
 WHERE e.to_state IN ('approved', 'declined', 'review')
   AND NOT EXISTS (SELECT 1 FROM gateway.outbox o
                    WHERE o.lane = 'subscriber:' || p.caller AND o.aggregate = p.id
                      AND o.kind = 'payment.' || e.to_state)
"""
KEYS_WITHOUT_OBJECTS: Final = """
SELECT i.key AS subject, 'stands for ' || i.subject || ', which does not exist' AS detail
  FROM gateway.idempotency i
 WHERE (i.subject LIKE 'PY%' AND NOT EXISTS (SELECT 1 FROM router.payment WHERE id = i.subject))
    OR (i.subject LIKE 'AC%' AND NOT EXISTS (SELECT 1 FROM bridge.account WHERE id = i.subject))
    OR (i.subject LIKE 'CL%' AND NOT EXISTS (SELECT 1 FROM gateway.client WHERE id = i.subject))
"""
OBJECTS_WITHOUT_AUDIT: Final = """
SELECT o.id AS subject, 'no audit row of ' || o.command AS detail
  FROM (SELECT id, 'deposit.start' AS command FROM router.payment
        UNION ALL SELECT id, 'account.request' FROM bridge.account
        UNION ALL SELECT id, 'client.create' FROM gateway.client) o
  LEFT JOIN (SELECT subject, command, count(*) AS n FROM gateway.audit GROUP BY 1, 2) a
    ON a.subject = o.id AND a.command = o.command
 WHERE coalesce(a.n, 0) <> 1
"""
