"""Clients through the API: made known once, moved by the table, with a second person where due."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from ledger.facts import AccountName, Entry, Posting
from ledger.units import Done, Unit
from tests.integration.gateway.conftest import Api


async def test_a_client_is_made_known_and_read_back(api: Api) -> None:
    """201 with a Location at which the same client stands."""
    answer = await api.call(
        "POST",
        "/v1/clients",
        {"reference": "c-1", "brand": "southbank", "country": "DE", "currency": "USD"},
    )

    view = await answer.json()
    assert (answer.status, view["state"], view["entity"]) == (201, "new_lead", "fx-int")
    again = await api.call("GET", answer.headers["Location"])
    assert (again.status, await again.json()) == (200, view)


async def test_a_repeated_creation_is_answered_byte_for_byte(api: Api) -> None:
    """One key stands for one client, whatever became of the client since."""
    body = {"reference": "c-1", "brand": "northgate", "country": "DE", "currency": "EUR"}
    first = await api.call("POST", "/v1/clients", body, key="k")
    raw = await first.read()
    await api.walk(await first.json(), "registered")

    second = await api.call("POST", "/v1/clients", body, key="k")

    assert (second.status, await second.read()) == (201, raw)
    assert second.headers["Location"] == first.headers["Location"]
    assert len(await api.rows("SELECT 1 FROM gateway.client")) == 1


async def test_many_at_once_with_one_key_make_one_client(api: Api) -> None:
    """The claim decides a race: all are told of the same client."""
    body = {"reference": "c-1", "brand": "northgate", "country": "DE", "currency": "EUR"}

    answers = await asyncio.gather(
        *[api.call("POST", "/v1/clients", body, key="k") for _ in range(20)]
    )

    assert {answer.status for answer in answers} == {201}
    assert len({await answer.read() for answer in answers}) == 1
    assert len(await api.rows("SELECT 1 FROM gateway.client")) == 1


async def test_a_key_of_another_body_is_refused(api: Api) -> None:
    """422: a key is never a second request's."""
    body = {"reference": "c-1", "brand": "northgate", "country": "DE", "currency": "EUR"}
    await api.call("POST", "/v1/clients", body, key="k")

    answer = await api.call("POST", "/v1/clients", body | {"country": "FR"}, key="k")

    assert (answer.status, (await answer.json())["code"]) == (422, "idempotency-key-reused")


async def test_keys_of_two_callers_do_not_meet(api: Api) -> None:
    """The same Idempotency-Key and reference of another system are another request."""
    body = {"reference": "c-1", "brand": "northgate", "country": "DE", "currency": "EUR"}
    await api.call("POST", "/v1/clients", body, key="k")

    answer = await api.call("POST", "/v1/clients", body, key="k", token=await api.key(owner="b"))

    assert answer.status == 201
    assert len(await api.rows("SELECT 1 FROM gateway.client")) == 2


async def test_a_reference_is_the_callers_own_and_unique(api: Api) -> None:
    """409 names the client that has it."""
    known = await api.new_client("c-1")

    answer = await api.call(
        "POST",
        "/v1/clients",
        {"reference": "c-1", "brand": "northgate", "country": "DE", "currency": "EUR"},
    )

    problem = await answer.json()
    assert (answer.status, problem["code"]) == (409, "reference-taken")
    assert problem["client"] == known["id"]


async def test_a_brand_outside_the_callers_entities_is_unknown(api: Api) -> None:
    """A narrow key cannot tell a foreign brand from none."""
    narrow = await api.key(entities=("fx-int",))
    for brand in ("northgate", "nosuch"):
        answer = await api.call(
            "POST",
            "/v1/clients",
            {"reference": "c", "brand": brand, "country": "DE", "currency": "EUR"},
            token=narrow,
        )
        assert (answer.status, (await answer.json())["code"]) == (422, "brand-unknown")


