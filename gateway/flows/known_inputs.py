"""What accrual knows of a book's inputs: kept while they move, so that only what is new is read.

Knows contracts, plans and whose clients logins are, as of a version of the inputs. Refuses to know
whether they are still in force: each batch asks for that in its own transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import asyncpg

from ledger.deals import LandedDeal
from ledger.rebates import inputs
from ledger.rebates.inputs import Contract, Dated, Inputs
from ledger.rebates.pipeline import Learned
from ledger.rebates.writer import Moved

ReadContracts = Callable[[asyncpg.Connection, int, int], Awaitable[Sequence[Contract]]]
ReadAttributions = Callable[
    [asyncpg.Connection, str, Sequence[int]], Awaitable[Mapping[int, Dated]]
]
Reattributed = Callable[[asyncpg.Connection, int, int], Awaitable[bool]]


class KnownInputs:
    """The inputs of one book as they were last read.

    contracts     reads those of a book that versions of its inputs after one changed; all after 0
    attributions  reads whose clients logins of a server are, dated
    reattributed  says whether versions of the inputs after one changed whose clients any are
    """

    def __init__(
        self, book: int, contracts: ReadContracts, attributions: ReadAttributions,
        reattributed: Reattributed,
    ) -> None:  # fmt: skip
        self._book = book
        self._contracts = contracts
        self._attributions = attributions
        self._reattributed = reattributed
        self.learned = Learned()
        self._known: Inputs | None = None

    @property
    def version(self) -> int:
        """Which version is known; 0 for none."""
        return 0 if self._known is None else self._known.version

    def forget(self) -> None:
        """Read everything anew."""
        self._known, self.learned = None, Learned()

    async def read(self, conn: asyncpg.Connection) -> Inputs:
        """The inputs as they are; of contracts only those are read that changed since."""
        version = await inputs.version(conn, self._book)  # before the rows, which may be newer
        before = self._known
        if before is not None and before.version == version:
            return before
        if before is not None and await self._reattributed(conn, self._book, before.version):
            self.learned = Learned(self.learned.accounts)
        changed = await self._contracts(conn, self._book, self.version)
        contracts = {} if before is None else dict(before.contracts)
        contracts.update((each.id, each) for each in changed)
        self._known = Inputs(version, contracts, await inputs.plan_versions(conn))
        return self._known

    async def learn(
        self, conn: asyncpg.Connection, feed: int, server: str, deals: Sequence[LandedDeal]
    ) -> None:
        """Know whose clients the logins of these deals are.

        Raises Moved: what they came through may be newer than the contracts that are known. What
        was learned is kept, and forgotten with the next `read` if that is what moved.
        """
        known = self.learned.attributed.setdefault(feed, {})
        unknown = {landed.deal.login for landed in deals}.difference(known)
        if not unknown:
            return
        known.update(await self._attributions(conn, server, sorted(unknown)))
        version = await inputs.version(conn, self._book)
        if version != self.version:
            raise Moved(f"inputs {version}, read as {self.version}")
