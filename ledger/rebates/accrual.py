"""Accrual: from landed deals to rebate lines, their sums and their bytes, purely in memory.

Knows who earns by a deal, remembers what it resolved and priced, and adds up a batch. Refuses to
know the database, the clock and the numbers that a batch will get: the writer gives those.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Final

import msgspec

from ledger.deals import LandedDeal
from ledger.facts import Deal
from ledger.rebates.chain import Span, chain, dated
from ledger.rebates.days import MIDNIGHT, settlement_day
from ledger.rebates.distribute import Level, Part, distribute, levels
from ledger.rebates.encode import AMOUNT, Copy, deal_bytes, template
from ledger.rebates.inputs import Dated, Inputs
from ledger.rebates.lines import Component, LineKind, Reason
from ledger.rebates.rounding import Place, Remainder, Remainders, period

DEALS_MAX: Final = 4_000  # in one batch: what is fixed in a commit is small beside so many lines
SLICE: Final = 100  # deals computed before the loop serves others: below 10 ms even when all is new
SUMMED: Final = 300  # different shares added up before the loop serves others
WAYS_KEPT: Final = 200_000  # (login, symbol) resolved before memory starts anew
SHARES_KEPT: Final = 50_000  # (route, volume) priced before memory starts anew
SELL: Final = 1  # actions above it move money without a trade

_PER_LOT: Final = int(Component.PER_LOT)


class Share(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What one volume on one route does, whichever deal it is.

    rows     its lines as encoded rows with blanks
    accounts the account and amount of each of these lines
    left     what the levels leave below a minor unit, where it is not zero
    zero     the reason of its zero line
    """

    rows: bytes = b""
    accounts: tuple[tuple[int, int], ...] = ()
    left: tuple[tuple[Place, int], ...] = ()
    zero: Reason | None = None


class Route(msgspec.Struct, frozen=True, eq=False):
    """A symbol under one chain for as long as nothing of it changes; no levels: nobody earns."""

    feed: int
    span: Span
    levels: tuple[tuple[Level, int], ...]  # each with its account
    shares: dict[int, Share]


Attributed = dict[int, dict[int, Dated]]  # by feed and login
Way = tuple[datetime, datetime, dict[int, Share], Route]  # since, until, the route's shares, it


class Computed(msgspec.Struct, frozen=True):
    """A batch of one feed and one day, computed; only its numbers are open.

    settles     the settlement day that all its deals are of, by the book's `cut_off`
    deals       the hash of the deals it was computed from
    contracts   account -> (net, lines, its last row)
    remainders  the new sums of the accounts that were moved
    reasons     lines by reason
    """

    book: int
    feed: int
    first_deal: int
    last_deal: int
    day: date
    settles: date
    cut_off: time
    inputs: int
    deals: bytes
    copy: Copy
    contracts: Mapping[int, tuple[int, int, int]]
    remainders: Mapping[Place, Remainder]
    reasons: Mapping[Reason, int]


class Sums:
    """What shares come to: by account, what is left over, and lines by reason."""

    def __init__(self) -> None:
        self.contracts: dict[int, list[int]] = {}  # account -> net, lines
        self.left: dict[Place, int] = {}
        self.reasons: Counter[Reason] = Counter()

    def add(self, share: Share, times: int) -> None:
        """Count a share that many times."""
        contracts, paid = self.contracts, len(share.accounts)
        for account, amount in share.accounts:
            sums = contracts.get(account)
            if sums is None:
                contracts[account] = [amount * times, times]
            else:
                sums[0] += amount * times
                sums[1] += times
        for place, exact in share.left:
            self.left[place] = self.left.get(place, 0) + exact * times
        if share.zero is not None:
            self.reasons[share.zero] += times
            paid -= 1
        self.reasons[Reason.PAID] += paid * times


