"""Tests of the flows' pure decisions."""
