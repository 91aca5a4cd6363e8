"""Rules of the router's pure parts."""
