"""A payment provider that can be told to misbehave, reached over the real wire like any other.

It knows only what a provider knows: charges, its own book and its webhooks. It refuses to know
brokerd, which cannot import it.
"""
