"""The one place where a statement spans the rooms' schemas: what they say must agree.

Each statement returns the rows that are wrong, as `subject` and `detail`; those at the end, of the
catalogues, what stands. Refuses to write.
"""

from __future__ import annotations

from typing import Final

# $1 the entry kind `deposit`. A payment is credited in its own book and in no other.
CREDITS_OFF_PAYMENTS: Final = """
SELECT coalesce(p.id, e.key) AS subject,
       CASE WHEN e.key IS NULL THEN 'payment is approved and never booked as a deposit'
            ELSE 'a deposit in book ' || e.book_id || ' of no approved payment of that book'
       END AS detail
  FROM (SELECT id, book FROM router.payment WHERE state = 'approved') p
  FULL JOIN (SELECT book_id, key FROM ledger.entry WHERE kind = $1) e
    ON e.key = p.id AND e.book_id = p.book
 WHERE p.id IS NULL OR e.key IS NULL
"""
# $1 the entry kind deposit; account kinds: $2 client_wallet, $3 psp_clearing.
# From the clearing account of a provider that charged it, to the wallet of its client.
CREDITED_AMOUNTS: Final = """
SELECT p.id AS subject,
       'payment of ' || p.amount_minor || ' ' || p.currency || ', its wallet got '
           || coalesce(sum(-s.amount) FILTER (WHERE a.kind = $2 AND a.owner = p.client_id), 0)
           || ', its providers hold '
           || coalesce(sum(s.amount) FILTER (WHERE a.kind = $3), 0) AS detail
  FROM router.payment p
  JOIN ledger.entry e ON e.book_id = p.book AND e.kind = $1 AND e.key = p.id
  LEFT JOIN ledger.posting s ON s.book_id = e.book_id AND s.entry_id = e.id
  LEFT JOIN ledger.account a
    ON a.book_id = s.book_id AND a.id = s.account_id AND a.currency = p.currency
 GROUP BY p.id, p.amount_minor, p.currency, p.client_id
HAVING coalesce(sum(-s.amount) FILTER (WHERE a.kind = $2 AND a.owner = p.client_id), 0)
           <> p.amount_minor
    OR coalesce(sum(s.amount) FILTER (WHERE a.kind = $3 AND EXISTS (
           SELECT FROM router.attempt t
            WHERE t.payment_id = p.id AND t.psp = a.owner AND t.state = 'approved')), 0)
           <> p.amount_minor
"""
# $1 the entry kind deposit_surplus: of the charges of an approved payment one is its credit, and
# every other one, also of a payment that is not approved, is a surplus.
CHARGES_OFF_BOOKS: Final = """
SELECT coalesce(c.id, s.ref) AS subject,
       'payment is ' || coalesce(c.state, 'missing') || ', ' || coalesce(c.n, 0)
           || ' approved attempts, ' || coalesce(s.n, 0) || ' surplus entries' AS detail
  FROM (SELECT p.id, p.state, count(a.id) AS n
          FROM router.payment p
          LEFT JOIN router.attempt a ON a.payment_id = p.id AND a.state = 'approved'
         GROUP BY p.id, p.state) c
  FULL JOIN (SELECT ref, count(*) AS n FROM ledger.entry WHERE kind = $1 GROUP BY 1) s
    ON s.ref = c.id
 WHERE coalesce(c.n, 0) <> (coalesce(c.state, '') = 'approved')::int + coalesce(s.n, 0)
"""
# $1 the entry kind deposit_mismatch, $2 the account kind suspense, $3 every currency that is known.
# What an attempt was charged instead stands in its message; in a currency nobody knows no book can
# hold it.
MISMATCHES_OFF_BOOKS: Final = """
SELECT coalesce(a.id, e.key) AS subject,
       coalesce(a.message, 'no attempt was charged another amount') || ', booked '
           || coalesce(e.amount || ' ' || e.currency, 'nothing') AS detail
  FROM (SELECT t.id, t.psp, t.message, p.book,
               substring(t.message FROM '^charged ([1-9][0-9]*) minor units of ')::numeric AS minor,
               substring(t.message FROM ' minor units of (.*)$') AS currency
          FROM router.attempt t JOIN router.payment p ON p.id = t.payment_id
         WHERE t.state = 'mismatch') a
  FULL JOIN (SELECT n.book_id, n.key, s.owner, s.currency, -sum(s.amount) AS amount
               FROM ledger.entry n
               LEFT JOIN (SELECT g.book_id, g.entry_id, g.amount, c.owner, c.currency
                            FROM ledger.posting g
                            JOIN ledger.account c
                              ON c.book_id = g.book_id AND c.id = g.account_id AND c.kind = $2) s
                 ON s.book_id = n.book_id AND s.entry_id = n.id
              WHERE n.kind = $1
              GROUP BY n.book_id, n.key, s.owner, s.currency) e
    ON e.key = a.id
 WHERE CASE WHEN e.key IS NULL THEN a.minor > 0 AND a.currency = ANY($3::text[])
            ELSE (a.minor, a.currency, a.psp, a.book)
                 IS DISTINCT FROM (e.amount, e.currency, e.owner, e.book_id) END
"""
# Entry kinds: $1 deposit_surplus, $2 refund; $3 the account kind suspense. A refund bears the
# symbols of the attempt it gives back: it is asked for with the surplus and booked when it is done.
REFUNDS_OFF_SURPLUS: Final = """
WITH moved AS (
    SELECT e.book_id, e.kind, e.key, substr(e.key, 3) AS symbols, a.owner, a.currency,
           sum(p.amount) AS amount
      FROM ledger.entry e
      LEFT JOIN (ledger.posting p JOIN ledger.account a
                   ON a.book_id = p.book_id AND a.id = p.account_id AND a.kind = $3)
        ON p.book_id = e.book_id AND p.entry_id = e.id
     WHERE e.kind IN ($1, $2)
     GROUP BY e.book_id, e.kind, e.key, a.owner, a.currency
)
SELECT r.key AS subject,
       'gives back ' || coalesce(r.amount, 0) || ', surplus is ' || coalesce(-s.amount, 0) AS detail
  FROM moved r
  LEFT JOIN moved s
    ON s.kind = $1 AND s.book_id = r.book_id AND s.symbols = r.symbols AND s.owner = r.owner
   AND s.currency = r.currency
 WHERE r.kind = $2 AND r.amount IS DISTINCT FROM -s.amount
UNION ALL
SELECT s.key, 'no refund of this surplus was asked for'
  FROM moved s
 WHERE s.kind = $1
   AND NOT EXISTS (SELECT FROM gateway.outbox o
                    WHERE o.lane = 'psp:' || s.owner AND o.kind = 'refund'
                      AND o.aggregate = 'RF' || s.symbols)
UNION ALL
SELECT coalesce(o.aggregate, r.key),
       'asked: ' || coalesce(o.state, 'never') || ', booked: '
           || CASE WHEN r.key IS NULL THEN 'no' ELSE 'yes' END
  FROM (SELECT aggregate, state FROM gateway.outbox WHERE lane LIKE 'psp:%' AND kind = 'refund') o
  FULL JOIN (SELECT key FROM moved WHERE kind = $2) r ON r.key = o.aggregate
 WHERE (coalesce(o.state, '') = 'done') <> (r.key IS NOT NULL)
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
# Entry kinds as above; account kinds: $4 client_wallet, $5 in_transit, $6 on_platform.
TRANSFERRED_AMOUNTS: Final = """
SELECT o.id AS subject,
       'operation of ' || o.amount_minor || ' ' || o.currency || ', an entry of kind ' || e.kind
           || ' in book ' || e.book_id || ' moves something else' AS detail
  FROM bridge.operation o
  JOIN bridge.account t ON t.id = o.account_id
  JOIN ledger.entry e ON e.key = o.id AND e.kind IN ($1, $2, $3)
  LEFT JOIN ledger.posting s ON s.book_id = e.book_id AND s.entry_id = e.id
  LEFT JOIN ledger.account a
    ON a.book_id = s.book_id AND a.id = s.account_id AND a.currency = o.currency
 GROUP BY o.id, o.amount_minor, o.currency, o.book, e.book_id, e.id, e.kind
