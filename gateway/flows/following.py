"""Following a server's deals without end: what fails of itself is tried again, others go on.

Knows when a failure is worth a person's time, and says so once. Refuses to know what is followed,
to pass anything over, and to end whatever stands beside it: a feed that cannot go on must not take
the payments of the house with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final

from config.log import event
from gateway.control.items import item_opened
from gateway.flows.faults import Patience, away, end_if_cancelled
from gateway.flows.outbox import Submit
from gateway.owners import Ownership
from ledger.deals import Fenced
from ledger.ids import Ids
from ledger.units import Unit

log = logging.getLogger("gateway.following")

AGAIN_S: Final = 0.2
STOPPED_S: Final = 10.0  # how long until what is stopped is tried again, and is well if it lasts
FORGOTTEN_S: Final = 600.0  # a failure this long ago says nothing any more
REASON_MAX: Final = 300

Work = Callable[[], Awaitable[None]]


class Following:
    """One piece of work of a server's owner, for as long as it owns the server.

    name  of the work: the item's subject is `<server>:<name>`
    work  runs until cancelled; what it raises is about a row, a stored place, or a bug
    """

    def __init__(
        self,
        *,
        server: str,
        name: str,
        work: Work,
        ownership: Ownership,
        lane: Submit,
        ids: Ids,
        now: Callable[[], datetime],
    ) -> None:
        self._subject = f"{server}:{name}"
        self._work = work
        self._ownership = ownership
        self._lane = lane
        self._ids = ids
        self._now = now
        self._patience = Patience()
        self._stopped = ""

    def trouble(self) -> str:
        """Why it is stopped; "" while it is not, or another replica owns the server."""
        return self._stopped if self._ownership.held else ""

    async def run(self) -> None:
        """Follow until cancelled. Raises Fenced where a newer owner has begun, and nothing else."""
        self._well()
        while True:
            try:
                return await self._attempt()
            except Exception as error:
                if isinstance(error, Fenced):
                    raise
                end_if_cancelled()
                await self._failed(error)
            await asyncio.sleep(STOPPED_S if self._stopped else AGAIN_S)

    async def _attempt(self) -> None:
        """Work until it fails; an attempt that lasts is well, a longer one makes good what was."""
        loop = asyncio.get_running_loop()
        well = loop.call_later(STOPPED_S, self._runs)
        forgotten = loop.call_later(FORGOTTEN_S, self._well)
        try:
            await self._work()
        finally:
            well.cancel()
            forgotten.cancel()

    def _runs(self) -> None:
        self._stopped = ""

    def _well(self) -> None:
        """Whatever failed before is over."""
        self._stopped = ""
        self._patience.forget(self._subject)

    async def _failed(self, error: Exception) -> None:
        """Count a failure; the last one of several is for a person."""
        if away(error):
            event(log, "following.world_away", of=self._subject, why=repr(error))
            return
        log.error("following.failed", exc_info=error, extra={"facts": {"of": self._subject}})
        if self._patience.lost(self._subject):
            self._stopped = _told(error)
        if self._stopped:
            await self._say()

    async def _say(self) -> None:
        """Have an item; where the lane cannot take it now, the next failure asks again."""
        item = item_opened(
            self._ids.new("IT"), "feed-stopped", "platform", self._subject, self._stopped,
            self._now(),
        )  # fmt: skip
        try:
            await self._lane.submit(Unit((item,)))
        except Exception as error:
            if not away(error):
                raise
            event(log, "following.item_waits", of=self._subject, why=repr(error))


def followed(
    works: Mapping[str, Work],
    *,
    server: str,
    ownership: Ownership,
    lane: Submit,
    ids: Ids,
    now: Callable[[], datetime],
    watch: Callable[[str, Callable[[], str]], None],
) -> dict[str, Work]:
    """Each work of a server's owner, followed; `watch` learns whom to ask of trouble."""
    found: dict[str, Work] = {}
    for name, work in works.items():
        one = Following(
            server=server, name=name, work=work, ownership=ownership, lane=lane, ids=ids, now=now
        )
        watch(f"{name}:{server}", one.trouble)
        found[name] = one.run
    return found


def _told(error: Exception) -> str:
    """What failed, as text that the server can keep."""
    said = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
    return said.replace("\0", "")[:REASON_MAX]
