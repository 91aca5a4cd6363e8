"""The rules of the house as tests: what is written here stays true, what is not is gone in a year.

They know the text and the shape of the tree. They refuse to know what the product does, and start
no server, so that they run in seconds.
"""
