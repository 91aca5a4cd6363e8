"""Every statement of the books; nothing else in the package speaks SQL but migrations.

Knows the tables of schema `ledger` only. Refuses to know what the rows mean.
"""

from __future__ import annotations

from typing import Final

# -- the lane -----------------------------------------------------------------------------------

# An account and its balance appear together or not at all: one statement, whoever is killed.
OPEN_ACCOUNTS: Final = """
WITH opened AS (
    INSERT INTO ledger.account (book_id, kind, owner, currency)
    SELECT book_id, kind, owner, currency
      FROM unnest($1::smallint[], $2::smallint[], $3::text[], $4::text[])
           AS u (book_id, kind, owner, currency)
    ON CONFLICT DO NOTHING
    RETURNING book_id, id, kind
)
INSERT INTO ledger.balance (book_id, account_id, sign, floor)
SELECT opened.book_id, opened.id, chart.sign, chart.floor
  FROM opened
  JOIN (SELECT DISTINCT kind, sign, floor
          FROM unnest($2::smallint[], $5::smallint[], $6::bigint[]) AS u (kind, sign, floor)) chart
 USING (kind)
"""

FIND_ACCOUNTS: Final = """
SELECT book_id, kind, owner, currency, a.id
  FROM unnest($1::smallint[], $2::smallint[], $3::text[], $4::text[])
       AS u (book_id, kind, owner, currency)
  JOIN ledger.account a USING (book_id, kind, owner, currency)
"""

# Locks in one order for every writer, and reads each balance as it stands under its lock.
LOCK_BALANCES: Final = """
SELECT b.book_id, b.account_id, b.posted, b.version, b.changed
  FROM ledger.balance b
  JOIN unnest($1::smallint[], $2::bigint[]) AS u (book_id, account_id)
    ON b.book_id = u.book_id AND b.account_id = u.account_id
 ORDER BY b.book_id, b.account_id
   FOR UPDATE OF b
"""

# Entries, balances, postings and the lane's number in one round trip. The clock is read here,
# after the locks are held. When a key turns out to be taken nothing else is written and the caller
# rolls back. The trigger on posting fires when all of it has been written. `statements.py` puts
# the rooms' parts beside these.
BOOKS_PARTS: Final = """
clock AS MATERIALIZED (
    SELECT greatest(clock_timestamp(), $1::timestamptz) AS recorded
), lane AS (
    UPDATE ledger.lane l SET batch = $22, seen = clock.recorded
      FROM clock WHERE l.id = $21::text AND l.batch = $22::bigint - 1
    RETURNING 1
), entries AS (
    INSERT INTO ledger.entry (book_id, id, kind, key, content, effective, recorded, ref, postings,
                              approval, maker, checker)
    SELECT u.book_id, u.id, u.kind, u.key, u.content, u.effective, clock.recorded, u.ref,
           u.postings, u.approval, u.maker, u.checker
      FROM clock, unnest($2::smallint[], $3::bigint[], $4::smallint[], $5::text[], $6::bytea[],
                         $7::date[], $8::text[], $9::smallint[], $23::text[], $24::text[],
                         $25::text[])
           AS u (book_id, id, kind, key, content, effective, ref, postings, approval, maker,
                 checker)
    ON CONFLICT DO NOTHING
    RETURNING 1
), whole AS MATERIALIZED (
    SELECT count(*) = cardinality($3::bigint[]) AS written FROM entries
), balances AS (
    UPDATE ledger.balance b
       SET posted = u.posted, version = u.version, changed = clock.recorded
      FROM clock, whole, unnest($10::smallint[], $11::bigint[], $12::bigint[], $13::bigint[])
           AS u (book_id, account_id, posted, version)
     WHERE whole.written AND b.book_id = u.book_id AND b.account_id = u.account_id
), postings AS (
    INSERT INTO ledger.posting (book_id, entry_id, seq, account_id, version, amount, balance)
    SELECT u.* FROM whole, unnest($14::smallint[], $15::bigint[], $16::smallint[], $17::bigint[],
                                  $18::bigint[], $19::bigint[], $20::bigint[]) AS u
     WHERE whole.written
)
"""
BOOKS_ANSWER: Final = "clock.recorded, whole.written, EXISTS (SELECT FROM lane) AS advanced"
BOOKS_SOURCE: Final = "FROM clock, whole"
WRITE_BOOKS: Final = f"WITH {BOOKS_PARTS} SELECT {BOOKS_ANSWER} {BOOKS_SOURCE}"