class Sheet:
    """A batch while it is computed: deals are added in their order."""

    def __init__(self, feed: int, first: LandedDeal, cut_off: time) -> None:
        self.feed = feed
        self.first_deal = self.last_deal = first.no
        self.day = first.deal.at.date()
        self.settles = settlement_day(first.deal.at, cut_off)
        self.rows: list[bytes] = []
        self.deals: list[int] = []  # of each row
        self.concerned: dict[int, int] = {}  # row -> deal, where it is another
        self.shares: list[Share] = []
        self.counts: Counter[Share] = Counter()
        self.sums = Sums()
        self.seen = hashlib.sha256()

    def put(self, no: int, share: Share) -> None:
        """Add a share's lines as caused by deal `no`."""
        self.shares.append(share)
        self.rows.append(share.rows)
        self.deals += (no,) * len(share.accounts)


def batch_length(
    deals: Sequence[LandedDeal], limit: int = DEALS_MAX, cut_off: time = MIDNIGHT
) -> int:
    """How many of the deals, from the first on, belong to one batch: one UTC day, one side of its
    settlement cut-off, and not too many.
    """
    if not deals:
        return 0
    begin = datetime.combine(deals[0].deal.at.date(), MIDNIGHT, UTC)
    end = begin + timedelta(days=1)
    cut = datetime.combine(begin, cut_off, UTC)
    begin, end = (begin, cut) if deals[0].deal.at < cut else (cut, end)
    for number, landed in enumerate(deals[:limit]):
        if not begin <= landed.deal.at < end:
            return number
    return min(len(deals), limit)


