"""`brokerd verify`: a house that is right has no findings, and each thing done to it has its code.

One house is built by the product's own flows (`lived.py`). Every test copies it and tampers with
one thing, as the owner of the database could.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import date

import asyncpg
import pytest

from gateway import verify
from ledger import entries
from ledger.facts import AccountName, Approved, Entry
from ledger.journal import Numbers, post
from ledger.money import Money, currency
from tests.support.servers import Cluster, fresh_database

DAY = date(2026, 3, 1)
EUR = currency("EUR")


async def found(conn: asyncpg.Connection) -> list[tuple[str, str, str]]:
    """What the whole check names."""
    return [
        (wrong.code, wrong.subject, wrong.detail)
        for wrong in [*await verify.verify_books(conn), *await verify.agree(conn)]
    ]


async def test_a_house_that_lived_is_right(owner: asyncpg.Connection) -> None:
    """Approvals, accounts, every end of a deposit, a refund and an item leave no finding."""
    assert await found(owner) == []
    kinds = await owner.fetch("SELECT DISTINCT kind FROM ledger.entry ORDER BY kind")
    assert [row["kind"] for row in kinds] == [
        1,
        2,
        3,
        4,
        10,
        11,
        12,
    ]  # each was there to be compared
    for table in (
        "gateway.contract",
        "gateway.attribution",
        "gateway.approval",
        "gateway.item",
        "bridge.account",
        "gateway.idempotency",
    ):
        assert await owner.fetchval(f"SELECT count(*) FROM {table}"), table


# A wallet deposit, the one that went on to the platform, and the one that is still on its way.
PAID = "(SELECT min(id) FROM router.payment WHERE state = 'approved' AND account_id = '')"
DONE = "(SELECT id FROM bridge.operation WHERE state = 'done')"
QUEUED = "(SELECT id FROM bridge.operation WHERE state = 'queued')"
NOBODY = "'PY000000000000000000'"
EVENT = "INSERT INTO router.event SELECT id, version, '', state, 'x', '{}', 'x', now() FROM "

TAMPERED: Sequence[tuple[str, str, set[str]]] = (
    (
        "a deposit's entry names another payment",
        f"UPDATE ledger.entry SET key = {NOBODY} WHERE kind = 1 AND key = {PAID}",
        {"credit-off-payment"},
    ),
    (
        "a payment was approved by hand",
        (
            "UPDATE router.payment SET state = 'approved', version = version + 1 "
            f"WHERE state = 'declined'; {EVENT} router.payment WHERE state = 'approved' "
            "ON CONFLICT DO NOTHING"
        ),
        {"credit-off-payment", "charge-off-books", "end-untold"},
    ),
    (
        "a deposit credited another client",
        f"UPDATE router.payment SET client_id = 'CL000000000000000000' WHERE id = {PAID}",
        {"credit-off-amount"},
    ),
    (
        "a payment says another amount than was credited",
        f"UPDATE router.payment SET amount_minor = amount_minor + 1 WHERE id = {PAID}",
        {"credit-off-amount"},
    ),
    (
        "a deposit was booked on a provider that did not charge it",
        f"UPDATE router.attempt SET psp = 'coral' WHERE payment_id = {PAID}",
        {"credit-off-amount"},
    ),
    (
        "a second charge is in nobody's books",
        (
            "UPDATE router.attempt SET state = 'approved', version = version + 1 "
            f"WHERE state = 'declined'; {EVENT} router.attempt ON CONFLICT DO NOTHING"
        ),
        {"charge-off-books"},
    ),
    (
        "a charge of another amount was made smaller",
        (
            "UPDATE router.attempt SET message = 'charged 1 minor units of EUR' "
            "WHERE state = 'mismatch'"
        ),
        {"mismatch-off-books"},
    ),
    (
        "a charge of another amount is booked for an attempt that never was",
        "UPDATE ledger.entry SET key = 'AT000000000000000000' WHERE kind = 4",
        {"mismatch-off-books"},
    ),
    (
        "a charge of another amount was booked on another provider",
        "UPDATE router.attempt SET psp = 'coral' WHERE state = 'mismatch'",
        {"mismatch-off-books"},
    ),
    (
        "a refund is booked and was not made",
        "UPDATE gateway.outbox SET state = 'waiting' WHERE kind = 'refund'",
        {"refund-off-surplus"},
    ),
    (
        "nobody asked for the refund of a surplus",
        "UPDATE gateway.outbox SET kind = 'forgotten' WHERE kind = 'refund'",
        {"refund-off-surplus"},
    ),
    (
        "a surplus entry names another attempt",
        "UPDATE ledger.entry SET key = 'AT000000000000000000' WHERE kind = 2",
        {"refund-off-surplus"},
    ),
    (
        "an operation pays another deposit",
        f"UPDATE bridge.operation SET payment_id = {NOBODY} WHERE id = {DONE}",
        {"operation-off-payment"},
    ),
    (
        "an operation has another amount than its deposit and its entries",
        f"UPDATE bridge.operation SET amount_minor = 1 WHERE id = {DONE}",
        {"operation-off-payment", "transfer-off-amount", "platform-off-books"},
    ),
    (
        "a transfer that is not done was put back by hand",
        (
            "UPDATE bridge.operation SET state = 'refused' WHERE state = 'queued'; "
            "INSERT INTO bridge.event (object_id, from_state, to_state, event, cause, actor, at) "
            "SELECT id, '', state, 'x', '{}', 'x', now() FROM bridge.operation"
        ),
        {"transfer-off-operation", "transit-off-books"},
    ),
    (
        "an account was given to another client after money went there",
        "UPDATE bridge.account SET client_id = 'CL000000000000000000'",
        {"transfer-off-amount"},
    ),
    (
        "a payment's state was moved without an event",
        "UPDATE router.payment SET state = 'review' WHERE state = 'declined'",
        {"state-off-events"},
    ),
    (
        "an attempt's state was moved without an event",
        "UPDATE router.attempt SET state = 'not_found' WHERE state = 'declined'",
        {"state-off-events"},
    ),
    (
        "an account's state was moved without an event",
        "UPDATE bridge.account SET state = 'verify_failed'",
        {"state-off-events"},
    ),
    (
        "an operation's state was moved without an event",
        (
            "UPDATE bridge.operation SET state = 'unknown', sent_at = now(), unknown_at = now() "
            "WHERE state = 'queued'"
        ),
        {"state-off-events"},
    ),
    (
        "a client's state was moved without an event",
        "UPDATE gateway.client SET state = 'trading_enabled' WHERE state = 'deposit_enabled'",
        {"state-off-events"},
    ),
    (
        "a question was refused without an event",
        "UPDATE gateway.approval SET state = 'refused', open_key = NULL WHERE state = 'open'",
        {"state-off-events"},
    ),
    (
        "an item was closed without an event",
        "UPDATE gateway.item SET state = 'resolved', resolved = now() WHERE kind = 'test'",
        {"state-off-events"},
    ),
    (
        "an event was removed from a subscriber's row of numbers",
        "DELETE FROM gateway.outbox WHERE no = 2 AND lane LIKE 'subscriber:%'",
        {"outbox-numbers"},
    ),
    (
        "an event bears a number that was not given",
        "UPDATE gateway.outbox SET no = 1000 WHERE no = 1 AND lane LIKE 'subscriber:%'",
        {"outbox-numbers"},
    ),
    (
        "the end of a deposit is told to another subscriber",
        f"UPDATE router.payment SET caller = 'other' WHERE id = {PAID}",
        {"end-untold"},
    ),
    (
        "a caller's key stands for a payment that does not exist",
        f"UPDATE gateway.idempotency SET subject = {NOBODY} WHERE subject = {PAID}",
        {"key-without-object"},
    ),
    (
        "a vote was added that nobody gave",
        (
            "UPDATE gateway.approval SET votes = votes || '{eve}'::text[], "
            "authorities = authorities || '{eve}'::text[] WHERE state = 'open'"
        ),
        {"approval-off-votes"},
    ),
    (
        "a version of the rulebook was put into force past those who agree",
        (
            "INSERT INTO gateway.rulebook_version (id, version, state, hash, base, areas, agreed, "
            "approvals, restart, number, author, author_role, reason, correlation, created, since) "
            "SELECT 'RV' || repeat('0', 18), 1, 'effective', hash, '', '{plans}', '{plans}', "
            "'{AP}', false, 1, 'eve', '', 'x', '', now(), now() FROM gateway.rulebook_in_force"
        ),
        {"rulebook-unagreed", "state-off-events"},
    ),
    (
        "the audit row of a command was removed",
        f"DELETE FROM gateway.audit WHERE subject = {PAID}",
        {"object-without-audit"},
    ),
    (
        "the audit row of a command is there twice",
        (
            "INSERT INTO gateway.audit SELECT id || 'x', at, actor, role, on_behalf_of, command, "
            f"subject, before, after, reason, correlation, key_id FROM gateway.audit "
            f"WHERE subject = {PAID}"
        ),
        {"object-without-audit"},
    ),
)


@pytest.mark.parametrize(
    ("sql", "codes"), [t[1:] for t in TAMPERED], ids=[t[0].replace(" ", "-") for t in TAMPERED]
)
async def test_each_disagreement_is_named(
    owner: asyncpg.Connection, sql: str, codes: set[str]
) -> None:
    """Rows changed behind the product's back are named by the rooms' code for it, and no other."""
    await owner.execute("SET session_replication_role = replica")  # no trigger stands in the way
    await owner.execute(sql)
    named = await verify.agree(owner)
    assert {wrong.code for wrong in named} == codes, named


@pytest.mark.parametrize(
    ("said", "codes"),
    [
        ("charged 100 minor units of ZZZ", set()),  # no book can hold what nobody knows
        ("charged 0 minor units of EUR", set()),
        ("charged 100 minor units of USDT", {"mismatch-off-books"}),
    ],
)
async def test_a_charge_in_a_currency_that_nobody_knows_is_in_no_book(
    owner: asyncpg.Connection, said: str, codes: set[str]
) -> None:
    """What was charged instead must be booked exactly where its currency is one we know."""
    await owner.execute(
        "INSERT INTO router.attempt SELECT 'AT000000000000000000', payment_id, no + 1, version, "
        "psp, state, lease_owner, lease_until, psp_reference, code, category, cascade, $1, "
        "inquiries, not_found_at, sent_at, updated FROM router.attempt WHERE state = 'mismatch'",
        said,
    )
    await owner.execute(
        "INSERT INTO router.event SELECT id, version, '', state, 'x', '{}', 'x', now() "
        "FROM router.attempt ON CONFLICT DO NOTHING"
    )
    assert {wrong.code for wrong in await verify.agree(owner)} == codes


async def _deposit_of(conn: asyncpg.Connection, book: int) -> Entry:
    """The entry of a wallet deposit, as if it were booked in this book."""
    row = await conn.fetchrow(f"SELECT id, client_id FROM router.payment WHERE id = {PAID}")
    return entries.deposit(book, row["id"], row["client_id"], "acme", Money(10_000, EUR), DAY)


async def _adjusted(conn: asyncpg.Connection, kind: str, owner: str) -> Entry:
    """Money taken from one account by two people who never met our operations."""
    approved = Approved("AP000000000000000001", "ann", "bob", "policy")
    place = AccountName(kind, owner, "EUR")
    aside = AccountName("suspense", "acme", "EUR")
    return entries.adjustment(1, "by-hand", place, aside, 1, DAY, approved)


async def twice_in_two_books(conn: asyncpg.Connection) -> Entry:
    """The same deposit in another entity's book."""
    return await _deposit_of(conn, 2)