# A lane's number moves by one in each commit; another lane of the same name would break the chain.
LANE_PARTS: Final = """
lane AS (
    UPDATE ledger.lane l SET batch = $2, seen = clock_timestamp()
     WHERE l.id = $1::text AND l.batch = $2::bigint - 1
    RETURNING 1
)
"""
LANE_ANSWER: Final = """
NULL::timestamptz AS recorded, true AS written, EXISTS (SELECT FROM lane) AS advanced
"""
TOUCHED: Final = "(SELECT count(*) FROM k{n}) AS n{n}"

LOCKED_ROWS: Final = """
(SELECT {n} AS part, key::text AS key, {version} AS version, NULL::smallint AS book_id,
       NULL::bigint AS account_id, NULL::bigint AS posted, NULL::timestamptz AS changed
  FROM k{n})
"""
LOCKED_ACCOUNTS: Final = """
(SELECT {n}, NULL, version, book_id, account_id, posted, changed FROM accounts)
"""

ENTRY_IDS: Final = "SELECT nextval('ledger.entry_id')"

FIND_ENTRIES: Final = """
SELECT e.book_id, e.kind, e.key, e.id, e.content
  FROM unnest($1::smallint[], $2::smallint[], $3::text[]) AS u (book_id, kind, key)
  JOIN ledger.entry e USING (book_id, kind, key)
"""

# Opens the lane's row, or waits for a transaction of ours that the server is still ending and tells
# how far it came.
LANE_REACHED: Final = """
INSERT INTO ledger.lane (id, batch) VALUES ($1, 0)
ON CONFLICT (id) DO UPDATE SET seen = clock_timestamp()
RETURNING batch
"""
CLOSE_LANE: Final = "DELETE FROM ledger.lane WHERE id = $1 OR seen < now() - interval '7 days'"

# Plans that were made while tables were small are made anew at their next use.
FORGET_PLANS: Final = "DISCARD PLANS"

# A setting that only newer servers know cannot be asked for when the connection opens.
LIMIT_TRANSACTION: Final = "SELECT set_config('transaction_timeout', $1, false)"

OPEN_BOOKS: Final = """
INSERT INTO ledger.book (id, entity, currency)
SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING
"""
BOOKS: Final = "SELECT id, entity, currency FROM ledger.book ORDER BY id"

# -- holds and facts ----------------------------------------------------------------------------

PLACE_HOLD: Final = """
INSERT INTO ledger.hold (id, book_id, client_id, currency, amount, state, placed)
SELECT u.id, u.book_id, u.client_id, u.currency, u.amount, 'open', u.placed
  FROM unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[])
       AS u (id, book_id, client_id, currency, amount, placed)
"""
LOOK_HOLDS: Final = """
SELECT id, version FROM ledger.hold WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""
END_HOLD: Final = """
UPDATE ledger.hold h SET state = u.state, version = h.version + 1
  FROM unnest($1::text[], $2::bigint[], $3::text[]) AS u (id, expected, state)
 WHERE h.id = u.id
"""

STORE_FACT: Final = """
INSERT INTO ledger.fact (kind, subject, body)
SELECT u.kind, u.subject, u.body::jsonb
  FROM unnest($1::text[], $2::text[], $3::text[]) AS u (kind, subject, body)
"""
TELL_FACT: Final = """
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
        AS u (kind, subject, body, readers)
), facts AS (
    INSERT INTO ledger.fact (kind, subject, body)
    SELECT kind, subject, body::jsonb FROM given
    RETURNING id, kind
)
INSERT INTO ledger.fact_work (fact_id, reader)
SELECT DISTINCT facts.id, r.reader
  FROM facts JOIN given USING (kind),
       LATERAL unnest(string_to_array(given.readers, ',')) AS r (reader)