async def test_a_low_risk_client_walks_to_trading_alone(api: Api) -> None:
    """Eight states without a second person; the history folds to the state."""
    client = await api.new_client(risk_band="low")

    view = await api.walk(
        client, "contacted", "registered", "kyc_pending", "kyc_under_review", "approved",
        "deposit_enabled", "trading_enabled",
    )  # fmt: skip

    history = (await (await api.call("GET", f"/v1/clients/{client['id']}/history")).json())["data"]
    assert (view["state"], view["version"]) == ("trading_enabled", 8)
    assert [moment["version"] for moment in history] == list(range(1, 9))
    for before, after in pairwise(history):
        assert before["to_state"] == after["from_state"]


async def test_a_move_that_is_not_in_the_table_changes_nothing_and_is_audited(api: Api) -> None:
    """409, and the trace of the attempt."""
    client = await api.new_client()

    answer = await api.move(client, "trading_enabled")

    assert (answer.status, (await answer.json())["code"]) == (409, "client-transition")
    (row,) = await api.rows("SELECT state, version FROM gateway.client")
    assert (row["state"], row["version"]) == ("new_lead", 1)
    (trace,) = await api.rows("SELECT after FROM gateway.audit WHERE command = 'client.move'")
    assert "client-transition" in trace["after"]


async def test_of_many_moves_at_one_version_one_succeeds(api: Api) -> None:
    """Concurrent changes are serialized by the version."""
    client = await api.new_client()

    answers = await asyncio.gather(*[api.move(client, "contacted") for _ in range(30)])

    statuses = sorted(answer.status for answer in answers)
    assert statuses == [200] + [409] * 29
    assert {(await a.json())["code"] for a in answers if a.status == 409} == {"version-conflict"}


async def test_a_repeated_move_is_answered_as_the_first(api: Api) -> None:
    """The version has gone on since, and still the key says what was answered."""
    client = await api.new_client()
    path = f"/v1/clients/{client['id']}/moves"
    body = {"to": "contacted", "expected_version": 1, "reason": "called"}
    first = await api.call("POST", path, body, key="m")

    second = await api.call("POST", path, body, key="m")

    assert (second.status, await second.read()) == (200, await first.read())


async def review(api: Api, **fields: object) -> dict[str, object]:
    """A client under review."""
    client = await api.new_client(**fields)
    return await api.walk(client, "registered", "kyc_pending", "kyc_under_review")


async def test_a_starred_move_waits_for_another_person_and_is_applied_once(api: Api) -> None:
    """202 with an approval; its maker is refused; a checker moves the client, and only once."""
    maker = await api.key(owner="ops", person="ann")
    also_ann = await api.key(role="compliance", owner="desk", person="ann")
    checker = await api.key(role="compliance", owner="desk", person="bob")
    client = await review(api, risk_band="high")
    asked = await api.move(client, "approved", token=maker)
    approval = await asked.json()
    path = f"/v1/approvals/{approval['id']}/decide"
    order = {"decision": "approve", "reason": "documents are in order"}

    assert (asked.status, approval["state"], approval["maker"]) == (202, "open", "ann")
    own = await api.call("POST", path, order, token=also_ann)
    assert (own.status, (await own.json())["code"]) == (403, "duty-conflict")
    done = await api.call("POST", path, order, token=checker, key="d")
    again = await api.call("POST", path, order, token=checker, key="d")
    late = await api.call("POST", path, order, token=checker)

    assert (done.status, (await done.json())["state"]) == (200, "approved")
    assert (again.status, await again.read()) == (200, await done.read())
    assert (late.status, (await late.json())["code"]) == (409, "already-decided")
    view = await (await api.call("GET", f"/v1/clients/{client['id']}")).json()
    assert (view["state"], view["version"]) == ("approved", int(str(client["version"])) + 1)