async def a_deposit_of_nobody(conn: asyncpg.Connection) -> Entry:
    """A wallet that grows without a payment."""
    return entries.deposit(
        1, "PY000000000000000000", "CL000000000000000000", "acme", Money(1, EUR), DAY
    )


async def a_surplus_of_nobody(conn: asyncpg.Connection) -> Entry:
    """A surplus without any charge."""
    return entries.surplus(
        1, "AT000000000000000000", "PY000000000000000000", "acme", Money(1, EUR), DAY
    )


async def a_refund_of_nobody(conn: asyncpg.Connection) -> Entry:
    """A refund of a surplus that never was."""
    return entries.refund(
        1, "RF000000000000000000", "PY000000000000000000", "acme", Money(1, EUR), DAY
    )


async def money_off_the_platform(conn: asyncpg.Connection) -> Entry:
    """Less on the platform than its operations say."""
    return await _adjusted(
        conn, "on_platform", await conn.fetchval("SELECT id FROM bridge.account")
    )


async def money_lost_in_transit(conn: asyncpg.Connection) -> Entry:
    """Less in transit than what is on its way."""
    return await _adjusted(conn, "in_transit", "mt5-live")


async def a_transfer_of_nobody(conn: asyncpg.Connection) -> Entry:
    """A transfer that no operation stands for."""
    client_id = await conn.fetchval(f"SELECT client_id FROM router.payment WHERE id = {PAID}")
    return entries.transfer(
        "transfer_out", 1, "BO000000000000000000", client_id, "mt5-live", "AC", Money(1, EUR), DAY
    )


