"""Bytes become values or a refusal that names the field; nothing else can come out."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.refusals import Refusal
from gateway.flows.views import NewDeposit
from gateway.http.bodies import Params, decode, field_error, read_params
from gateway.http.clients import ClientParams
from gateway.people.views import NewClient

CLIENT = msgspec.json.Decoder(NewClient)
DEPOSIT = msgspec.json.Decoder(NewDeposit)
GOOD = {"reference": "c-1", "brand": "northgate", "country": "DE", "currency": "EUR"}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_a_refusal(body: bytes) -> None:
    """No input makes the reader fail in another way."""
    try:
        decode(DEPOSIT, body)
    except Refusal as no:
        assert no.code in {"malformed-json", "invalid-request"}  # noqa: PT017


@given(st.dictionaries(st.sampled_from([*GOOD, "x"]), values))
def test_any_json_is_a_client_or_a_refusal(body: dict[str, object]) -> None:
    """Whatever stands in the fields, what passes has the types the flow expects."""
    try:
        client = decode(CLIENT, json.dumps(GOOD | body).encode())
    except Refusal as no:
        assert no.code in {"malformed-json", "invalid-request"}  # noqa: PT017
    else:
        assert client.reference.isascii()
        assert "\n" not in client.reference + client.brand + client.country


@given(st.text(max_size=24))
def test_no_amount_passes_that_the_wire_does_not_know(amount: str) -> None:
    """What passes is ASCII digits with at most one point."""
    body = {
        "client": "CL" + "0" * 18, "method": "card",
        "amount": {"amount": amount, "currency": "EUR"},
    }  # fmt: skip
    try:
        order = decode(DEPOSIT, json.dumps(body).encode())
    except Refusal:
        return
    assert set(order.amount.amount) <= set("0123456789.")


@pytest.mark.parametrize("field", sorted(GOOD))
@pytest.mark.parametrize("tail", ["\n", "\x00", "\r", "\t", " ", "\u2028"])
def test_a_field_with_a_control_character_is_refused(field: str, tail: str) -> None:
    """A pattern's end is the text's end."""
    with pytest.raises(Refusal):
        decode(CLIENT, json.dumps(GOOD | {field: GOOD[field] + tail}).encode())


@pytest.mark.parametrize(
    ("message", "path", "code"),
    [
        ("Expected `str`, got `int` - at `$.amount.amount`", "$.amount.amount", "field-type"),
        ("Object contains unknown field `x`", "$.x", "field-unknown"),
        ("Object missing required field `a` - at `$.b`", "$.b.a", "field-missing"),
        ("Expected `str` matching regex '^a$' - at `$.b`", "$.b", "field-pattern"),
        ("Invalid enum value 'z' - at `$.to`", "$.to", "field-value"),
    ],
)
def test_the_readers_sentence_becomes_path_and_code(message: str, path: str, code: str) -> None:
    """Programs read the path and the code, people the words."""
    found = field_error(message)

    assert (found.path, found.code) == (path, code)


def test_parameters_are_read_with_their_types_and_defaults() -> None:
    """Numbers come as text and leave as numbers; what is absent has its default."""
    assert read_params(ClientParams, {"limit": "7"}) == ClientParams(limit=7)


def test_a_parameter_nobody_knows_is_refused() -> None:
    """A typo is not ignored."""
    with pytest.raises(Refusal) as no:
        read_params(Params, {"limt": "7"})
    assert no.value.code == "invalid-parameter"