"""
CLAIM_FACTS: Final = """
WITH claimed AS (
    SELECT fact_id, reader FROM ledger.fact_work WHERE reader = $1
     ORDER BY fact_id LIMIT $2 FOR UPDATE SKIP LOCKED
), done AS (
    DELETE FROM ledger.fact_work w USING claimed c
     WHERE w.fact_id = c.fact_id AND w.reader = c.reader
)
SELECT f.id, f.kind, f.subject, f.body, f.recorded
  FROM claimed c JOIN ledger.fact f ON f.id = c.fact_id ORDER BY f.id
"""

# -- reads --------------------------------------------------------------------------------------

# A commit may wait for the disk longer than any limit on its transaction: while one that has written
# is still open, the books are closed only up to its beginning.
HORIZON: Final = """
SELECT least(
    clock_timestamp() - make_interval(secs => $1),
    (SELECT min(xact_start) - interval '1 microsecond' FROM pg_stat_activity
      WHERE datname = current_database() AND backend_xid IS NOT NULL)
)
"""

BALANCES: Final = """
SELECT a.book_id, a.id, a.kind, a.owner, a.currency, b.sign * b.posted AS balance, b.version
  FROM ledger.account a
  JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
 WHERE a.book_id = ANY($1::smallint[])
   AND ($2::smallint IS NULL OR a.kind = $2)
   AND ($3::text IS NULL OR a.owner = $3)
   AND a.id > $4
 ORDER BY a.id
 LIMIT $5
"""

BALANCES_AS_OF: Final = """
SELECT a.book_id, a.id, a.kind, a.owner, a.currency, b.sign * p.balance AS balance, p.version
  FROM ledger.account a
  JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
 CROSS JOIN LATERAL ledger.version_as_of(a.book_id, a.id, $6) AS v (version)
  JOIN ledger.posting p
    ON p.book_id = a.book_id AND p.account_id = a.id AND p.version = v.version
 WHERE a.book_id = ANY($1::smallint[])
   AND ($2::smallint IS NULL OR a.kind = $2)
   AND ($3::text IS NULL OR a.owner = $3)
   AND a.id > $4
 ORDER BY a.id
 LIMIT $5
"""

ENTRY: Final = """
SELECT book_id, id, kind, key, effective, recorded, ref
  FROM ledger.entry WHERE book_id = ANY($1::smallint[]) AND id = $2
"""
ENTRIES_OF_KEY: Final = """
SELECT book_id, id, kind, key, effective, recorded, ref
  FROM ledger.entry
 WHERE book_id = ANY($1::smallint[]) AND kind = ANY($5::smallint[]) AND key = $6
   AND id > $2 AND ($4::timestamptz IS NULL OR recorded <= $4)
 ORDER BY id LIMIT $3
"""
ENTRIES: Final = """
SELECT book_id, id, kind, key, effective, recorded, ref
  FROM ledger.entry
 WHERE book_id = ANY($1::smallint[]) AND id > $2 AND ($4::timestamptz IS NULL OR recorded <= $4)
 ORDER BY id LIMIT $3
"""
POSTINGS_OF: Final = """
SELECT p.entry_id, p.seq, a.kind, a.owner, a.currency, p.amount, p.version, b.sign * p.balance AS balance
  FROM unnest($1::smallint[], $2::bigint[]) AS u (book_id, entry_id)
  JOIN ledger.posting p ON p.book_id = u.book_id AND p.entry_id = u.entry_id
  JOIN ledger.account a ON a.book_id = p.book_id AND a.id = p.account_id
  JOIN ledger.balance b ON b.book_id = p.book_id AND b.account_id = p.account_id
 ORDER BY p.entry_id, p.seq
