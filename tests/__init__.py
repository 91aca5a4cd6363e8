"""The proof: unit, integration, scenarios and the rules of the house.

It knows the product through the doors that users have. It never holds code that the product
imports.
"""
