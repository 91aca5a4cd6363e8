"""Pages for people: the partner's page as HTML, its scripts and styles.

Knows how values look on a screen. Refuses to fetch any: handlers hand them in.
"""
