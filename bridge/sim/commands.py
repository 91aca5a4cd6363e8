"""What the simulated platform answers to each command, once the connection is authenticated.

Knows parameters, rules and return codes. Refuses to know connections and faults: `mt5.py` has them.
Every scalar of an answer is a JSON string; a business error is a retcode, never an HTTP status.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from random import Random
from typing import Final

import msgspec

from bridge.mt5.retcodes import text_of
from bridge.sim import clock
from bridge.sim.books import Books, Deal, Group, User
from bridge.sim.clock import Wall
from bridge.sim.trades import decimal as _money

Params = Mapping[str, str]

BALANCE_TYPES: Final = frozenset({2, 3, 4, 5, 6})
MONEY_LIMIT: Final = 1_000_000_000
LEVERAGE_MAX: Final = 500
COMMENT_MAX: Final = 31
PAGE_MAX: Final = 100
_CLASSES: Final = (r"[a-z]", r"[A-Z]", r"[0-9]", r"[^A-Za-z0-9]")


class Reply(msgspec.Struct, frozen=True):
    """An answer before it is JSON: a code, the payload and values beside it."""

    code: int = 0
    answer: object = None
    top: Mapping[str, str] = msgspec.field(default_factory=dict)

    def encode(self) -> bytes:
        """The envelope as bytes."""
        envelope: dict[str, object] = {"retcode": f"{self.code} {text_of(self.code)}", **self.top}
        if self.answer is not None:
            envelope["answer"] = self.answer
        return msgspec.json.encode(envelope)


class Failed(Exception):
    """The command ends with this return code and changes nothing."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Desk(msgspec.Struct, frozen=True):
    """What a command works with: the books, the server's wall clock, who asks, and chance."""

    books: Books
    wall: Wall
    manager: int
    chance: Random


def perform(desk: Desk, command: str, params: Params) -> Reply:
    """Carry out one command; an unknown one is 12002, bad parameters are 3."""
    handler = COMMANDS.get(command)
    if handler is None:
        return Reply(12002)
    try:
        return handler(desk, params)
    except Failed as no:
        return Reply(no.code)


def _test_access(desk: Desk, params: Params) -> Reply:
    return Reply()


def _time_server(desk: Desk, params: Params) -> Reply:
    return Reply(answer={"Time": clock.server_text(desk.wall.seconds())})


def _group_get(desk: Desk, params: Params) -> Reply:
    group = desk.books.groups.get(params.get("group", ""))
    return Reply(answer=_group_json(group)) if group else Reply(13)


def _user_add(desk: Desk, params: Params) -> Reply:
    group = desk.books.groups.get(params.get("group", ""))
    if group is None:
        raise Failed(8)
    if not params.get("name"):
        raise Failed(3)
    for name in ("pass_main", "pass_investor"):
        _check_password(params.get(name, ""), group.password_min)
    user = User(
        login=_login_for(desk.books, group, _integer(params, "login", 0)),
        group=group.group,
        rights=_integer(params, "rights", 355),
        leverage=_leverage(params),
        name=params["name"][:127],
        id=params.get("id", ""),
        comment=params.get("comment", "")[:63],
        registration=desk.wall.seconds(),
    )
    desk.books.record(user)
    return Reply(answer=_user_json(desk.books, user), top={"login": str(user.login)})


def _login_for(books: Books, group: Group, asked: int) -> int:
    """The login asked for, if it is this server's and free; for 0 the group's next free one."""
    if asked == 0:
        return _next_login(books, group)
    ranges = [(each.login_from, each.login_to) for each in books.groups.values()]
    if not any(low <= asked <= high for low, high in ranges if low) and any(
        low for low, _ in ranges
    ):
        raise Failed(3003)
    if asked in books.users:
        raise Failed(3004)
    return asked


def _next_login(books: Books, group: Group) -> int:
    low, high = group.login_from or 1, group.login_to or 2**31
    taken = [login for login in books.users if low <= login <= high]
    login = max(taken, default=low - 1) + 1
    if login > high:
        raise Failed(3002)
    return login


