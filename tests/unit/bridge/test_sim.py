"""The simulator's own parts: its clock, its journal, its script."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.sim import clock
from bridge.sim.books import Books, Deal, Group, User
from bridge.sim.faults import Fault, Script

GROUP = Group(group="g", currency="EUR")
USER = User(login=1, group="g", rights=355, leverage=1, name="n", id="", comment="", registration=0)


def deal(ticket: int, minor: int) -> Deal:
    """A balance deal."""
    return Deal(ticket=ticket, login=1, action=2, minor=minor, comment="", time=0)


@pytest.mark.parametrize(
    ("moment", "hours"),
    [
        (datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC), 2),
        (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), 3),
        (datetime(2026, 10, 25, 0, 59, 59, tzinfo=UTC), 3),
        (datetime(2026, 10, 25, 1, 0, tzinfo=UTC), 2),
        (datetime(2024, 3, 31, 1, 0, tzinfo=UTC), 3),
        (datetime(2021, 10, 31, 1, 0, tzinfo=UTC), 2),
    ],
)
def test_summer_time_begins_and_ends_on_last_sundays(moment: datetime, hours: int) -> None:
    """The wall clock is at UTC+2, and at UTC+3 between the last Sundays of March and October."""
    assert clock.offset_s(moment) == hours * 3600


def test_the_clock_writes_its_number_as_a_date() -> None:
    """The text of the server's time is the number read as UTC."""
    assert clock.server_text(1_572_518_788) == "1572518788 2019.10.31 10:46:28"


def test_the_books_survive_a_restart(tmp_path: Path) -> None:
    """What was recorded is there again when the journal is opened."""
    with closing(Books(tmp_path / "journal")) as books:
        for record in (GROUP, USER, deal(200_005, 100), deal(200_009, -30)):
            books.record(record)
    with closing(Books(tmp_path / "journal")) as again:
        assert (again.balance(1), again.last_ticket) == (70, 200_009)


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    """A record that was half written when the process died was never answered: it is dropped."""
    with closing(Books(tmp_path / "journal")) as books:
        for record in (GROUP, USER, deal(5, 100)):
            books.record(record)
    with (tmp_path / "journal").open("ab") as file:
        file.write(b'{"type":"deal","tick')
    with closing(Books(tmp_path / "journal")) as again:
        again.record(deal(6, 1))
    with closing(Books(tmp_path / "journal")) as third:
        assert third.balance(1) == 101


def test_a_fault_strikes_its_command_and_is_used_up() -> None:
    """A fault happens as often as it was told, to its own command only."""
    script = Script()
    script.add(Fault(command="user/add", action="drop_after", times=2))
    hits = [script.take(name) for name in ("user/get", "user/add", "user/add", "user/add")]
    assert [hit is not None for hit in hits] == [False, True, True, False]


def test_a_fault_can_strike_each_third_time() -> None:
    """With `every` the calls between are served well."""
    script = Script()
    script.add(Fault(command="*", action="drop_after", times=2, every=3))
    assert [script.take("user/get") is not None for _ in range(7)] == [
        False, False, True, False, False, True, False,
    ]  # fmt: skip


def test_a_fault_for_everything_leaves_ping_and_authentication_alone() -> None:
    """`*` is every command that does something."""
    script = Script()
    script.add(Fault(command="*", action="deny"))
    assert script.take("test/access") is None
    assert script.take("auth/start") is None
