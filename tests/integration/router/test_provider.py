"""Our client against the simulated provider: each way it can misbehave, over the real wire."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.attempts import refund_reference
from router.outcomes import (
    Approved,
    Declined,
    Mismatch,
    NotFound,
    NotSent,
    Pending,
    Unknown,
)
from router.psp.connector import HttpAnswer
from router.psp.inbox import Forged, Notice, verify
from router.states import AttemptState as A
from tests.integration.router.conftest import (
    CONNECTORS,
    LIMIT_S,
    SECRET,
    House,
    Opens,
    Receiver,
)
from tests.unit.router.values import attempt, intent

APPROVED = Approved("acme_00000001", 10_000, "EUR")
UNKNOWN = attempt(A.UNKNOWN)


def told(notice: tuple[dict[str, str], bytes]) -> Notice:
    """A notice as our inbox reads it; raises Forged."""
    headers, raw = notice
    return verify(CONNECTORS["simpay"], headers, raw, SECRET, datetime.now(UTC))


async def charges(house: House) -> dict[str, dict[str, Any]]:
    """The charges in the provider's books, by our reference."""
    return {charge["reference"]: charge for charge in (await house.books())["charges"]}


async def test_a_charge_is_approved_once_however_often_it_is_asked(house: House) -> None:
    """The same reference is one charge: a repetition gets the first answer."""
    assert await house.charge() == APPROVED
    assert await house.charge() == APPROVED
    booked = await charges(house)
    assert [charge["requests"] for charge in booked.values()] == [2]


async def test_a_decline_carries_its_codes(house: House) -> None:
    """The issuer's code decides what the decline means."""
    await house.will(status="declined", decline={"code": "do_not_honor", "issuer_code": "91"})
    outcome = await house.charge()
    assert outcome == Declined(
        "iso:91", "issuer_later", "declined by the simulator", "acme_00000001", cascade=True
    )


@pytest.mark.parametrize("how", ["reset", "garbage", "truncated", "status"])
async def test_a_charge_with_a_lost_answer_is_unknown_and_found_by_inquiry(
    house: House, how: str
) -> None:
    """Whatever happened to the answer, the charge is found by our own reference."""
    await house.will(answer=how)
    assert isinstance(await house.charge(), Unknown)
    assert await house.attempts.ask(UNKNOWN) == APPROVED
    assert len(await charges(house)) == 1


async def test_a_provider_that_hangs_leaves_the_charge_unknown(open_house: Opens) -> None:
    """Silence ends after our own limit and says nothing of the charge."""
    async with open_house(answer_timeout_s=0.3) as house:
        await house.will(answer="hang")
        assert await house.charge() == Unknown("read_timeout")
        assert await house.attempts.ask(UNKNOWN) == APPROVED


async def test_an_error_without_a_charge_looks_the_same_and_is_not_found(house: House) -> None:
    """A 503 never tells whether it charged: only the inquiry does."""
    await house.will(answer="status", http_status=503, charges=False)
    assert await house.charge() == Unknown("http_503")
    assert await house.attempts.ask(UNKNOWN) == NotFound()


async def test_too_many_requests_is_not_sent(house: House) -> None:
    """429 means that nothing was processed."""
    await house.will(answer="status", http_status=429, charges=False)
    assert await house.charge() == NotSent("http_429")


async def test_a_charge_may_take_place_after_its_error(house: House) -> None:
    """What is not found now may be found later: hence the grace before absence counts."""
    await house.will(answer="status", charges=True, effect_after_s=0.3)
    assert isinstance(await house.charge(), Unknown)
    assert await house.attempts.ask(UNKNOWN) == NotFound()
    async with asyncio.timeout(LIMIT_S):
        while await house.attempts.ask(UNKNOWN) == NotFound():
            await asyncio.sleep(0.05)
    assert await house.attempts.ask(UNKNOWN) == APPROVED


