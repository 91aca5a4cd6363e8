"""The SQL of the audit: its records, their seals and the anchors. Knows these tables and no others."""

from __future__ import annotations

from typing import Final

INSERT_AUDIT: Final = """
INSERT INTO gateway.audit (id, at, actor, role, on_behalf_of, command, subject, before, after, reason, correlation, key_id,
                           session, grant_id, approvals, entity, brand, client, contract)
SELECT u.id, u.at, u.actor, u.role, u.on_behalf_of, u.command, u.subject, u.before::jsonb, u.after::jsonb, u.reason, u.correlation,
       u.key_id, u.session, u.grant_id, string_to_array(u.approvals, ','), u.entity, u.brand, u.client, u.contract
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[])
     AS u(id, at, actor, role, on_behalf_of, command, subject, before, after, reason, correlation, key_id,
          session, grant_id, approvals, entity, brand, client, contract)
"""

# --- the chain ----------------------------------------------------------------------------------

# The end of the chain is the cursor. Rows that were copied into a server whose own count of transactions is lower bear
# numbers from elsewhere: `above` says that the cursor is one of those, `copied` that there are any.
SEAL_HEAD: Final = """
SELECT coalesce(s.no, 0) AS no, coalesce(s.audit_id, '') AS audit_id, coalesce(s.xid, '0'::xid8)::text AS xid,
       coalesce(s.hash, decode(repeat('00', 32), 'hex')) AS hash,
       coalesce(s.xid >= pg_snapshot_xmax(pg_current_snapshot()), false) AS above,
       coalesce(s.xid < (SELECT m.xid FROM gateway.audit_seal m ORDER BY m.xid DESC LIMIT 1), false) AS copied
  FROM (SELECT 1) one LEFT JOIN (SELECT * FROM gateway.audit_seal ORDER BY no DESC LIMIT 1) s ON true
"""

_RECORD: Final = """
       a.id, a.at, a.actor, a.role, a.on_behalf_of, a.command, a.subject, a.before::text AS before, a.after::text AS after,
       a.reason, a.correlation, a.key_id, a.session, a.grant_id, a.approvals, a.entity, a.brand, a.client, a.contract
"""

# For the transaction: the next records are read along their index, however many wait and whatever the server believes of
# the tables. Sorting all that wait to seal some would make a backlog last.
SEAL_PLANS: Final = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)
"""

# What may be sealed: past the cursor ($1, $2), and below every transaction that could still bring a record; with $3 what
# came along in a copy instead. Only with $4 it is looked up what has a seal already: the cursor says so otherwise.
UNSEALED: Final = f"""
SELECT {_RECORD}, a.xid::text AS xid
  FROM gateway.audit a
 WHERE (a.xid, a.id) > ($1::text::xid8, $2)
   AND CASE WHEN $3 THEN a.xid >= pg_snapshot_xmax(pg_current_snapshot()) ELSE a.xid < pg_snapshot_xmin(pg_current_snapshot()) END
   AND CASE WHEN $4 THEN NOT EXISTS (SELECT FROM gateway.audit_seal s WHERE s.audit_id = a.id) ELSE true END
 ORDER BY a.xid, a.id LIMIT $5
"""

# $10 is the owner's epoch: nothing is written by one who lost it, and a new one waits for this commit.
INSERT_SEALS: Final = """
WITH still AS (
    SELECT FROM gateway.owner o WHERE o.name || '@' || o.epoch = $10 FOR SHARE OF o)
INSERT INTO gateway.audit_seal (no, audit_id, xid, hash, sealed, at, actor, subject, client)
SELECT u.no, u.audit_id, u.xid::xid8, u.hash, u.sealed, u.at, u.actor, u.subject, u.client
  FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::text[], $9::text[])
       AS u(no, audit_id, xid, hash, sealed, at, actor, subject, client)
 WHERE EXISTS (SELECT FROM still)
"""

# How far the seal is: records, and the seconds that the oldest one past the cursor has waited.
SEAL_LAG: Final = """
WITH head AS (SELECT no, xid, audit_id FROM gateway.audit_seal ORDER BY no DESC LIMIT 1),
     waits AS (SELECT a.at FROM gateway.audit a
                WHERE (a.xid, a.id) > (coalesce((SELECT xid FROM head), '0'::xid8), coalesce((SELECT audit_id FROM head), ''))
                ORDER BY a.xid, a.id LIMIT 1)
SELECT coalesce((SELECT no FROM head), 0) AS records, (SELECT at FROM waits) AS oldest,
       (SELECT at FROM gateway.audit_anchor ORDER BY no DESC LIMIT 1) AS anchored
"""

# --- anchors ------------------------------------------------------------------------------------

LAST_ANCHOR: Final = """
SELECT no, count, head, at FROM gateway.audit_anchor ORDER BY no DESC LIMIT 1
"""

INSERT_ANCHOR: Final = """
WITH still AS (
    SELECT FROM gateway.owner o WHERE o.name || '@' || o.epoch = $7 FOR SHARE OF o)
