"""The SQL of partners' links and sessions. Knows digests only: no token is ever stored."""

from __future__ import annotations

from typing import Final

INSERT_VISIT: Final = """
INSERT INTO gateway.partner_session (digest, partner_id, purpose, expires, created) VALUES ($1, $2, $3, $4, $5)
"""

# Whoever moves the row has used the link; a second one finds it used.
USE_LINK: Final = """
UPDATE gateway.partner_session SET used = $3
 WHERE digest = $1 AND partner_id = $2 AND purpose = 'link' AND used IS NULL AND expires > $3
   AND EXISTS (SELECT FROM gateway.partner p WHERE p.id = partner_id AND p.state = 'active')
RETURNING partner_id
"""

# The same without using it.
SELECT_LINK: Final = """
SELECT partner_id FROM gateway.partner_session
 WHERE digest = $1 AND partner_id = $2 AND purpose = 'link' AND used IS NULL AND expires > $3
   AND EXISTS (SELECT FROM gateway.partner p WHERE p.id = partner_id AND p.state = 'active')
"""

SELECT_SESSION: Final = """
SELECT partner_id, expires FROM gateway.partner_session
 WHERE digest = $1 AND purpose = 'session' AND expires > $2
   AND EXISTS (SELECT FROM gateway.partner p WHERE p.id = partner_id AND p.state = 'active')
"""

END_SESSION: Final = """
DELETE FROM gateway.partner_session WHERE digest = $1 AND purpose = 'session' RETURNING partner_id
"""

# Links before sessions, each in a statement of its own: whoever is using a link holds its row, so the
# second statement begins when the session that this opened can be seen.
END_LINKS: Final = """
DELETE FROM gateway.partner_session WHERE partner_id = $1 AND purpose = 'link'
"""

END_SESSIONS: Final = """
DELETE FROM gateway.partner_session WHERE partner_id = $1 AND purpose = 'session'
"""

PURGE_VISITS: Final = """
DELETE FROM gateway.partner_session
 WHERE digest = ANY(ARRAY(SELECT digest FROM gateway.partner_session WHERE expires <= $1 ORDER BY expires LIMIT $2))
"""
