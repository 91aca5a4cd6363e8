"""Benchmarks: one table and one JSON of figures, each beside a limit measured in the same minutes.

They know how to start servers of their own and how to measure. They refuse to be shipped: the wheel
does not hold them.
"""
