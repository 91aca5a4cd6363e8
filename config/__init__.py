"""The shape of what is configured: process settings, the rulebook, logging.

It knows names, types, bounds and where each value was written. It refuses to know what a value
means to the room that uses it, and imports none of the rooms.
"""