HAVING e.book_id <> o.book
    OR coalesce(sum(s.amount) FILTER (WHERE
           CASE WHEN e.kind = $1 THEN a.kind = $4 AND a.owner = t.client_id
                ELSE a.kind = $5 AND a.owner = o.server END), 0) <> o.amount_minor
    OR coalesce(sum(-s.amount) FILTER (WHERE
           CASE e.kind WHEN $1 THEN a.kind = $5 AND a.owner = o.server
                       WHEN $2 THEN a.kind = $6 AND a.owner = o.account_id
                       ELSE a.kind = $4 AND a.owner = t.client_id END), 0) <> o.amount_minor
"""
OPERATIONS_OFF_PAYMENTS: Final = """
SELECT coalesce(p.id, o.payment_id) AS subject,
       CASE WHEN o.id IS NULL THEN 'approved for an account, and no operation takes it there'
            ELSE o.id || ' takes ' || o.amount_minor || ' ' || o.currency || ' to ' || o.account_id
                 || ', which is not what the payment asked' END AS detail
  FROM (SELECT * FROM router.payment WHERE state = 'approved' AND account_id <> '') p
  FULL JOIN (SELECT * FROM bridge.operation WHERE payment_id <> '') o ON o.payment_id = p.id
 WHERE (p.amount_minor, p.currency, p.account_id, p.book)
       IS DISTINCT FROM (o.amount_minor, o.currency, o.account_id, o.book)
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
UNION ALL
SELECT s.id, 'row says ' || s.state || ', last event ' || coalesce(e.to_state, 'none')
  FROM gateway.rulebook_version s
  LEFT JOIN LATERAL (SELECT to_state FROM gateway.rulebook_version_event WHERE object_id = s.id
                      ORDER BY id DESC LIMIT 1) e ON true
 WHERE e.to_state IS DISTINCT FROM s.state