INSERT INTO gateway.audit_anchor (no, count, head, at, signer, signature)
SELECT $1, $2, $3, $4, $5, $6 WHERE EXISTS (SELECT FROM still)
"""

SEAL_HASH: Final = """
SELECT hash FROM gateway.audit_seal WHERE no = $1
"""

# --- exports ------------------------------------------------------------------------------------

# $1 from and $2 to (null: no limit), $3 person, $4 subject, $5 client ('' is anybody, anything).
_ASKED: Final = """
       ($1::timestamptz IS NULL OR s.at >= $1) AND ($2::timestamptz IS NULL OR s.at < $2)
   AND ($3 = '' OR s.actor = $3) AND ($4 = '' OR s.subject = $4) AND ($5 = '' OR s.client = $5)
"""

# The stretches of the chain that hold what was asked for, each from one anchor to another; null: to the end.
STRETCHES: Final = f"""
SELECT DISTINCT coalesce((SELECT max(a.count) FROM gateway.audit_anchor a WHERE a.count < s.no), 0) AS low,
       (SELECT min(a.count) FROM gateway.audit_anchor a WHERE a.count >= s.no) AS high
  FROM gateway.audit_seal s WHERE {_ASKED} ORDER BY low
"""

# Each sealed record of a stretch beside the record that bears its id now; one that is gone is nulls.
SEALED: Final = f"""
SELECT s.no, s.hash, {_ASKED} AS asked, {_RECORD}
  FROM gateway.audit_seal s LEFT JOIN gateway.audit a ON a.id = s.audit_id
 WHERE s.no > $6 AND s.no <= $7 ORDER BY s.no
"""

ANCHOR_BEFORE: Final = """
SELECT no, count, head, at FROM gateway.audit_anchor WHERE $1::timestamptz IS NULL OR at <= $1 ORDER BY no DESC LIMIT 1
"""

ANCHOR_AT: Final = """
SELECT head FROM gateway.audit_anchor WHERE count = $1 ORDER BY no LIMIT 1
"""

HEAD_OF_CHAIN: Final = """
SELECT no FROM gateway.audit_seal ORDER BY no DESC LIMIT 1
"""

# --- looking into it ----------------------------------------------------------------------------

# $1 to $5 as of an export, $6 the command or '', $7 a number to stay below or 0, $8 entities, $9 brands and $10 first
# words of commands, each joined by commas and '*' for all: a record is shown when one grant reaches it with all three.
SEARCH: Final = f"""
SELECT s.no, s.hash, {_RECORD}
  FROM gateway.audit_seal s JOIN gateway.audit a ON a.id = s.audit_id
 WHERE {_ASKED} AND ($6 = '' OR a.command = $6) AND ($7 = 0 OR s.no < $7)
   AND EXISTS (SELECT FROM unnest($8::text[], $9::text[], $10::text[]) AS g(entities, brands, words)
                WHERE (g.entities = '*' OR a.entity = ANY(string_to_array(g.entities, ',')))
                  AND (g.brands = '*' OR a.brand = ANY(string_to_array(g.brands, ',')))
                  AND (g.words = '*' OR split_part(a.command, '.', 1) = ANY(string_to_array(g.words, ','))))
 ORDER BY s.no DESC LIMIT $11
"""

# --- what must agree ----------------------------------------------------------------------------

# Below the end of the chain every record has a seal, and a seal is looked up by what its record says.
RECORDS_UNSEALED: Final = """
WITH head AS (SELECT xid, audit_id FROM gateway.audit_seal ORDER BY no DESC LIMIT 1)
SELECT a.id AS subject, a.command || ' of ' || a.actor || ' stands below the end of the chain without a seal' AS detail
  FROM gateway.audit a, head
 WHERE (a.xid, a.id) <= (head.xid, head.audit_id)
   AND NOT EXISTS (SELECT FROM gateway.audit_seal s WHERE s.audit_id = a.id)
"""

SEALS_OFF_RECORDS: Final = """
SELECT s.no::text AS subject, 'is looked up by what ' || a.id || ' does not say' AS detail
  FROM gateway.audit_seal s JOIN gateway.audit a ON a.id = s.audit_id
 WHERE (s.at, s.actor, s.subject, s.client) IS DISTINCT FROM (a.at, a.actor, a.subject, a.client)
"""

ANCHORS_OFF_SEALS: Final = """
SELECT n.no::text AS subject, 'anchors ' || n.count || ' records of ' || n.at || ', which do not end like that' AS detail
  FROM gateway.audit_anchor n LEFT JOIN gateway.audit_seal s ON s.no = n.count
 WHERE n.count > 0 AND n.head IS DISTINCT FROM s.hash
"""
