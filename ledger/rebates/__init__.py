"""What partners earn by the deals of those they brought.

It knows plans, chains, accrual and its lines. It refuses to know who partners are: contracts come
as values from whoever keeps them, and ids are all the books hold.
"""