async def test_a_charge_of_another_amount_is_a_mismatch(house: House) -> None:
    """What was charged is compared with what we asked for."""
    await house.will(amount="99.00")
    assert await house.charge() == Mismatch("acme_00000001", 9_900, "EUR")


async def test_a_wrong_key_is_a_fault_of_our_configuration(house: House) -> None:
    """401 says that nothing was charged; another provider may be tried."""
    terminal = house.attempts.terminal("acme")
    assert terminal is not None
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": "Bearer wrong"}
        async with session.post(f"{house.url}/v1/charges", headers=headers, json={}) as answer:
            seen = HttpAnswer(answer.status, await answer.read())
            got = terminal.connector.read_charge(seen, "AT1")
    assert got == Declined("transport:http_401", "config", "", "", cascade=True)


async def test_a_provider_without_a_terminal_is_not_sent(house: House) -> None:
    """A PSP that left the rulebook can take nothing."""
    assert await house.charge(attempt(psp="gone")) == NotSent("no_terminal")


# -- notices ---------------------------------------------------------------------------------------


async def test_a_pending_charge_is_settled_by_a_notice(house: House, receiver: Receiver) -> None:
    """Pending now, and the signed notice tells what it became."""
    await house.will(status="pending", becomes="approved", becomes_after_s=0.1)
    assert await house.charge() == Pending("acme_00000001")
    (notice,) = await receiver.wait_for(1)
    assert (told(notice).reference, told(notice).outcome) == (attempt().reference, APPROVED)


async def test_a_notice_may_come_twice_with_one_id(house: House, receiver: Receiver) -> None:
    """A repetition bears the id of the first, so it can be recognised."""
    await house.will(notices="twice")
    await house.charge()
    first, second = map(told, await receiver.wait_for(2))
    assert first.event_id == second.event_id


async def test_notices_may_come_out_of_order(house: House, receiver: Receiver) -> None:
    """The final notice first, then the pending one that came before it."""
    await house.will(notices="reversed")
    await house.charge()
    outcomes = [told(notice).outcome for notice in await receiver.wait_for(2)]
    assert outcomes == [APPROVED, Pending("acme_00000001")]


async def test_a_forged_notice_fails_the_check(house: House, receiver: Receiver) -> None:
    """A forger's notice is refused, the provider's own accepted."""
    await house.will(status="declined", notices="forged")
    await house.charge()
    verdicts = []
    for notice in await receiver.wait_for(2):
        try:
            verdicts.append(type(told(notice).outcome).__name__)
        except Forged as forged:
            verdicts.append(forged.code)
    assert sorted(verdicts) == ["Declined", "signature-wrong"]


async def test_a_notice_that_is_not_taken_is_repeated(house: House, receiver: Receiver) -> None:
    """A provider insists until somebody takes its notice."""
    receiver.status = 500
    await house.charge()
    await receiver.wait_for(2)
    receiver.status = 200
    await receiver.wait_for(3)
    async with asyncio.timeout(LIMIT_S):
        while (await house.books())["notices"] != {"delivered": 1, "dead": 0, "due": 0}:
            await asyncio.sleep(0.02)


async def test_the_admin_may_notify_of_what_nobody_charged(
    house: House, receiver: Receiver
) -> None:
    """A properly signed notice of an unknown reference can be sent, to be parked by us."""
    await house.admin("notify", {"reference": "AT999999999999999999", "status": "approved"})
    (notice,) = await receiver.wait_for(1)
    assert told(notice).reference == "AT999999999999999999"


# -- refunds ---------------------------------------------------------------------------------------


async def test_a_refund_is_made_once_for_an_attempt(house: House) -> None:
    """A second charge can be given back, and giving it back twice gives it back once."""
    await house.charge()
    for _ in range(2):
        got = await house.attempts.refund(attempt(A.APPROVED), 10_000, "EUR", lambda: True)
        assert got == Approved("acme_r0000001", 10_000, "EUR")
    refunds = (await house.books())["refunds"]
    assert [r["reference"] for r in refunds] == [refund_reference(attempt())]
    assert await house.attempts.ask_refund(attempt(A.APPROVED)) == Approved(
        "acme_r0000001", 10_000, "EUR"
    )


