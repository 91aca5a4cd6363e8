"""The MT5 Web API: codecs and authentication without I/O, then the transport under them.

It knows bytes, retcodes and the platform's own units. It refuses to know why an operation is
wanted or when it may be repeated.
"""
