"""What partners earn: from landed deals to lines, postings and explanations that agree.

It knows plans, chains, rounding and lines. It refuses to know clients, platforms and HTTP.
"""
