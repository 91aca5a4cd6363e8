"""The journeys: a room's outcome, the journal, the outbox and the audit in one unit of work.

It knows the order of the steps and which of them share a transaction. It refuses to know HTTP
above it and the wires of peers below it.
"""
