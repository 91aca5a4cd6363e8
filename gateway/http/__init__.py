"""The HTTP API: decode, call one flow, encode.

It knows routes, credentials, limits and the shape of problems. It refuses to decide anything
about money and never touches a table of another room.
"""
