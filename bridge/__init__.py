"""Trading platforms: manager sessions kept alive, accounts created, balance operations made once.

It knows the platform's protocol and what an ambiguous answer allows. It refuses to know the
router, and books nothing: what a platform did is returned, and the gateway's flows write it to
the ledger.
"""
