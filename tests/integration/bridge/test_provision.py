"""Accounts on a platform that misbehaves: one account a login, read back before believed."""

from __future__ import annotations

import msgspec
import pytest

from bridge.outcomes import Done, NotSent, Refused, Unknown
from bridge.pool import Pool
from bridge.provision import Passwords, Provisioner
from bridge.sim.faults import Action
from bridge.states import Account
from tests.integration.bridge.conftest import USD, Field, kept_alive, new_account

PASSWORDS = Passwords("Qw-er7tyui", "As-df8ghjk")


def yes() -> bool:
    """A gate that is open."""
    return True


async def test_an_account_is_created_as_asked_and_read_back(
    field: Field, pool: Pool, account: Account
) -> None:
    """The platform's record has our login, group, leverage and rights, and carries our ids."""
    outcome = await Provisioner(pool).create(account, PASSWORDS, yes)
    [user] = field.users
    assert isinstance(outcome, Done)
    assert (outcome.login, outcome.detail) == (100_001, "created")
    assert (user.login, user.group, user.leverage) == (100_001, account.platform_group, 30)
    assert (user.rights, user.id, user.name) == (355, account.id, account.client_id)


async def test_a_shut_gate_creates_nothing(field: Field, pool: Pool, account: Account) -> None:
    """Whoever may no longer send creates no account."""
    outcome = await Provisioner(pool).create(account, PASSWORDS, lambda: False)
    assert isinstance(outcome, NotSent)
    assert field.users == []
    assert field.platform.received["user/add"] == 0


@pytest.mark.parametrize(
    "action", ["drop_after", "hang_after", "garbage_after", "retcode_after", "drop_before"]
)
async def test_a_repeated_creation_makes_one_account(
    field: Field, account: Account, action: Action
) -> None:
    """After an ambiguous end the same creation is sent again and there is exactly one account."""
    field.script("user/add", action)
    async with kept_alive(field.new_pool(call_timeout_s=2.0)) as pool:
        first = await Provisioner(pool).create(account, PASSWORDS, yes)
        second = await Provisioner(pool).create(account, PASSWORDS, yes)
    assert isinstance(first, Unknown)
    assert isinstance(second, Done)
    assert second.detail == ("created" if action == "drop_before" else "found")
    assert len(field.users) == 1


async def test_an_answer_lost_while_reading_back_is_unknown(
    field: Field, pool: Pool, account: Account
) -> None:
    """An account that could not be read back is not yet believed; the repeat finds it."""
    field.script("user/get", "drop_before", times=2)
    assert isinstance(await Provisioner(pool).create(account, PASSWORDS, yes), Unknown)
    assert isinstance(await Provisioner(pool).create(account, PASSWORDS, yes), Done)


async def test_a_login_of_somebody_else_is_not_taken_for_ours(
    field: Field, pool: Pool, opened: int
) -> None:
    """An account that exists under our login without our id is refused to an operator."""
    outcome = await Provisioner(pool).create(new_account(opened), PASSWORDS, yes)
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.kind) == (3004, "configuration")


async def test_an_account_that_is_not_as_asked_is_named_by_field(
    field: Field, pool: Pool, account: Account
) -> None:
    """Reading back another group or leverage fails the verification with the field's name."""
    provisioner = Provisioner(pool)
    await provisioner.create(account, PASSWORDS, yes)
    changed = msgspec.structs.replace(field.users[0], leverage=500, rights=1)
    field.platform.books.record(changed)
    outcome = await provisioner.verify(account)
    assert isinstance(outcome, Refused)
    assert outcome.kind == "verify"
    assert "leverage 500 instead of 30" in outcome.text
    assert "rights 1 instead of 355" in outcome.text


@pytest.mark.parametrize(
    ("changes", "code", "kind"),
    [
        ({"platform_group": "no such group"}, 8, "configuration"),
        ({"login": 999_999}, 3003, "configuration"),
        ({"leverage": 501}, 3, "data"),
    ],
)
async def test_a_refused_creation_says_who_must_act(
    field: Field, pool: Pool, account: Account, changes: dict[str, object], code: int, kind: str
) -> None:
    """A group that is missing or a login of another server is an operator's work."""
    wanted = msgspec.structs.replace(account, **changes)
    outcome = await Provisioner(pool).create(wanted, PASSWORDS, yes)
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.kind) == (code, kind)
    assert field.users == []


async def test_a_weak_password_is_refused_as_data(
    field: Field, pool: Pool, account: Account
) -> None:
    """The group's password rule is the platform's to check."""
    outcome = await Provisioner(pool).create(account, Passwords("password", "password"), yes)
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.kind) == (3006, "data")


async def test_passwords_never_reach_the_log_of_calls(pool: Pool, account: Account) -> None:
    """The recorded payload has every parameter but the passwords."""
    outcome = await Provisioner(pool).create(account, PASSWORDS, yes)
    text = msgspec.json.encode(outcome).decode()
    assert PASSWORDS.main not in text
    assert PASSWORDS.investor not in text
    assert account.id in outcome.calls[0].payload
    assert [call.method for call in outcome.calls] == ["user/add", "user/get"]
    assert USD.group not in text