def _check_password(password: str, shortest: int) -> None:
    """All four kinds of characters, not shorter than the group wants, sixteen at most."""
    if not shortest <= len(password) <= 16:
        raise Failed(3006)
    if not all(re.search(kind, password) for kind in _CLASSES):
        raise Failed(3006)


def _leverage(params: Params) -> int:
    leverage = _integer(params, "leverage")
    if not 1 <= leverage <= LEVERAGE_MAX:
        raise Failed(3)
    return leverage


def _user_get(desk: Desk, params: Params) -> Reply:
    return Reply(answer=_user_json(desk.books, _user(desk, params)))


def _user_update(desk: Desk, params: Params) -> Reply:
    """Change what was given; a balance is accepted and ignored, as the platform does."""
    user = _user(desk, params)
    target = desk.books.groups.get(params.get("group", user.group))
    if target is None:
        raise Failed(8)
    if target.currency != desk.books.groups[user.group].currency:
        raise Failed(3010)
    changed = msgspec.structs.replace(
        user,
        group=target.group,
        rights=_integer(params, "rights", user.rights),
        leverage=_integer(params, "leverage", user.leverage),
        name=params.get("name", user.name),
        id=params.get("id", user.id),
        comment=params.get("comment", user.comment)[:63],
    )
    desk.books.record(changed)
    return Reply(answer=_user_json(desk.books, changed))


def _user_logins(desk: Desk, params: Params) -> Reply:
    masks = params.get("group", "").split(",")
    return Reply(answer=[str(user.login) for user in _covered(desk.books, masks)])


def _account_get(desk: Desk, params: Params) -> Reply:
    return Reply(answer=_account_json(desk.books, _user(desk, params)))


def _trade_balance(desk: Desk, params: Params) -> Reply:
    user = _user(desk, params)
    action = _integer(params, "type")
    minor = _amount_minor(params.get("balance", ""), desk.books.groups[user.group].digits)
    if action not in BALANCE_TYPES:
        raise Failed(3)
    checked = params.get("check_margin", "1") != "0"
    if minor < 0 and checked and -minor > desk.books.free(user.login):
        raise Failed(10019)
    utc_ms = desk.wall.utc_ms()
    deal = Deal(
        ticket=desk.books.last_ticket + 1,
        login=user.login,
        action=action,
        minor=minor,
        comment=params.get("comment", "")[:COMMENT_MAX],
        time=desk.wall.wall_ms(utc_ms) // 1000,
        utc_ms=utc_ms,
        dealer=desk.manager,
    )
    desk.books.record(deal)
    return Reply(answer={"Ticket": str(deal.ticket)})


def _amount_minor(text: str, digits: int) -> int:
    """The amount in minor units; zero and broken ones are 3, too much is 4005."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise Failed(3) from None
    if not amount.is_finite():
        raise Failed(3)
    if abs(amount) > MONEY_LIMIT:
        raise Failed(4005)
    minor = amount.scaleb(digits)
    if minor == 0 or minor != int(minor):
        raise Failed(3)
    return int(minor)


def _deal_get(desk: Desk, params: Params) -> Reply:
    row = desk.books.tape.row(_integer(params, "ticket"))
    return Reply(13) if row is None else Reply(answer=row)


def _deal_get_total(desk: Desk, params: Params) -> Reply:
    count = desk.books.tape.count_of(_user(desk, params).login, *_window(params))
    return Reply(answer={"Total": str(count)})


def _deal_get_page(desk: Desk, params: Params) -> Reply:
    offset, total = _integer(params, "offset"), _integer(params, "total")
    if offset < 0 or not 0 < total <= PAGE_MAX:
        raise Failed(3)
    login = _user(desk, params).login
    return Reply(answer=desk.books.tape.page_of(login, *_window(params), offset, total))


def _deal_get_batch(desk: Desk, params: Params) -> Reply:
    """By logins, by group masks or by tickets, one kind only; the order is nobody's promise."""
    if sum(kind in params for kind in ("login", "group", "ticket")) != 1:
        raise Failed(3)
    rows = _batch(desk.books, params)
    if symbol := params.get("symbol"):
        marked = b'"Symbol":%s,' % msgspec.json.encode(symbol)
        rows = [row for row in rows if marked in bytes(row)]
    desk.chance.shuffle(rows)
    return Reply(answer=rows)