async def test_no_more_is_given_back_than_was_charged(house: House) -> None:
    """A provider refuses to refund what it did not take."""
    await house.charge()
    got = await house.attempts.refund(attempt(A.APPROVED), 10_001, "EUR", lambda: True)
    assert isinstance(got, Declined)
    assert await house.attempts.ask_refund(attempt(A.APPROVED)) == NotFound()


async def test_a_refund_without_the_lease_is_not_sent(house: House) -> None:
    """A refund is money too: no byte leaves without the lease."""
    await house.charge()
    got = await house.attempts.refund(attempt(A.APPROVED), 10_000, "EUR", lambda: False)
    assert got == NotSent("lease")


# -- the provider itself ---------------------------------------------------------------------------


async def test_the_books_survive_a_restart(open_house: Opens, receiver: Receiver) -> None:
    """Charges, refunds and what was still to be settled and told go on in the next life."""
    async with open_house() as house:
        await house.charge()
        await house.attempts.refund(attempt(A.APPROVED), 500, "EUR", lambda: True)
        await house.will(status="pending", becomes="approved", becomes_after_s=0.5)
        await house.charge(attempt(no=2, psp="acme"))
    async with open_house() as house:
        booked = await charges(house)
        assert [booked[attempt(no=no).reference]["status"] for no in (1, 2)] == [
            "approved", "pending",
        ]  # fmt: skip
        assert len((await house.books())["refunds"]) == 1
        assert await house.charge() == APPROVED
        notices = [told(notice) for notice in await receiver.wait_for(2)]
        assert {notice.reference for notice in notices} == set(booked)


async def test_a_line_cut_by_a_crash_is_dropped(open_house: Opens, tmp_path: Path) -> None:
    """A journal whose last line is not whole is read up to it and written on from there."""
    async with open_house() as house:
        await house.charge()
    journal = tmp_path / "acme.journal"
    journal.write_bytes(journal.read_bytes() + b'{"type":"charge","id":"acme_0')
    async with open_house() as house:
        assert set(await charges(house)) == {attempt().reference}
        await house.charge(attempt(no=2, psp="acme"))
    async with open_house() as house:
        assert len(await charges(house)) == 2


async def test_a_reference_used_for_another_charge_is_refused(house: House) -> None:
    """A provider never answers with a charge that was not asked for."""
    await house.charge()
    assert isinstance(await house.charge(wanted=intent(minor=5_000)), Declined)
    assert len(await charges(house)) == 1


async def test_a_profile_treats_each_reference_alike_in_every_run(
    open_house: Opens, tmp_path: Path
) -> None:
    """The draw depends on seed and reference only, so a mix of outcomes can be repeated."""
    profile = tmp_path / "profile.toml"
    profile.write_text(
        '[[behaviour]]\nweight = 1\n[[behaviour]]\nstatus = "declined"\nweight = 1\n'
    )
    runs = []
    for seed, state in ((1, "a"), (1, "b"), (2, "c")):
        options = {"profile": profile, "seed": seed, "state": tmp_path / state}
        async with open_house(**options) as house:
            drawn = [
                type(await house.charge(attempt(reference=f"AT{no:018d}"))) for no in range(24)
            ]
            runs.append(drawn)
    assert runs[0] == runs[1] != runs[2]
    assert set(runs[0]) == {Approved, Declined}


async def test_a_script_goes_before_the_profile_and_only_where_it_fits(house: House) -> None:
    """A scripted behaviour waits for the charge whose fields it names."""
    await house.will(status="declined", match={"method": "ewallet"})
    assert await house.charge() == APPROVED
    wallet = intent(method="ewallet")
    assert isinstance(await house.charge(attempt(no=2, psp="acme"), wallet), Declined)
    assert isinstance(await house.charge(attempt(no=3, psp="acme"), wallet), Approved)
