"""The test ground: servers, proxies and simulated peers that tests start and stop.

It knows how to stand up a house and break it on purpose. It asserts nothing: the rules are in
the tests.
"""
