"""Pages as values: HTML from figures and lines, files by their hashes."""
