"""What the second request with a key may hear, and how a request is told from another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.control.idempotency import (
    Abandoned,
    Answer,
    Idem,
    InFlight,
    OtherBody,
    Replay,
    Stored,
    Verdict,
    decide,
    replay_or_refuse,
    stored,
)
from gateway.control.refusals import Refusal
from gateway.http.idempotency import fingerprint, read_key

AT = datetime(2026, 1, 1, tzinfo=UTC)
IDEM = Idem("shop", "k", b"f")
ANSWER = Answer(201, b"{}", "/v1/x")


def held(answer: Answer | None = None, fingerprint: bytes = b"f", until: datetime = AT) -> Stored:
    """What the table holds."""
    return Stored(fingerprint, "PY1", 1, "/v1/x", answer, until)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (held(ANSWER), Replay(ANSWER)),
        (held(ANSWER, b"other"), OtherBody()),
        (held(None, b"other"), OtherBody()),
        (held(until=AT + timedelta(seconds=1)), InFlight("/v1/x")),
        (held(until=AT), Abandoned("PY1", 1, "/v1/x")),
    ],
)
def test_the_second_request_hears_what_became_of_the_first(found: Stored, verdict: Verdict) -> None:
    """Another body is told before anything else: a finished answer is never another's."""
    assert decide(IDEM, found, AT) == verdict


def test_a_request_in_flight_is_refused_with_its_location() -> None:
    """409 points at the object that exists already."""
    with pytest.raises(Refusal) as no:
        replay_or_refuse(IDEM, held(until=AT + timedelta(seconds=1)), AT)

    assert (no.value.code, no.value.facts["location"]) == ("idempotency-in-flight", "/v1/x")


def test_a_claim_without_an_answer_is_read_as_unanswered() -> None:
    """A row of the table becomes what the decision reads."""
    row = {
        "fingerprint": b"f", "subject": "PY1", "version": 2, "location": "/l", "status": None,
        "body": None, "answering_until": AT,
    }  # fmt: skip

    assert stored(row) == Stored(b"f", "PY1", 2, "/l", None, AT)
    assert stored(row | {"status": 202, "body": b"x"}).answer == Answer(202, b"x", "/l")


def test_fingerprints_tell_method_path_and_body_apart() -> None:
    """No two of them may run together."""
    prints = {
        fingerprint("POST", "/a", b"b"),
        fingerprint("POST", "/a", b""),
        fingerprint("POST", "/ab", b""),
        fingerprint("POST", "/a\nb", b""),
        fingerprint("PUT", "/a", b"b"),
    }
    assert len(prints) == 5


@pytest.mark.parametrize("key", ["", " ", "a b", "ä", "x" * 129, "tab\t"])
def test_a_malformed_key_is_refused(key: str) -> None:
    """A key is 1 to 128 visible ASCII characters."""
    with pytest.raises(Refusal) as no:
        read_key(key)
    assert no.value.code == "idempotency-key-malformed"


def test_callers_do_not_share_keys() -> None:
    """The table's key leads with the caller, whose name holds no colon."""
    assert Idem("a", "b:c", b"").claim_key != Idem("b", "c", b"").claim_key