@pytest.mark.parametrize(
    ("forged", "codes"),
    [
        (twice_in_two_books, {"credit-off-payment"}),
        (a_deposit_of_nobody, {"credit-off-payment"}),
        (a_surplus_of_nobody, {"charge-off-books", "refund-off-surplus"}),
        (a_refund_of_nobody, {"refund-off-surplus"}),
        (money_off_the_platform, {"platform-off-books", "adjustment-off-approval"}),
        (money_lost_in_transit, {"transit-off-books", "adjustment-off-approval"}),
        (a_transfer_of_nobody, {"transfer-off-operation", "transit-off-books"}),
    ],
)
async def test_a_balanced_entry_that_no_room_stands_for_is_named(
    owner: asyncpg.Connection,
    forged: Callable[[asyncpg.Connection], Awaitable[Entry]],
    codes: set[str],
) -> None:
    """The books alone agree with it; the room whose money it would be does not."""
    entry = await forged(owner)
    async with owner.transaction():
        await post(owner, Numbers(), [entry])
    assert await verify.verify_books(owner) == []
    named = await found(owner)
    assert {code for code, _, _ in named} == codes, named


REFUSE_NOTHING = "RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$"
UNDEFENDED: Sequence[tuple[str, str, str]] = (
    ("DROP TRIGGER audit_is_fact ON gateway.audit", "trigger-missing", "audit_is_fact"),
    (
        "ALTER TABLE gateway.audit DISABLE TRIGGER audit_is_fact",
        "trigger-disabled",
        "gateway.audit.audit_is_fact",
    ),
    (
        (
            "CREATE OR REPLACE TRIGGER audit_is_fact BEFORE DELETE ON gateway.audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change()"
        ),
        "trigger-changed",
        "gateway.audit.audit_is_fact",
    ),
    (
        (
            "CREATE TRIGGER mine BEFORE INSERT ON router.payment "
            "FOR EACH ROW EXECUTE FUNCTION gateway.refuse_change()"
        ),
        "trigger-added",
        "router.payment.mine",
    ),
    (
        f"CREATE OR REPLACE FUNCTION gateway.refuse_change() {REFUSE_NOTHING}",
        "function-changed",
        "gateway.refuse_change",
    ),
    (
        "ALTER FUNCTION gateway.refuse_change() SECURITY DEFINER",
        "function-changed",
        "gateway.refuse_change",
    ),
    (f"CREATE FUNCTION bridge.mine() {REFUSE_NOTHING}", "function-changed", "bridge.mine"),
    ("GRANT DELETE ON gateway.audit TO brokerd_daemon", "grant-added", "gateway.audit"),
    ("GRANT DELETE ON router.event TO PUBLIC", "grant-added", "router.event"),
    (
        "GRANT UPDATE (amount_minor) ON router.payment TO brokerd_daemon",
        "grant-added",
        "router.payment",
    ),
    ("GRANT CREATE ON SCHEMA bridge TO brokerd_daemon", "grant-added", "bridge"),
    ("REVOKE INSERT ON bridge.job FROM brokerd_daemon", "grant-missing", "bridge.job"),
    ("ALTER TABLE gateway.item OWNER TO brokerd_daemon", "grant-added", "gateway.item"),
)