UNION ALL
SELECT s.id, 'row says ' || s.state || ', last event ' || coalesce(e.to_state, 'none')
  FROM gateway.approval s
  LEFT JOIN LATERAL (SELECT to_state FROM gateway.approval_event WHERE object_id = s.id
                      ORDER BY version DESC LIMIT 1) e ON true
 WHERE e.to_state IS DISTINCT FROM s.state
UNION ALL
SELECT s.id, 'row says ' || s.state || ', last event ' || coalesce(e.to_state, 'none')
  FROM gateway.item s
  LEFT JOIN LATERAL (SELECT to_state FROM gateway.item_event WHERE object_id = s.id
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
    OR (i.subject LIKE 'PA%' AND NOT EXISTS (SELECT 1 FROM gateway.partner WHERE id = i.subject))
    OR (i.subject LIKE 'CT%' AND NOT EXISTS (SELECT 1 FROM gateway.contract WHERE id = i.subject))
"""
OBJECTS_WITHOUT_AUDIT: Final = """
SELECT o.id AS subject, 'no audit row of ' || o.command AS detail
  FROM (SELECT id, 'deposit.start' AS command FROM router.payment
        UNION ALL SELECT id, 'account.request' FROM bridge.account
        UNION ALL SELECT id, 'client.create' FROM gateway.client
        UNION ALL SELECT id, 'partner.create' FROM gateway.partner
        UNION ALL SELECT id, 'contract.create' FROM gateway.contract) o
  LEFT JOIN (SELECT subject, command, count(*) AS n FROM gateway.audit GROUP BY 1, 2) a
    ON a.subject = o.id AND a.command = o.command
 WHERE coalesce(a.n, 0) <> 1
"""

# An adjustment stands on a question that was agreed to, asked by its maker and agreed to by its checker.
ADJUSTMENTS_OFF_APPROVALS: Final = """
SELECT e.book_id || '/' || e.id AS subject,
       'approval ' || e.approval || ' by ' || e.maker || ' and ' || e.checker || ' is '
           || coalesce(p.state || ', of ' || p.maker || ' and ' || array_to_string(p.votes, ', '), 'missing') AS detail
  FROM ledger.entry e
  LEFT JOIN gateway.approval p ON p.id = e.approval
 WHERE e.kind BETWEEN 90 AND 99
   AND (p.state = 'approved' AND p.maker = e.maker AND e.checker = ANY (p.votes)) IS NOT TRUE
"""
# The votes of a question are those that were given, each an event, and none of them is its maker's.
APPROVALS_OFF_VOTES: Final = """
SELECT p.id AS subject, p.state || ' with the votes of ' || array_to_string(p.votes, ', ') || '; given were those of '
           || coalesce(array_to_string(e.given, ', '), 'nobody') AS detail
  FROM gateway.approval p
  LEFT JOIN (SELECT object_id, array_agg(actor ORDER BY version) AS given FROM gateway.approval_event
              WHERE event = 'agreed' GROUP BY object_id) e ON e.object_id = p.id
 WHERE p.votes <> coalesce(e.given, '{}') OR p.maker = ANY (p.votes || p.authorities)
    OR (p.state = 'approved' AND cardinality(p.votes) < p.needed)
"""
# The rulebook in force is that of the version in force, and every area it changed was agreed to by somebody else.
RULEBOOK_UNAGREED: Final = """
SELECT v.id AS subject, 'it is in force, and the rulebook in force is ' || f.hash AS detail
  FROM gateway.rulebook_version v, gateway.rulebook_in_force f WHERE v.state = 'effective' AND v.hash <> f.hash
UNION ALL
SELECT v.id, 'nobody but its author agreed to its change of ' || a.area
  FROM gateway.rulebook_version v, unnest(v.areas) AS a(area)
 WHERE v.state IN ('approved', 'effective', 'superseded')
   AND NOT EXISTS (SELECT FROM gateway.approval p
                    WHERE p.id = ANY (v.approvals) AND p.subject = v.id AND p.kind = 'rulebook.' || a.area
                      AND p.state = 'approved' AND NOT v.author = ANY (p.votes || p.authorities))
"""
# A person's acts at a place are numbered without a gap: one that is missing was never judged against.
ACT_NUMBERS: Final = """
SELECT person || ' at ' || place AS subject, count(*) || ' acts, the last is number ' || max(no) AS detail
  FROM gateway.act GROUP BY person, place HAVING count(*) <> max(no)
"""

# -- partners -------------------------------------------------------------------------------------

# Who is above oneself, by the edges in force. Only those below no top are walked upwards.
TREE_CYCLES: Final = """
WITH RECURSIVE edge AS (
    SELECT DISTINCT ON (contract_id) contract_id AS id, parent FROM gateway.contract_edge
     ORDER BY contract_id, since DESC
), reached AS (
    SELECT id FROM edge WHERE parent = ''
     UNION
    SELECT e.id FROM edge e JOIN reached r ON e.parent = r.id
), above AS (
    SELECT id, parent AS at FROM edge WHERE id NOT IN (SELECT id FROM reached)
     UNION
    SELECT a.id, e.parent FROM above a JOIN edge e ON e.id = a.at
)
SELECT id AS subject, 'stands above itself' AS detail FROM above WHERE at = id
"""
TREES_OFF_BOOKS: Final = """
SELECT e.contract_id AS subject,
       'is in book ' || coalesce(c.book::text, 'none') || ' in ' || coalesce(c.currency, 'nothing')
           || ', below ' || e.parent || ' in book ' || coalesce(p.book::text, 'none') || ' in '
           || coalesce(p.currency, 'nothing') AS detail
  FROM gateway.contract_edge e
  LEFT JOIN gateway.contract c ON c.id = e.contract_id
  LEFT JOIN gateway.contract p ON p.id = e.parent
 WHERE e.book IS DISTINCT FROM c.book
    OR (e.parent <> '' AND (p.book, p.currency) IS DISTINCT FROM (c.book, c.currency))
UNION ALL
SELECT c.id, 'is of ' || c.entity || ', its book of ' || coalesce(b.entity, 'nobody')
  FROM gateway.contract c
  LEFT JOIN ledger.book b ON b.id = c.book
 WHERE b.entity IS DISTINCT FROM c.entity
"""
CONTRACTS_INCOMPLETE: Final = """
SELECT c.id AS subject, 'has no place in the tree' AS detail FROM gateway.contract c
 WHERE NOT EXISTS (SELECT 1 FROM gateway.contract_edge e WHERE e.contract_id = c.id)
UNION ALL
SELECT c.id, 'has no plan' FROM gateway.contract c
 WHERE NOT EXISTS (SELECT 1 FROM gateway.contract_terms t WHERE t.contract_id = c.id)
UNION ALL
SELECT c.id, 'is of a partner who does not exist' FROM gateway.contract c
 WHERE NOT EXISTS (SELECT 1 FROM gateway.partner p WHERE p.id = c.partner_id)
UNION ALL
SELECT t.contract_id, 'plan ' || t.plan || ' was never published'
  FROM gateway.contract_terms t
 WHERE NOT EXISTS (SELECT 1 FROM ledger.plan_version v WHERE v.plan = t.plan)
"""
# Every version of a plan that was in force while a contract was on it, if only for a moment: its numbers
# were paid in the contract's currency.
PLANS_OFF_CURRENCIES: Final = """
WITH version AS (
    SELECT id, plan, body->>'currency' AS currency, since,
           lead(since, 1, 'infinity') OVER (PARTITION BY plan ORDER BY since, id) AS until
      FROM ledger.plan_version
), terms AS (
    SELECT contract_id, plan, since,
           lead(since, 1, 'infinity') OVER (PARTITION BY contract_id ORDER BY since) AS until
      FROM gateway.contract_terms
)
SELECT t.contract_id AS subject,
       'is in ' || coalesce(c.currency, 'nothing') || ', its plan ' || t.plan || ' in ' || v.currency
           || ' by version ' || v.id || ' since ' || v.since AS detail
  FROM terms t
  LEFT JOIN gateway.contract c ON c.id = t.contract_id
  JOIN version v ON v.plan = t.plan AND v.since < t.until AND v.until > t.since
 WHERE v.currency IS DISTINCT FROM c.currency
"""
# A row that bears a version which its book's inputs have not reached: accrual may have missed it.
INPUTS_BEHIND: Final = """
SELECT r.id AS subject, 'made inputs ' || r.inputs || ', book ' || r.book || ' is at '
           || coalesce(i.version::text, 'none') AS detail
  FROM (SELECT id, book, inputs FROM gateway.contract
        UNION ALL SELECT contract_id, book, inputs FROM gateway.contract_edge
        UNION ALL SELECT contract_id, book, inputs FROM gateway.contract_terms
        UNION ALL SELECT client_id, book, inputs FROM gateway.attribution) r
  LEFT JOIN ledger.inputs i ON i.book_id = r.book
 WHERE r.inputs > coalesce(i.version, -1)
"""
CLIENTS_WITHOUT_ATTRIBUTION: Final = """
SELECT c.id AS subject, 'nothing says whom the client came through' AS detail
  FROM gateway.client c
 WHERE NOT EXISTS (SELECT 1 FROM gateway.attribution a WHERE a.client_id = c.id)
"""
ATTRIBUTIONS_ASTRAY: Final = """
SELECT a.client_id AS subject,
       'in book ' || a.book || ', through ' || a.contract_id || ' in book '
           || coalesce(k.book::text, 'none') || ', the client in '
           || coalesce(c.book::text, 'none') AS detail
  FROM gateway.attribution a
  LEFT JOIN gateway.client c ON c.id = a.client_id
  LEFT JOIN gateway.contract k ON k.id = a.contract_id
 WHERE a.book IS DISTINCT FROM c.book
    OR (a.contract_id <> '' AND (k.book, k.brand) IS DISTINCT FROM (c.book, c.brand))
"""
# Each row that was not made with its client is one that two people agreed to, and is as they did.
ATTRIBUTIONS_UNAPPROVED: Final = """
SELECT coalesce(a.client_id, h.client_id) AS subject,
       CASE WHEN h.id IS NULL THEN 'changed at ' || a.since || ', and nothing says who agreed'
            WHEN a.client_id IS NULL THEN h.id || ' is recorded and was never made'
            ELSE h.id || ' is not what was agreed to' END AS detail
  FROM (SELECT * FROM (SELECT client_id, since, contract_id, inputs,
                              row_number() OVER (PARTITION BY client_id ORDER BY since) AS place
                         FROM gateway.attribution) each WHERE place > 1) a
  FULL JOIN gateway.attribution_change h
    ON (h.client_id, h.effective, h.new_contract, h.inputs) = (a.client_id, a.since, a.contract_id, a.inputs)
  LEFT JOIN gateway.approval p ON p.id = h.approval
 WHERE h.id IS NULL OR a.client_id IS NULL
    OR (p.state = 'approved' AND p.kind = 'attribution.change' AND p.subject = h.client_id AND p.maker = h.asked_by
        AND p.votes = h.approved_by) IS NOT TRUE
"""

# -- what the database refuses; $1 the schemas ----------------------------------------------------

TRIGGERS: Final = """
SELECT t.tgname AS name, n.nspname || '.' || c.relname AS table_name,
       t.tgenabled::text AS enabled, pg_get_triggerdef(t.oid) AS definition
  FROM pg_trigger t
  JOIN pg_class c ON c.oid = t.tgrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY($1::text[]) AND NOT t.tgisinternal
"""
FUNCTIONS: Final = """
SELECT n.nspname || '.' || p.proname AS name, p.prosrc AS body,
       p.prosecdef OR p.proconfig IS NOT NULL AS altered
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = ANY($1::text[])
"""
# What the daemon's role may do by whatever way: granted to it, to everyone, to a role it is in, or
# because it owns the table or is a superuser.
RIGHTS: Final = """
WITH relation AS (
    SELECT c.oid, n.nspname || '.' || c.relname AS name, c.relowner
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY($1::text[]) AND c.relkind IN ('r', 'p')
)
SELECT name AS table_name, w.right_name AS privilege, '' AS column_name
  FROM relation,
       unnest(ARRAY['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger'])
       AS w (right_name)
 WHERE has_table_privilege('brokerd_daemon', oid, w.right_name)
UNION ALL
SELECT r.name, w.right_name, a.attname
  FROM relation r
  JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
 CROSS JOIN unnest(ARRAY['select', 'insert', 'update', 'references']) AS w (right_name)
 WHERE has_column_privilege('brokerd_daemon', r.oid, a.attnum, w.right_name)
   AND NOT has_table_privilege('brokerd_daemon', r.oid, w.right_name)
UNION ALL
SELECT name, 'own', '' FROM relation WHERE pg_has_role('brokerd_daemon', relowner, 'MEMBER')
UNION ALL
SELECT schema, 'create', '' FROM unnest($1::text[]) AS s (schema)
 WHERE has_schema_privilege('brokerd_daemon', schema, 'create')
"""
