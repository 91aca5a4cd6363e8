"""HTTP as values: bodies, problems, fingerprints, limits, the description."""