"""
STATEMENT: Final = """
SELECT p.entry_id, e.kind, e.key, e.ref, e.effective, e.recorded, p.amount, p.version,
       b.sign * p.balance AS balance
  FROM ledger.account a
  JOIN ledger.posting p ON p.book_id = a.book_id AND p.account_id = a.id
  JOIN ledger.entry e ON e.book_id = p.book_id AND e.id = p.entry_id
  JOIN ledger.balance b ON b.book_id = p.book_id AND b.account_id = p.account_id
 WHERE a.book_id = ANY($1::smallint[]) AND a.kind = $2 AND a.owner = $3 AND a.currency = $4
   AND p.version > $5
 ORDER BY p.version LIMIT $6
"""

# -- verify: each returns the rows that are wrong, with a subject and a detail -------------------

UNBALANCED_ENTRIES: Final = """
SELECT p.book_id || '/' || p.entry_id AS subject,
       sum(p.amount) || ' ' || coalesce(a.currency, 'on no account') AS detail
  FROM ledger.posting p
  LEFT JOIN ledger.account a ON a.book_id = p.book_id AND a.id = p.account_id
 GROUP BY p.book_id, p.entry_id, a.currency HAVING sum(p.amount) <> 0 OR a.currency IS NULL
"""
ENTRIES_WITHOUT_POSTINGS: Final = """
SELECT e.book_id || '/' || e.id AS subject,
       'says ' || e.postings || ' postings, has ' || coalesce(p.n, 0) AS detail
  FROM ledger.entry e
  LEFT JOIN (SELECT book_id, entry_id, count(*) AS n FROM ledger.posting GROUP BY 1, 2) p
    ON p.book_id = e.book_id AND p.entry_id = e.id
 WHERE coalesce(p.n, 0) <> e.postings
"""
ORPHAN_POSTINGS: Final = """
SELECT p.book_id || '/' || p.entry_id AS subject, 'posting without its entry' AS detail
  FROM ledger.posting p
  LEFT JOIN ledger.entry e ON e.book_id = p.book_id AND e.id = p.entry_id
 WHERE e.id IS NULL
"""
BALANCES_WITHOUT_POSTINGS: Final = """
SELECT b.book_id || '/' || b.account_id AS subject,
       'balance ' || b.posted || ' at version ' || b.version || ', postings say '
           || coalesce(p.total, 0) || ' at ' || coalesce(p.last, 0) AS detail
  FROM ledger.balance b
  LEFT JOIN (SELECT book_id, account_id, sum(amount) AS total, max(version) AS last
               FROM ledger.posting GROUP BY 1, 2) p USING (book_id, account_id)
 WHERE b.posted <> coalesce(p.total, 0) OR b.version <> coalesce(p.last, 0)
"""
BROKEN_CHAINS: Final = """
SELECT book_id || '/' || account_id AS subject,
       'version ' || version || ' after ' || last || ', balance ' || balance || ' after '
           || before || ' and ' || amount AS detail
  FROM (SELECT p.book_id, p.account_id, p.version, p.amount, p.balance, e.recorded,
               coalesce(lag(p.version) OVER w, 0) AS last,
               coalesce(lag(p.balance) OVER w, 0) AS before,
               lag(e.recorded) OVER w AS recorded_before
          FROM ledger.posting p
          JOIN ledger.entry e ON e.book_id = p.book_id AND e.id = p.entry_id
        WINDOW w AS (PARTITION BY p.book_id, p.account_id ORDER BY p.version)) chain
 WHERE version <> last + 1 OR balance <> before + amount OR recorded < recorded_before
"""
# The form of `journal.content`, computed from the rows.
ALTERED_ENTRIES: Final = """
SELECT e.book_id || '/' || e.id AS subject, 'it does not say what it said when it was booked' AS detail
  FROM ledger.entry e
  JOIN (SELECT p.book_id, p.entry_id,
               string_agg(' ' || a.kind || ' ' || char_length(a.owner) || ':' || a.owner || ' '
                          || a.currency || ' ' || p.amount, '' ORDER BY p.seq) AS sides
          FROM ledger.posting p
          JOIN ledger.account a ON a.book_id = p.book_id AND a.id = p.account_id
         GROUP BY p.book_id, p.entry_id) s ON s.book_id = e.book_id AND s.entry_id = e.id
 WHERE e.content <> substr(sha256(convert_to(
           e.book_id || ' ' || e.kind || ' ' || to_char(e.effective, 'YYYY-MM-DD') || ' '
           || char_length(e.key) || ':' || e.key || ' ' || char_length(e.ref) || ':' || e.ref
           || s.sides
           || coalesce(' ' || char_length(e.maker) || ':' || e.maker
                       || ' ' || char_length(e.checker) || ':' || e.checker, ''),
           'UTF8')), 1, 16)
