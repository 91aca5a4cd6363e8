"""Every command of the catalogue, run once: what it was run on is returned.

Knows for each command one way to have it done by the product. Whoever adds a command to the
catalogue adds its run here; the tests say when one is missing. Asserts nothing about the audit.
"""

from __future__ import annotations

import base64
import itertools
import os
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from gateway import exports
from gateway.control import audit, certificates, codes, keys, staff
from gateway.control.access import Reach
from gateway.control.audit import Command
from gateway.control.codes import Safe
from gateway.control.exporting import Asked
from gateway.control.grants import Grant, given, person_known
from gateway.control.items import item_opened
from gateway.control.passwords import Passwords
from gateway.flows.glass import Glass
from ledger.units import Done, Unit
from tests.integration.gateway import test_rulebook_api
from tests.integration.gateway.conftest import PEPPER, Api
from tests.integration.gateway.lived import WALK, House

Run = Callable[[Api], Awaitable[str]]
RUNS: Final[dict[str, Run]] = {}
# Run on an API whose rulebook every room likes, so that a version of it can be drafted.
DRAFTED: Final[dict[str, Run]] = {}
# Run on the flows themselves, which the API of these tests has no peers for.
LIVED: Final[dict[str, Callable[[House], Awaitable[str]]]] = {}
PASSWORD = "correct horse battery"
_numbers = itertools.count(1)


def runs(*names: str) -> Callable[[Run], Run]:
    """Say which commands a run is of."""

    def known(run: Run) -> Run:
        RUNS.update(dict.fromkeys(names, run))
        return run

    return known


def operator(api: Api) -> Command:
    """Whoever sits at the machine."""
    return Command(keys.operator("root"), "test", "test", api.clock.now())


async def client(api: Api, *states: str, **fields: object) -> dict[str, Any]:
    """A new client moved through these states."""
    made = await api.new_client(f"c-{next(_numbers)}", **fields)
    return await api.walk(made, *states)


async def asked(api: Api) -> tuple[str, str]:
    """A question about a client: its id and the client's."""
    view = await client(api, "registered", "kyc_pending", "kyc_under_review")
    answer = await api.move(view, "approved")
    assert answer.status == 202, await answer.text()
    return str((await answer.json())["id"]), str(view["id"])


async def post(api: Api, path: str, body: object = None, token: str = "") -> dict[str, Any]:
    """What a POST that must succeed answers."""
    answer = await api.call("POST", path, body, token=token or None)
    assert answer.status < 300, await answer.text()
    return dict(await answer.json())


# --- clients, partners, questions ---------------------------------------------------------------


@runs("client.create", "client.move")
async def made_and_moved(api: Api) -> str:
    """A client is made known and moved."""
    return str((await client(api, "registered"))["id"])


@runs("client.personal", "client.viewed", "client.erase")
async def known(api: Api) -> str:
    """What is known of a client is kept, looked at, and to be erased."""
    view = await client(api, "archived")
    path = f"/v1/clients/{view['id']}"
    assert (await api.call("PUT", f"{path}/personal", {"name": "Ann"}, key=None)).status == 200
    assert (await api.call("GET", f"{path}/personal?purpose=test")).status == 200
    await post(api, f"{path}/erasures", {"reason": "asked for"})
    return str(view["id"])


@runs("attribution.change")
async def reattributed(api: Api) -> str:
    """Another partner is asked for a client."""
    number = next(_numbers)
    await api.new_contract(f"p-{number}", code=f"CODE{number}")
    view = await client(api)
    wish = {"code": f"CODE{number}", "evidence": "EV-1", "reason": "wrong link"}
    await post(api, f"/v1/clients/{view['id']}/attribution-changes", wish)
    return str(view["id"])


@runs("approval.decide")
async def decided(api: Api) -> str:
    """A second person agrees."""
    approval, _ = await asked(api)
    checker = await api.key(role="compliance", owner="desk", person="bob")
    order = {"decision": "approve", "reason": "fine"}
    await post(api, f"/v1/approvals/{approval}/decide", order, checker)
    return approval


@runs("approval.withdraw")
async def withdrawn(api: Api) -> str:
    """Whoever asked takes it back."""
    approval, _ = await asked(api)
    await post(api, f"/v1/approvals/{approval}/withdraw", {"reason": "a mistake"})
    return approval


@runs("delegation.give", "delegation.end")
async def lent(api: Api) -> str:
    """A right is lent, and taken back."""
    await api.key(role="compliance", owner="desk", person="bob")
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = await post(
        api, "/v1/delegations", {"delegate": "bob", "until": until, "reason": "leave"}
    )
    await post(api, f"/v1/delegations/{made['id']}/end", {"reason": "back"})
    return str(made["id"])


