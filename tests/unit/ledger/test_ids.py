"""Our references: made, recognised and ordered."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.ids import ALPHABET, LENGTH, PREFIXES, Ids, is_id

MOMENTS = st.integers(0, 2**45 - 1)


@given(
    moment=MOMENTS, chance=st.binary(min_size=6, max_size=6), prefix=st.sampled_from([*PREFIXES])
)
def test_an_id_is_twenty_plain_characters(moment: int, chance: bytes, prefix: str) -> None:
    """An id fits every peer's comment: twenty ASCII characters that nobody mistakes for others."""
    made = Ids(lambda: moment, lambda _: chance).new(prefix)
    assert len(made) == LENGTH == 20
    assert set(made[2:]) <= set(ALPHABET)
    assert is_id(made, prefix)


@given(first=MOMENTS, second=MOMENTS, chance=st.binary(min_size=12, max_size=12))
def test_ids_sort_by_time_of_making(first: int, second: int, chance: bytes) -> None:
    """A later millisecond makes a greater id, whatever chance says."""
    early, late = sorted((first, second))
    before = Ids(lambda: early, lambda _: chance[:6]).new("PY")
    after = Ids(lambda: late, lambda _: chance[6:]).new("PY")
    assert before < after or early == late


@given(moment=MOMENTS, chance=st.binary(min_size=12, max_size=12))
def test_chance_keeps_ids_of_one_millisecond_apart(moment: int, chance: bytes) -> None:
    """Two ids of one millisecond are equal only if chance repeats all its 45 bits."""
    one, other = chance[:6], chance[6:]
    same = int.from_bytes(one, "big") >> 3 == int.from_bytes(other, "big") >> 3
    made = [Ids(lambda: moment, lambda _, c=c: c).new("AT") for c in (one, other)]
    assert (made[0] == made[1]) is same


def test_what_only_looks_like_an_id_is_none() -> None:
    """Case, length, prefix, foreign letters and a trailing newline are told apart."""
    good = "PY" + "0123456789ABCDEFGH"
    assert is_id(good, "PY")
    for bad in (
        good.lower(), good[:-1], good + "0", good + "\n", "AT" + good[2:], good[:-1] + "I",
        good[:-1] + "é", good[:-1] + "٣", "", "PY",
    ):  # fmt: skip
        assert not is_id(bad, "PY"), bad
