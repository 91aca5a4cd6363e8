"""The people a broker answers for: clients, and the states that say what each of them may do.

It knows a person's state and its table of moves. It refuses to know payments, platforms and
balances, and keeps personal fields out of every row of the books.
"""