async def assigned(api: Api, role: str, **fields: object) -> str:
    """Somebody is given a role by two people; the grant's id."""
    order = {"person": f"new-{next(_numbers)}", "role": role, "reason": "joins", **fields}
    question = await post(api, "/v1/grants", order)
    checker = await api.key(owner="desk", person="bob")
    decision = {"decision": "approve", "reason": "fine"}
    await post(api, f"/v1/approvals/{question['id']}/decide", decision, checker)
    return str(question["subject"])


@runs("role.grant", "role.revoke")
async def granted(api: Api) -> str:
    """A role is given, and taken back."""
    grant = await assigned(api, "reader")
    await post(api, f"/v1/grants/{grant}/revoke", {"reason": "left"})
    return grant


@runs("person.tie")
async def tied(api: Api) -> str:
    """Somebody's own account is said to be theirs."""
    await api.key(role="reader", owner="desk", person="tia")
    order = {"tie": "account.own", "subject": (await client(api))["id"], "reason": "told us"}
    await post(api, "/v1/people/tia/ties", order)
    return "tia"


@runs("role.exception")
async def excepted(api: Api) -> str:
    """A role that holds both ends of a conflict is given for a while."""
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    return await assigned(api, "everything", exception=True, valid_until=until)


@runs("partner.create")
async def partner(api: Api) -> str:
    """A partner is made known."""
    return str((await api.new_partner(f"p-{next(_numbers)}"))["id"])


@runs("contract.create")
async def contract(api: Api) -> str:
    """A partner gets a contract."""
    return str((await api.new_contract(f"p-{next(_numbers)}"))["id"])


@runs("partner.link", "partner.enter", "partner.leave", "visits.end")
async def visited(api: Api) -> str:
    """A partner's page is opened and left, and all visits are ended."""
    subject = await partner(api)
    visits = api.parts.visits
    async with api.pool.acquire() as conn:
        token = await visits.link(conn, operator(api), subject)
        secret = await visits.open(subject, token, "test")
        await visits.leave(secret, "test")
        await visits.end(conn, operator(api), subject)
    return subject


@runs("item.resolve")
async def resolved(api: Api) -> str:
    """An item is opened by a flow and closed by a person."""
    item, number = api.parts.ids.new("IT"), next(_numbers)
    change = item_opened(
        item, "unknown-payment", "payments", f"PY{number}", "no answer", api.clock.now(),
        entity="fx-eu",
    )  # fmt: skip
    assert isinstance(await api.lane.submit(Unit((change,))), Done)
    await post(api, f"/v1/items/{item}/resolve", {"reason": "looked up"})
    return item


@runs("event.resend")
async def resent(api: Api) -> str:
    """An event is delivered again."""
    await client(api)
    await api.rows("UPDATE gateway.outbox SET state = 'done', no = id, ended = now()")
    (event,) = await api.rows(
        "SELECT min(no) AS no FROM gateway.outbox WHERE lane = 'subscriber:shop'"
    )
    await post(api, f"/v1/events/{event['no']}/resend")
    return f"subscriber:shop/{event['no']}"


@runs("subscriber.set")
async def subscribed(api: Api) -> str:
    """A caller names its address."""
    wish = {"webhook_url": "https://shop.example/hooks"}
    assert (await api.call("PUT", "/v1/subscription", wish)).status == 200
    return "shop"


# --- credentials and people ---------------------------------------------------------------------


@runs("key.add", "key.revoke")
async def keyed(api: Api) -> str:
    """A key is given out and taken back."""
    split = keys.split_token(await api.key(owner=f"desk-{next(_numbers)}"))
    assert split is not None
    async with api.pool.acquire() as conn, conn.transaction():
        await api.maker.revoke(conn, operator(api), split[0])
    return split[0]


@runs("certificate.add", "certificate.revoke")
async def certified(api: Api) -> str:
    """A certificate's name is let in and shut out."""
    wish = keys.NewKey(f"desk-{next(_numbers)}", "everything")
    ids, access = api.parts.ids, api.parts.rules.now.access
    async with api.pool.acquire() as conn, conn.transaction():
        name = f"DNS:{wish.owner}.example"
        id = await certificates.add(conn, operator(api), ids, access, wish, name)
        await certificates.revoke(conn, operator(api), ids, id)
    return id


async def person(api: Api) -> tuple[str, bytes]:
    """Somebody who may do everything, and the secret of their device."""
    name, at = f"person-{next(_numbers)}", datetime.now(UTC)
    proofs = staff.Staff(Passwords(os.urandom), Safe(PEPPER, os.urandom), api.parts.ids)
    grant = Grant(
        id=api.parts.ids.new("GR"), person=name, role="everything", valid_from=at, created=at,
        created_by="root",
    )  # fmt: skip
    async with api.pool.acquire() as conn:
        async with conn.transaction():
            await audit.write(conn, [person_known(name, "human", at, "root"), given(grant)])
        await proofs.password(conn, operator(api), name, PASSWORD)
        address = await proofs.device(conn, operator(api), name)
        await proofs.identity(conn, operator(api), name, "corp", name)
    secret = re.search(r"secret=(\w+)", address)
    assert secret is not None
    return name, base64.b32decode(secret[1])