class Engine:
    """Accrual of one book under one version of its inputs.

    accounts    the accrued account of each contract
    attributed  what was learned before; it is this engine's from now on
    cut_off     where the book's settlement days end, UTC: no batch may have deals of two of them
    """

    def __init__(
        self, book: int, inputs: Inputs, accounts: Mapping[str, int],
        attributed: Attributed | None = None, cut_off: time = MIDNIGHT,
    ) -> None:  # fmt: skip
        self.book = book
        self.cut_off = cut_off
        self.inputs = inputs
        self._accounts = accounts
        self._attributed: Attributed = {} if attributed is None else attributed
        self._ways: dict[int, dict[tuple[int, str], Way]] = {}
        self._routes: dict[tuple[int, str, str], Route] = {}
        self._openings: dict[tuple[int, int, int], Share] = {}
        self._heads: dict[tuple[int, ...], bytes] = {}
        self._priced = 0

    def unknown(self, feed: int, deals: Iterable[LandedDeal]) -> set[int]:
        """Logins of these deals whose attribution was never learned."""
        known = self._attributed.get(feed, {})
        return {landed.deal.login for landed in deals if landed.deal.login not in known}

    def learn(self, feed: int, attributions: Mapping[int, Dated]) -> None:
        """Remember whose clients the logins are: dated contracts, none for an organic client."""
        self._attributed.setdefault(feed, {}).update(attributions)

    def sheet(self, feed: int, first: LandedDeal) -> Sheet:
        """A new batch that begins with deal `first`."""
        return Sheet(feed, first, self.cut_off)

    def add(self, sheet: Sheet, deals: Sequence[LandedDeal]) -> None:
        """Compute deals; each login must have been learned."""
        ways = self._ways.setdefault(sheet.feed, {})
        rows, owners, shares = sheet.rows, sheet.deals, sheet.shares
        begin = len(shares)
        for landed in deals:
            deal = landed.deal
            if deal.action > SELL:
                continue
            if landed.version > 1:
                self._difference(sheet, landed)
                continue
            way = ways.get((deal.login, deal.symbol))
            if way is None or not way[0] <= deal.at < way[1]:
                way = self._way(sheet.feed, deal)
            share = way[2].get(deal.closed)
            if share is None:
                share = self._price(way[3], deal.closed)
            if share.accounts:  # as Sheet.put, in line: this is the path of every deal
                shares.append(share)
                rows.append(share.rows)
                owners += (landed.no,) * len(share.accounts)
        sheet.last_deal = deals[-1].no
        sheet.seen.update(deal_bytes(deals))
        sheet.counts.update(shares[begin:])

    def finish(self, sheet: Sheet, remainders: Remainders) -> Computed:
        """Pay whole minor units out of what the lines leave over; all shares are summed by now."""
        sums = sheet.sums
        moved = remainders.move(period(sheet.settles), sums.left)
        for (account, component), (_, pay) in sorted(moved.items()):
            if pay:
                share = self._rounding(sheet.feed, account, component, pay)
                sheet.concerned[len(sheet.deals)] = 0
                sheet.put(sheet.last_deal, share)
                sums.add(share, 1)
        last = _last_rows(sheet.shares, len(sheet.deals), len(sums.contracts))
        return Computed(
            self.book, sheet.feed, sheet.first_deal, sheet.last_deal, sheet.day,
            sheet.settles, self.cut_off, self.inputs.version, sheet.seen.digest(),
            Copy(sheet.rows, sheet.deals, sheet.concerned),
            {each: (net, lines, last[each])
             for each, (net, lines) in sorted(sums.contracts.items())},
            {place: after for place, (after, _) in sorted(moved.items())}, sums.reasons,
        )  # fmt: skip

    # --- resolving ------------------------------------------------------------------------------

    def route(self, feed: int, deal: Deal) -> Route:
        """The chain that earns by a deal, and what each level earns a lot."""
        return self._way(feed, deal)[3]

    def _way(self, feed: int, deal: Deal) -> Way:
        """Resolve a login and a symbol at the deal's time; remembered for as long as it holds."""
        nearest, span = dated(self._attributed[feed][deal.login], deal.at)
        route = self._route(feed, nearest, deal.symbol, deal.at)
        since, until = max(span.since, route.span.since), min(span.until, route.span.until)
        ways = self._ways.setdefault(feed, {})
        if len(ways) >= WAYS_KEPT:
            ways.clear()
        way = ways[deal.login, deal.symbol] = (since, until, route.shares, route)
        return way

    def _route(self, feed: int, nearest: str, symbol: str, at: datetime) -> Route:
        """The same for a contract; one route serves all its clients."""
        place = (feed, nearest, symbol)
        found = self._routes.get(place)
        if found is not None and found.span.since <= at < found.span.until:
            return found
        if not nearest:
            route = Route(feed, Span(), (), {})
        else:
            links = chain(self.inputs, nearest, at)
            earning = levels(links.links, symbol)
            with_accounts = tuple((level, self._accounts[level.contract]) for level in earning)
            route = Route(feed, links.span, with_accounts, {})
        self._routes[place] = route
        return route

    # --- pricing --------------------------------------------------------------------------------

    def _price(self, route: Route, closed: int) -> Share:
        """What a closed volume earns on a route; remembered."""
        self._priced += 1
        if self._priced > SHARES_KEPT:
            self._priced = 1
            self._routes.clear()
            for ways in self._ways.values():
                ways.clear()
            route.shares.clear()
        share = route.shares[closed] = self._ordinary(route, closed)
        return share

    def _ordinary(self, route: Route, closed: int) -> Share:
        if not route.levels:
            return Share()
        if closed == 0:
            return self._opening(route)
        return self._share(route.feed, LineKind.ORDINARY, _parts(route, closed), None)

    def _opening(self, route: Route) -> Share:
        """The zero line of a deal that closed nothing; all symbols of a contract share it."""
        level, account = route.levels[0]
        place = (route.feed, account, level.plan)
        share = self._openings.get(place)
        if share is None:
            share = self._openings[place] = self._share(
                route.feed, LineKind.ORDINARY, [(level, account, 0, 0)], Reason.OPENING
            )
        return share

    def _difference(self, sheet: Sheet, landed: LandedDeal) -> None:
        """Lines of a later version: what it changes against the version before, level by level."""
        assert landed.previous is not None, landed
        new, old = (
            _parts(self.route(sheet.feed, deal), deal.closed)
            for deal in (landed.deal, landed.previous)
        )
        before = {account: (amount, left) for _, account, amount, left in old}
        moved = []
        for level, account, amount, left in new:
            was_amount, was_left = before.pop(account, (0, 0))
            moved.append((level, account, amount - was_amount, left - was_left))
        gone = [(level, account, -amount, -left) for level, account, amount, left in old
                if account in before]  # fmt: skip
        if moved or gone:
            every = sorted([*moved, *gone], key=lambda part: part[0].number)
            share = self._share(sheet.feed, LineKind.DIFFERENCE, every, Reason.UNCHANGED)
            begin = len(sheet.deals)
            sheet.put(landed.no, share)
            for number in range(begin, len(sheet.deals)):
                sheet.concerned[number] = landed.first_no

    def _share(
        self, feed: int, kind: LineKind, parts: Sequence[tuple[Level, int, int, int]],
        zero: Reason | None,
    ) -> Share:  # fmt: skip
        """Lines for the parts of a chain: each that is paid, and the lowest that is not."""
        rows, accounts, said = [], [], None
        for level, account, amount, _ in parts:
            if amount:
                reason = Reason.PAID
            elif said is None:
                reason = said = zero or (level.zero if not level.rate_e8 else Reason.CARRIED)
            else:
                continue
            rows.append(self._head(feed, kind, level, account, reason) + AMOUNT.pack(amount))
            accounts.append((account, amount))
        left_over = tuple(((account, _PER_LOT), left) for _, account, _, left in parts if left)
        return Share(b"".join(rows), tuple(accounts), left_over, said)

    def _head(self, feed: int, kind: LineKind, level: Level, account: int, reason: Reason) -> bytes:
        """A row up to its amount; few are different, and they come again with each new volume."""
        place = (feed, kind, account, level.number, level.plan, reason)
        head = self._heads.get(place)
        if head is None:
            row = template(
                self.book, feed, account, _PER_LOT, kind, level.number, reason, level.plan, 0
            )
            head = self._heads[place] = row[: -AMOUNT.size]
        return head

    def _rounding(self, feed: int, account: int, component: int, amount: int) -> Share:
        row = template(
            self.book, feed, account, component, LineKind.ROUNDING, 0, Reason.ROUNDING, 0, amount
        )
        return Share(row, ((account, amount),), (), Reason.ROUNDING)


