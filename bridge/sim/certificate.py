"""A throw-away certificate for a simulator on the loopback interface, and the authority behind it.

Knows how to make three files. Refuses to be used for anything that others can reach.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import trustme


class Certificate(msgspec.Struct, frozen=True):
    """PEM files: the server's certificate chain and key, and the authority its clients believe."""

    certificate: Path
    key: Path
    authority: Path


def make_certificate(folder: Path) -> Certificate:
    """Write a new certificate for localhost, 127.0.0.1 and ::1 into a folder; the key is 0600."""
    made = Certificate(folder / "server.pem", folder / "server.key", folder / "authority.pem")
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1", "::1")
    made.key.touch(mode=0o600)
    made.key.chmod(0o600)
    issued.private_key_pem.write_to_path(made.key)
    made.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(made.authority)
    return made
