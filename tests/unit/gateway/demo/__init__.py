"""Rules of the demo that need no servers."""