@runs("person.password", "person.device", "person.identity")
async def proved(api: Api) -> str:
    """A person gets what they prove themselves with."""
    return (await person(api))[0]


async def enter(api: Api, *, code: str = "") -> tuple[int, str, Any]:
    """Sign somebody new in: the status, who it was, and what was answered."""
    name, secret = await person(api)
    step = codes.step_of(api.clock.now())
    body = {
        "person": name, "password": PASSWORD, "code": code or codes.code_at(secret, step),
    }  # fmt: skip
    answer = await api.client.post("/v1/sign-ins", json=body)
    api.client.session.cookie_jar.clear()
    return answer.status, name, answer


@runs("sign-in.open", "sign-in.leave")
async def left(api: Api) -> str:
    """A person signs in and out."""
    status, _, answer = await enter(api)
    assert status == 201, await answer.text()
    sent = {
        "Cookie": f"brokerd_session={answer.cookies['brokerd_session'].value}",
        "Sec-Fetch-Site": "same-origin",
    }
    out = await api.client.post("/sign-out", headers=sent, allow_redirects=False)
    assert out.status == 303
    return str((await answer.json())["id"])


@runs("sign-in.revoke")
async def revoked(api: Api) -> str:
    """Somebody's session is ended by another."""
    _, _, answer = await enter(api)
    id = str((await answer.json())["id"])
    assert (await api.call("DELETE", f"/v1/sign-ins/{id}", key=None)).status < 300
    return id


@runs("sign-in.refuse")
async def refused(api: Api) -> str:
    """A wrong code in a person's name."""
    status, name, _ = await enter(api, code="abcdef")
    assert status in (401, 422)
    return name


@runs("person.add")
async def added(api: Api) -> str:
    """The first of a house are given their roles at the machine."""
    name, access = f"person-{next(_numbers)}", api.parts.rules.now.access
    async with api.pool.acquire() as conn, conn.transaction():
        await staff.add(conn, operator(api), api.parts.ids, access, name, "reader", Reach())
    return name


@runs("break-glass.grant", "break-glass.end")
async def broken(api: Api) -> str:
    """A role for a minute: asked for, granted, over."""
    number = next(_numbers)
    asker = await api.key("engineer", owner=f"sre-{number}", person=f"sre-{number}")
    order = {"role": "looker", "minutes": 1, "reason": "the desk is empty"}
    approval = await post(api, "/v1/break-glass", order, token=asker)
    await post(
        api, f"/v1/approvals/{approval['id']}/decide", {"decision": "approve", "reason": "seen"}
    )
    api.clock.skew_s += 60
    flow = api.parts.glass
    assert isinstance(flow, Glass)
    assert await flow.sweep() == 1
    return str(approval["subject"])


# --- the audit itself ---------------------------------------------------------------------------


@runs("audit.read")
async def looked(api: Api) -> str:
    """Somebody looks into the audit."""
    assert (await api.call("GET", "/v1/audit?purpose=test")).status == 200
    return "audit"


@runs("audit.export")
async def exported(api: Api) -> str:
    """An export is taken."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "audit.jsonl"
        async with api.pool.acquire() as conn:
            await exports.export(conn, operator(api), Asked(), out, api.parts.ids)
    return str(out)


# --- versions of the rulebook -------------------------------------------------------------------


async def drafted(api: Api) -> str:
    """A version is drafted, put before others, and taken back."""
    version = await test_rulebook_api.drafted(api, test_rulebook_api.dearer)
    asked = await test_rulebook_api.asks(api, version)
    assert asked.status < 300, await asked.text()
    path = f"/v1/rulebook/versions/{version['id']}/withdraw"
    token = await api.key("everything", owner="ada", person="ada")
    await post(api, path, {"reason": "a mistake"}, token)
    return str(version["id"])


DRAFTED |= dict.fromkeys(("rulebook.draft", "rulebook.publish", "rulebook.withdraw"), drafted)


# --- money and rules, on the flows themselves ---------------------------------------------------


async def accounted(house: House) -> str:
    """A trading account is asked for."""
    return await house.account(await house.client(*WALK))


async def deposited(house: House) -> str:
    """A deposit is taken."""
    return await house.deposit(await house.client(*WALK))


async def adopted(house: House) -> str:
    """The rulebook came into force when the house was opened."""
    return house.book.hash


LIVED |= {
    "account.request": accounted, "deposit.start": deposited, "rulebook.adopt": adopted,
}  # fmt: skip
