"""Clients as values: states, moves, what each permits."""
