"""Tests of the flows on a real database and lane."""
