"""The SQL of duties: what people decided, and exceptions of holding. Knows these tables only, never a person's rights."""

from __future__ import annotations

from typing import Final

# No ON CONFLICT: where the number is taken the statement fails aloud, in the lane and outside it.
CLAIM_ACT: Final = """
INSERT INTO gateway.act (person, place, no, action, subject, case_id, at, actor, role, grant_id, approval, correlation)
SELECT u.person, u.place, u.no, u.action, u.subject, u.case_id, u.at, u.actor, u.role, u.grant_id, u.approval, u.correlation
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::timestamptz[],
            $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
     AS u(key, person, place, no, action, subject, case_id, at, actor, role, grant_id, approval, correlation)
ORDER BY u.person, u.place, u.no
RETURNING person
"""

# A key is `no:person:place`; no person has a colon.
LOOK_ACT: Final = """
SELECT k.key, a.action
FROM unnest($1::text[]) AS k(key)
CROSS JOIN LATERAL (SELECT split_part(k.key, ':', 1) AS no, split_part(k.key, ':', 2) AS person) p
JOIN gateway.act a
  ON a.person = p.person AND a.no = p.no::bigint AND a.place = substr(k.key, length(p.no) + length(p.person) + 3)
"""

# One snapshot: the number of a person's last act at each place (action null), and of their acts there those that an
# act may not meet: $1 person, $2 place, $3 actions, or '' for none, done since $4 or standing for ever ($5). A few of
# them are enough: one refuses.
SELECT_HISTORY: Final = """
SELECT u.person, u.place, coalesce(a.no, 0) AS no, NULL AS action, '' AS subject, '' AS case_id, NULL::timestamptz AS at,
       '' AS actor
FROM (SELECT DISTINCT person, place FROM unnest($1::text[], $2::text[]) AS u(person, place)) u
LEFT JOIN LATERAL (
    SELECT no FROM gateway.act a WHERE a.person = u.person AND a.place = u.place ORDER BY a.no DESC LIMIT 1) a ON true
UNION ALL
SELECT u.person, u.place, a.no, a.action, a.subject, a.case_id, a.at, a.actor
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS u(person, place, actions, since)
CROSS JOIN LATERAL (
    SELECT * FROM gateway.act a
    WHERE a.place = u.place AND a.person = u.person AND a.action = ANY(string_to_array(u.actions, ','))
      AND (a.at >= u.since OR a.action = ANY($5::text[]))
    LIMIT 10) a
"""

# What is true of a person: $1 who, $2 the actions that say so. The newest word on each subject.
SELECT_TIES: Final = """
SELECT DISTINCT ON (action, subject) action, subject, at, actor FROM gateway.act
WHERE person = $1 AND action = ANY($2::text[]) AND place = subject ORDER BY action, subject, no DESC
"""

# --- holding ------------------------------------------------------------------------------------

INSERT_EXCEPTION: Final = """
INSERT INTO gateway.duty_exception (grant_id, conflict, person, since, until, approval, reason)
SELECT u.grant_id, u.conflict, u.person, u.since, u.until, u.approval, u.reason
FROM unnest($1::text[], $2::smallint[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[])
     AS u(grant_id, conflict, person, since, until, approval, reason)
"""

SELECT_EXCEPTIONS: Final = """
SELECT grant_id, conflict, person, since, until, approval, reason FROM gateway.duty_exception
WHERE until > $1 AND since < $2 AND ($3 = '' OR person = $3) ORDER BY since, grant_id, conflict
"""

# One giver of roles to a person at a time: who comes second sees what the first gave.
HOLD_PERSON: Final = """
SELECT pg_advisory_xact_lock(hashtextextended('gateway.access_grant:' || $1, 0))
"""

# --- the report ---------------------------------------------------------------------------------

# In all of these: $1 since, $2 until, $3 the subject, or '' for all. An act is one row here, that of its subject.
COUNT_ACTS: Final = """
SELECT count(*) AS acts, count(DISTINCT person) AS people, count(DISTINCT subject) AS subjects
FROM gateway.act WHERE at >= $1 AND at < $2 AND ($3 = '' OR subject = $3) AND place = subject
"""

COUNT_ENDS: Final = """
SELECT DISTINCT action, person
FROM gateway.act WHERE at >= $1 AND at < $2 AND ($3 = '' OR subject = $3) AND place = subject
"""

# $4 actions, $5 what each may not meet on its subject, $6 in its case, $7 the window of a subject, $8 what stands for ever.
SELECT_VIOLATIONS: Final = """
SELECT a.person, a.action, a.subject, a.case_id, a.at, a.actor,
       e.action AS met, e.subject AS met_subject, e.case_id AS met_case, e.at AS met_at, e.actor AS met_actor
FROM gateway.act a
JOIN unnest($4::text[], $5::text[], $6::text[]) AS b(action, here, there) ON b.action = a.action
CROSS JOIN LATERAL (
    SELECT * FROM gateway.act e
    WHERE e.place = a.place AND e.person = a.person AND e.no < a.no
      AND (a.place = a.subject AND e.subject = a.subject AND e.action = ANY(string_to_array(b.here, ','))
           AND (e.at >= a.at - $7::interval OR e.action = ANY($8::text[]))
        OR a.place = a.case_id AND e.case_id = a.case_id AND e.action = ANY(string_to_array(b.there, ',')))) e
WHERE a.at >= $1 AND a.at < $2 AND ($3 = '' OR a.subject = $3)
ORDER BY a.at, a.person, a.place, a.no, e.no
"""
