"""The challenge and response, against published and recomputed vectors."""

from __future__ import annotations

import pytest

from bridge.mt5.auth import challenge_answer, password_hash, read_hex, server_is_genuine

VECTORS = [
    ("Password1", "904ba8ecb16273d2f0ae9c3b8a023752",
     "73007dc7184747ce0f7c98516ef1c851", "77fe51827f7fa69dd80fbec9aa33f1bb"),
    ("Password1", "904ba8ecb16273d2f0ae9c3b8a023752",
     "4db98fec17aab4dc5a240bdc659e8395", "1732021b1b332f51660b2b315eed3a35"),
    ("S3cret!Pass", "784c92362c0a273c2d24c8490f7cd744",
     "00112233445566778899aabbccddeeff", "4f6502afc9c7341146da25398698740c"),
    ("Пароль#1a", "8f419661976def1284d5116e41375bf1",
     "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "21755894da643ce26421a005409b67ab"),
]  # fmt: skip


@pytest.mark.parametrize(("password", "hashed", "rand", "answer"), VECTORS)
def test_the_golden_vectors(password: str, hashed: str, rand: str, answer: str) -> None:
    """The hash chain runs over raw bytes and UTF-16LE, as the protocol's own example shows."""
    assert password_hash(password).hex() == hashed
    assert challenge_answer(bytes.fromhex(hashed), bytes.fromhex(rand)).hex() == answer
    assert server_is_genuine(bytes.fromhex(hashed), bytes.fromhex(rand), bytes.fromhex(answer))


def test_another_answer_is_not_genuine() -> None:
    """One changed bit in the server's proof is a server that does not know the password."""
    hashed, rand = password_hash("Password1"), bytes(16)
    proof = bytearray(challenge_answer(hashed, rand))
    proof[0] ^= 1
    assert not server_is_genuine(hashed, rand, bytes(proof))


@pytest.mark.parametrize("text", ["", "00" * 15, "00" * 17, "zz" * 16, "0"])
def test_a_challenge_is_sixteen_bytes(text: str) -> None:
    """Anything but sixteen bytes of hex is refused."""
    with pytest.raises(ValueError, match=r"bytes|hex"):
        read_hex(text)


def test_hex_of_either_case_is_read() -> None:
    """Servers write upper or lower case."""
    assert read_hex("AB" * 16) == read_hex("ab" * 16)
