"""The SQL of duties: what people decided, and exceptions of holding. Knows these tables only, never a person's rights."""

from __future__ import annotations

from typing import Final

# No ON CONFLICT: where the number is taken the statement fails aloud, in the lane and outside it.
CLAIM_ACT: Final = """
INSERT INTO gateway.act (person, no, action, subject, case_id, at, actor, role, grant_id, approval, correlation)
SELECT u.person, u.no, u.action, u.subject, u.case_id, u.at, u.actor, u.role, u.grant_id, u.approval, u.correlation
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[],
            $9::text[], $10::text[], $11::text[], $12::text[])
     AS u(key, person, no, action, subject, case_id, at, actor, role, grant_id, approval, correlation)
ORDER BY u.person, u.no
RETURNING person
"""

# A key is `no:person`.
LOOK_ACT: Final = """
SELECT u.key, a.action FROM unnest($1::text[]) AS u(key)
JOIN gateway.act a ON a.no = split_part(u.key, ':', 1)::bigint AND a.person = substr(u.key, strpos(u.key, ':') + 1)
"""

# One snapshot: the number of each person's last act (action null), and what of their acts an act may not meet.
# $1 persons; $2 $3 $4 person, subject and actions to look for there, since $5 or for ever ($6); $7 $8 $9 the same of cases.
# A few of them are enough: one refuses.
SELECT_HISTORY: Final = """
SELECT p.person, coalesce(a.no, 0) AS no, NULL AS action, '' AS subject, '' AS case_id, NULL::timestamptz AS at, '' AS actor
FROM unnest($1::text[]) AS p(person)
LEFT JOIN LATERAL (SELECT no FROM gateway.act a WHERE a.person = p.person ORDER BY a.no DESC LIMIT 1) a ON true
UNION ALL
SELECT u.person, a.no, a.action, a.subject, a.case_id, a.at, a.actor
FROM unnest($2::text[], $3::text[], $4::text[]) AS u(person, subject, actions)
CROSS JOIN LATERAL (
    SELECT * FROM gateway.act a
    WHERE a.subject = u.subject AND a.person = u.person AND a.action = ANY(string_to_array(u.actions, ','))
      AND (a.at >= $5 OR a.action = ANY($6::text[]))
    LIMIT 10) a
UNION ALL
SELECT u.person, a.no, a.action, a.subject, a.case_id, a.at, a.actor
FROM unnest($7::text[], $8::text[], $9::text[]) AS u(person, case_id, actions)
CROSS JOIN LATERAL (
    SELECT * FROM gateway.act a
    WHERE a.case_id = u.case_id AND a.case_id <> '' AND a.person = u.person
      AND a.action = ANY(string_to_array(u.actions, ','))
    LIMIT 10) a
"""