async def test_checkers_racing_apply_a_move_once(api: Api) -> None:
    """Two people agree at the same moment: one effect, one conflict."""
    client = await review(api)
    approval = await (await api.move(client, "approved")).json()
    path = f"/v1/approvals/{approval['id']}/decide"
    order = {"decision": "approve", "reason": "fine"}
    tokens = [await api.key(role="compliance", owner="d", person=f"p{n}") for n in range(5)]

    answers = await asyncio.gather(*[api.call("POST", path, order, token=t) for t in tokens])

    assert sorted(a.status for a in answers) == [200, 409, 409, 409, 409]
    moves = await api.rows("SELECT 1 FROM gateway.client_event WHERE to_state = 'approved'")
    assert len(moves) == 1


async def test_a_role_that_does_not_approve_is_refused_and_audited(api: Api) -> None:
    """The scope alone is not enough: the role must approve this kind."""
    client = await review(api)
    approval = await (await api.move(client, "approved")).json()

    answer = await api.call(
        "POST", f"/v1/approvals/{approval['id']}/decide",
        {"decision": "approve", "reason": "x"},
        token=await api.key(role="operations", owner="o", person="olaf"),
    )  # fmt: skip

    assert (answer.status, (await answer.json())["code"]) == (403, "forbidden")
    (row,) = await api.rows(
        "SELECT actor, after FROM gateway.audit WHERE command='approval.decide'"
    )
    assert row["actor"] == "olaf"
    assert "forbidden" in row["after"]


async def test_a_refused_question_changes_nothing_and_frees_the_subject(api: Api) -> None:
    """While one question is open another is refused; after a refusal it may be asked again."""
    client = await review(api)
    approval = await (await api.move(client, "approved")).json()
    busy = await api.move(client, "approved")
    checker = await api.key(role="compliance", owner="d", person="bob")

    no = await api.call(
        "POST", f"/v1/approvals/{approval['id']}/decide",
        {"decision": "refuse", "reason": "blurred"}, token=checker,
    )  # fmt: skip
    again = await api.move(client, "approved")

    assert (busy.status, (await busy.json())["code"]) == (409, "approval-open")
    assert (no.status, (await no.json())["state"]) == (200, "refused")
    assert again.status == 202
    view = await (await api.call("GET", f"/v1/clients/{client['id']}")).json()
    assert view["state"] == "kyc_under_review"


async def test_an_expired_question_cannot_be_approved_and_makes_way(api: Api) -> None:
    """After its time it is shown as expired, refused to checkers, and replaced by the next."""
    client = await review(api)
    approval = await (await api.move(client, "approved")).json()
    checker = await api.key(role="compliance", owner="d", person="bob")
    api.clock.skew_s = 7200

    shown = await (await api.call("GET", f"/v1/approvals/{approval['id']}")).json()
    late = await api.call(
        "POST", f"/v1/approvals/{approval['id']}/decide",
        {"decision": "approve", "reason": "late"}, token=checker,
    )  # fmt: skip
    again = await api.move(client, "approved")

    assert shown["state"] == "expired"
    assert (late.status, (await late.json())["code"]) == (409, "approval-expired")
    assert again.status == 202
    states = await api.rows("SELECT state FROM gateway.approval ORDER BY id")
    assert [row["state"] for row in states] == ["expired", "open"]


async def test_a_question_about_a_client_who_went_on_is_stale(api: Api) -> None:
    """What was asked about one state is never applied to another."""
    client = await review(api)
    approval = await (await api.move(client, "approved")).json()
    await api.walk(client, "kyc_pending")
    checker = await api.key(role="compliance", owner="d", person="bob")

    answer = await api.call(
        "POST", f"/v1/approvals/{approval['id']}/decide",
        {"decision": "approve", "reason": "x"}, token=checker,
    )  # fmt: skip

    assert (answer.status, (await answer.json())["code"]) == (409, "approval-stale")