@pytest.mark.parametrize(
    ("sql", "code", "subject"), UNDEFENDED, ids=[u[0][:60] for u in UNDEFENDED]
)
async def test_each_lost_defence_of_a_room_is_named(
    owner: asyncpg.Connection, sql: str, code: str, subject: str
) -> None:
    """A trigger, function or grant that is not what the migrations made is named by its place."""
    await owner.execute(sql)
    named = await found(owner)
    assert code in {code for code, _, _ in named}, named
    assert {subject} == {subject for _, subject, _ in named}, named


BY_THE_DAEMON: Sequence[tuple[str, str, set[str]]] = (
    (
        "a balance moved without postings",
        (
            "UPDATE ledger.balance SET posted = posted - 1 WHERE version = "
            "(SELECT max(version) FROM ledger.balance)"
        ),
        {"balance-without-postings"},
    ),
    (
        "an entry without any posting",
        (
            "INSERT INTO ledger.entry (book_id, id, kind, key, content, effective, recorded, ref, "
            "postings) VALUES (1, -1, 1, 'k', '', now(), now(), '', 2)"
        ),
        {"entry-without-postings", "credit-off-payment"},
    ),
    (
        "an act that left a number out",
        (
            "INSERT INTO gateway.act (person, place, no, action, subject, case_id, at, actor, "
            "role, grant_id, approval, correlation) VALUES ('ann', 'CL1', 2, 'kyc.approve', "
            "'CL1', '', now(), 'ann', 'r', '', '', 'c')"
        ),
        {"act-numbers"},
    ),
    (
        "a payment moved without an event",
        "UPDATE router.payment SET state = 'review' WHERE state = 'declined'",
        {"state-off-events"},
    ),
)


