"""A platform server that can be told to misbehave, reached over the real wire like any other.

It knows only what a platform knows: accounts, deals, its clock and its own book. It refuses to
know brokerd, which cannot import it.
"""