async def test_a_restriction_says_what_it_blocks_and_remembers_where_it_began(api: Api) -> None:
    """Without blocks 422; lifted only to the state it interrupted, by a second person."""
    client = await api.walk(await api.new_client(), "registered", "kyc_pending")
    assert (await api.move(client, "restricted")).status == 422

    held = await (await api.move(client, "restricted", blocks=["deposit", "trade"])).json()
    elsewhere = await api.move(held, "approved")
    lifted = await api.move(held, "kyc_pending")

    assert held["blocks"] == ["deposit", "trade"]
    assert (elsewhere.status, (await elsewhere.json())["code"]) == (409, "client-transition")
    assert lifted.status == 202


async def test_clients_are_listed_in_pages_within_the_callers_entities(api: Api) -> None:
    """Newest first, without a gap or a repetition, and nothing of another entity."""
    made = [await api.new_client(f"c-{n}") for n in range(5)]
    foreign = await api.new_client("f-1", brand="southbank")
    narrow = await api.key(entities=("fx-eu",))
    seen: list[str] = []
    cursor = ""
    while True:
        page = await (
            await api.call("GET", f"/v1/clients?limit=2&after={cursor}", token=narrow)
        ).json()
        seen += [client["id"] for client in page["data"]]
        if page["next"] is None:
            break
        cursor = page["next"]

    assert seen == [client["id"] for client in reversed(made)]
    hidden = await api.call("GET", f"/v1/clients/{foreign['id']}", token=narrow)
    assert hidden.status == 404
    hidden_move = await api.move(foreign, "registered", token=narrow)
    assert hidden_move.status == 404


async def test_each_change_is_told_to_whoever_made_the_client_known(api: Api) -> None:
    """Creation and move each leave one event for the owner, in order."""
    client = await api.new_client()
    await api.walk(client, "registered")

    rows = await api.rows("SELECT lane, kind, aggregate FROM gateway.outbox ORDER BY id")

    assert [tuple(row) for row in rows] == [
        ("subscriber:shop", "client.created", client["id"]),
        ("subscriber:shop", "client.moved", client["id"]),
    ]


async def test_a_new_client_has_an_empty_wallet(api: Api) -> None:
    """The wallet answers before the first posting, in the client's own currency."""
    client = await api.new_client()

    answer = await api.call("GET", f"/v1/clients/{client['id']}/wallet")

    assert await answer.json() == {
        "client": client["id"],
        "as_of": None,
        "data": [{"currency": "EUR", "available": "0.00", "held": "0.00"}],
    }


async def test_a_client_with_money_is_not_archived(api: Api) -> None:
    """Neither asked for nor applied: money that came in meanwhile stops the checker too."""
    client = await api.walk(await api.new_client(), "registered", "kyc_pending")
    held = await (await api.move(client, "restricted", blocks=["login"])).json()
    asked = await (await api.move(held, "archived")).json()
    await deposited(api, str(client["id"]))
    checker = await api.key(role="compliance", owner="d", person="bob")

    applied = await api.call(
        "POST", f"/v1/approvals/{asked['id']}/decide",
        {"decision": "approve", "reason": "gone"}, token=checker,
    )  # fmt: skip
    again = await api.move(held, "archived")

    assert (applied.status, (await applied.json())["code"]) == (409, "money-left")
    assert (again.status, (await again.json())["code"]) == (409, "money-left")
    wallet = await (await api.call("GET", f"/v1/clients/{client['id']}/wallet")).json()
    assert wallet["data"][0]["available"] == "5.00"


async def deposited(api: Api, client_id: str) -> None:
    """Book five euros into the client's wallet."""
    sides = (
        Posting(AccountName("psp_clearing", "acme", "EUR"), 500),
        Posting(AccountName("client_wallet", client_id, "EUR"), -500),
    )
    entry = Entry(1, "deposit", "PY" + "0" * 18, api.clock.now().date(), sides)
    assert isinstance(await api.lane.submit(Unit((), (entry,))), Done)
