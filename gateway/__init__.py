"""The doors and the joints: what others reach, and the flows between the rooms.

It knows how a request, a webhook or a sign of life becomes one unit of work over the router,
the bridge and the ledger. It refuses to know how a PSP signs, how a platform speaks, or how
money is booked.
"""