async def compute_in_slices(
    engine: Engine, remainders: Remainders, feed: int, deals: Sequence[LandedDeal]
) -> Computed:
    """Compute a batch, and let the loop serve others every few milliseconds."""
    sheet = engine.sheet(feed, deals[0])
    for start in range(0, len(deals), SLICE):
        engine.add(sheet, deals[start : start + SLICE])
        await asyncio.sleep(0)
    counts = iter(sheet.counts.items())
    while some := list(islice(counts, SUMMED)):
        for share, times in some:
            sheet.sums.add(share, times)
        await asyncio.sleep(0)
    return engine.finish(sheet, remainders)


def compute(
    engine: Engine, remainders: Remainders, feed: int, deals: Sequence[LandedDeal]
) -> Computed:
    """The same at one go."""
    sheet = engine.sheet(feed, deals[0])
    engine.add(sheet, deals)
    for share, times in sheet.counts.items():
        sheet.sums.add(share, times)
    return engine.finish(sheet, remainders)


def _parts(route: Route, closed: int) -> list[tuple[Level, int, int, int]]:
    """What each level of a route gets for a volume: (level, account, amount, left)."""
    shared: tuple[Part, ...] = distribute([level.rate_e8 for level, _ in route.levels], closed)
    return [
        (level, account, part.amount, part.left)
        for (level, account), part in zip(route.levels, shared, strict=True)
    ]


def _last_rows(shares: Sequence[Share], rows: int, accounts: int) -> dict[int, int]:
    """The number of each account's last row, read from the end until all accounts are found."""
    last: dict[int, int] = {}
    for share in reversed(shares):
        rows -= len(share.accounts)
        for number, (account, _) in enumerate(share.accounts, start=rows):
            last.setdefault(account, number)
        if len(last) == accounts:
            break
    return last