@pytest.mark.parametrize(
    ("sql", "codes"), [t[1:] for t in BY_THE_DAEMON], ids=[t[0] for t in BY_THE_DAEMON]
)
async def test_what_the_daemons_rights_still_allow_is_named(
    migrated_cluster: Cluster, built: str, sql: str, codes: set[str]
) -> None:
    """What raw SQL of the daemon's own role can store wrongly, `verify` names."""
    async with fresh_database(migrated_cluster, template=built) as copy:
        daemon = await copy.connect()
        await daemon.execute(sql)
        assert {wrong.code for wrong in await verify.run(copy.daemon_dsn)} == codes


REFUSED: Sequence[str] = (
    "UPDATE ledger.entry SET ref = 'x'",
    "DELETE FROM ledger.entry",
    "TRUNCATE ledger.entry",
    "UPDATE ledger.posting SET amount = amount + 1",
    "DELETE FROM ledger.posting",
    "TRUNCATE ledger.posting",
    "UPDATE ledger.account SET owner = 'x'",
    "DELETE FROM ledger.balance",
    "UPDATE ledger.balance SET floor = NULL",
    "UPDATE ledger.balance SET posted = 1 WHERE floor = 0",  # a wallet below nothing
    "UPDATE ledger.fact SET body = '{}'",
    "UPDATE gateway.audit SET actor = 'x'",
    "DELETE FROM gateway.audit",
    "UPDATE router.payment SET amount_minor = 1",
    "UPDATE router.event SET to_state = 'approved'",
    "DELETE FROM router.event",
    "UPDATE bridge.operation SET amount_minor = 1",
    "DELETE FROM bridge.event",
    "DELETE FROM bridge.job",
    "DROP TRIGGER postings_are_proved ON ledger.posting",
    "ALTER TABLE ledger.posting DISABLE TRIGGER ALL",
    "SET session_replication_role = replica",
    "INSERT INTO ledger.posting VALUES (1, 1, 0, 1, 1000, 5, 5)",  # one side alone
    (
        "INSERT INTO ledger.posting SELECT book_id, entry_id, seq + 2, account_id, version + 1000, "
        "amount, balance FROM ledger.posting LIMIT 1"
    ),  # one more of a booked entry
)


@pytest.mark.parametrize("sql", REFUSED)
async def test_raw_sql_of_the_daemon_is_refused(
    migrated_cluster: Cluster, built: str, sql: str
) -> None:
    """The daemon's role cannot edit or delete what is booked, nor store half an entry."""
    async with fresh_database(migrated_cluster, template=built) as copy:
        daemon = await copy.connect()
        with pytest.raises(asyncpg.PostgresError):
            await daemon.execute(sql)
        assert await verify.run(copy.daemon_dsn) == []


async def test_the_owner_meets_the_triggers_too(owner: asyncpg.Connection) -> None:
    """Rights do not help: while the triggers stand, not even the owner edits what is booked."""
    for sql in REFUSED[:7]:
        with pytest.raises(asyncpg.PostgresError, match="only added to"):
            await owner.execute(sql)
    with pytest.raises(asyncpg.PostgresError, match="facts and never change"):
        await owner.execute("TRUNCATE gateway.audit")


async def test_the_check_reads_and_writes_nothing(owner: asyncpg.Connection) -> None:
    """The check may be taken of a house at work: it runs where nothing can be written."""
    await owner.execute("SET default_transaction_read_only = on")
    assert await found(owner) == []
