"""The books: double entry, balances that carry their history, and proof that they agree.

It knows money, accounts, entries and facts. It refuses to know payments, platforms and HTTP,
and imports nothing but the shape of the configuration.
"""