def _batch(books: Books, params: Params) -> list[msgspec.Raw]:
    """Every row that was asked for."""
    if "ticket" in params:
        rows = map(books.tape.row, _integers(params["ticket"]))
        return [row for row in rows if row is not None]
    if "group" in params:
        users = _covered(books, params["group"].split(","))
        return books.tape.window(*_window(params), {user.login for user in users})
    return books.tape.window(*_window(params), set(_integers(params["login"])))


def _window(params: Params) -> tuple[int, int]:
    """The window's ends, both of them included."""
    return _integer(params, "from"), _integer(params, "to")


def _covered(books: Books, masks: list[str]) -> list[User]:
    """Users of every group that a mask covers; a mask with a leading `!` takes groups away."""
    wanted = [mask for mask in masks if not mask.startswith("!")]
    barred = [mask[1:] for mask in masks if mask.startswith("!")]
    covered = {
        group
        for group in books.groups
        if any(_matches(group, mask) for mask in wanted)
        and not any(_matches(group, mask) for mask in barred)
    }
    return [user for user in books.users.values() if user.group in covered]


def _matches(group: str, mask: str) -> bool:
    """`*` matches anything; `[` and `?` of a name mean themselves."""
    return fnmatchcase(group, re.sub(r"([\[?])", r"[\1]", mask))


def _user(desk: Desk, params: Params) -> User:
    user = desk.books.users.get(_integer(params, "login"))
    if user is None:
        raise Failed(13)
    return user


def _integer(params: Params, name: str, default: int | None = None) -> int:
    """A whole number among the parameters; without a default it must be there."""
    text = params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"-?[0-9]{1,19}", text, re.ASCII):
        raise Failed(3)
    return int(text)


def _integers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [_integer({"each": each}, "each") for each in text.split(",")]


def _group_json(group: Group) -> dict[str, str]:
    return {
        "Group": group.group,
        "Server": "1",
        "PermissionsFlags": "2",
        "AuthMode": "0",
        "AuthPasswordMin": str(group.password_min),
        "Company": "Simulated Broker",
        "Currency": group.currency,
        "CurrencyDigits": str(group.digits),
        "TradeFlags": "31",
        "MarginMode": "2",
    }


def _user_json(books: Books, user: User) -> dict[str, str]:
    digits = books.groups[user.group].digits
    return {
        "Login": str(user.login),
        "Group": user.group,
        "CertSerialNumber": "0",
        "Rights": str(user.rights),
        "Registration": str(user.registration),
        "LastAccess": "0",
        "Name": user.name,
        "Company": "",
        "Account": "",
        "Country": "",
        "Language": "0",
        "ID": user.id,
        "Status": "",
        "Comment": user.comment,
        "Color": "4278190080",
        "Leverage": str(user.leverage),
        "Agent": "0",
        "CurrencyDigits": str(digits),
        "Balance": _money(books.balance(user.login), digits),
        "Credit": _money(books.credit(user.login), digits),
    }


def _account_json(books: Books, user: User) -> dict[str, str]:
    digits = books.groups[user.group].digits
    balance, credit = books.balance(user.login), books.credit(user.login)
    margin = books.margins.get(user.login, 0)
    return {
        "Login": str(user.login),
        "CurrencyDigits": str(digits),
        "Balance": _money(balance, digits),
        "Credit": _money(credit, digits),
        "Margin": _money(margin, digits),
        "MarginFree": _money(balance + credit - margin, digits),
        "MarginLeverage": str(user.leverage),
        "Profit": _money(0, digits),
        "Equity": _money(balance + credit, digits),
    }


COMMANDS: Final[Mapping[str, Callable[[Desk, Params], Reply]]] = {
    "test/access": _test_access,
    "time/server": _time_server,
    "group/get": _group_get,
    "user/add": _user_add,
    "user/get": _user_get,
    "user/update": _user_update,
    "user/logins": _user_logins,
    "user/account/get": _account_get,
    "trade/balance": _trade_balance,
    "deal/get": _deal_get,
    "deal/get_total": _deal_get_total,
    "deal/get_page": _deal_get_page,
    "deal/get_batch": _deal_get_batch,
}