"""
ACCOUNTS_OFF_CHART: Final = """
SELECT a.book_id || '/' || a.id AS subject, 'sign, floor or kind is not the chart''s' AS detail
  FROM ledger.account a
  LEFT JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
  LEFT JOIN unnest($1::smallint[], $2::smallint[], $3::bigint[]) AS c (kind, sign, floor)
    ON c.kind = a.kind
 WHERE (b.sign, b.floor) IS DISTINCT FROM (c.sign, c.floor) OR c.kind IS NULL
"""
BALANCES_BELOW_FLOOR: Final = """
SELECT book_id || '/' || account_id AS subject,
       sign * posted || ' stands below ' || floor AS detail
  FROM ledger.balance WHERE sign * posted < floor
"""
HOLDS_OFF_BOOKS: Final = """
SELECT coalesce(h.book_id, a.book_id) || '/' || coalesce(h.client_id, a.owner) AS subject,
       'open holds ' || coalesce(h.total, 0) || ', books ' || coalesce(a.balance, 0) AS detail
  FROM (SELECT book_id, client_id, currency, sum(amount) AS total
          FROM ledger.hold WHERE state = 'open' GROUP BY 1, 2, 3) h
  FULL JOIN (SELECT a.book_id, a.owner, a.currency, b.sign * b.posted AS balance
               FROM ledger.account a
               JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
              WHERE a.kind = $1) a
    ON a.book_id = h.book_id AND a.owner = h.client_id AND a.currency = h.currency
 WHERE coalesce(h.total, 0) <> coalesce(a.balance, 0)
"""
TRIGGERS: Final = """
SELECT t.tgname AS name, c.relname AS table_name, t.tgenabled::text AS enabled,
       pg_get_triggerdef(t.oid) AS definition
  FROM pg_trigger t
  JOIN pg_class c ON c.oid = t.tgrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'ledger' AND NOT t.tgisinternal
"""
FUNCTIONS: Final = """
SELECT p.proname AS name, p.prosrc AS body, p.prosecdef OR p.proconfig IS NOT NULL AS altered
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = 'ledger'
"""
CONSTRAINTS: Final = """
SELECT c.relname || '.' || k.conname AS name, pg_get_constraintdef(k.oid) AS definition
  FROM pg_constraint k
  JOIN pg_class c ON c.oid = k.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'ledger' AND k.contype IN ('p', 'u', 'c')
"""
# What the daemon's role may do by whatever way: granted to it, to everyone, to a role it is in, or
# because it owns the table or is a superuser.
GRANTS: Final = """
WITH relation AS (
    SELECT c.oid, c.relname, c.relowner
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'ledger' AND c.relkind IN ('r', 'p')
), whole AS (
    SELECT relname, oid, right_name
      FROM relation,
           unnest(ARRAY['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger'])
           AS r (right_name)
     WHERE has_table_privilege('brokerd_daemon', oid, right_name)
)
SELECT relname AS table_name, right_name AS privilege, '' AS column_name FROM whole
UNION ALL
SELECT r.relname, p.right_name, a.attname
  FROM relation r
  JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
 CROSS JOIN unnest(ARRAY['select', 'insert', 'update', 'references']) AS p (right_name)
 WHERE has_column_privilege('brokerd_daemon', r.oid, a.attnum, p.right_name)
   AND NOT has_table_privilege('brokerd_daemon', r.oid, p.right_name)
UNION ALL
SELECT relname, 'own', '' FROM relation WHERE pg_has_role('brokerd_daemon', relowner, 'MEMBER')
UNION ALL
SELECT '(schema)', 'create', '' WHERE has_schema_privilege('brokerd_daemon', 'ledger', 'create')
"""
