"""Payments: which PSP may take one, what each attempt became, and what may follow a failure.

It knows intents, rules, attempts and their outcomes. It refuses to know the bridge, and books
nothing: an outcome is returned, and the gateway's flows write it to the ledger.
"""
