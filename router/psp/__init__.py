"""Payment providers on their own wire: requests out, answers and verified webhooks in.

It knows each provider's words and translates them into the router's outcomes. It refuses to
choose a provider and never repeats a charge on its own.
"""
