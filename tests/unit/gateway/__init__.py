"""The gateway's decisions without any server."""
