"""How the simulated provider treats a charge: scripted by a test, or drawn from a profile.

Knows every way to misbehave that it can be told. Refuses to know HTTP and books: it only chooses.
The draw depends on the seed and our reference alone, so a repeated run behaves the same.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0, le=3600)]
Status = Literal["approved", "declined", "pending"]
Settled = Literal["approved", "declined"]
Notices = Literal["none", "once", "twice", "reversed", "forged"]


class Decline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a charge is declined; what is "" is left out of the answer."""

    code: str = "do_not_honor"
    issuer_code: str = ""
    network_advice_code: str = ""
    message: str = "declined by the simulator"


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to one charge, and what its caller gets to see.

    status          what the charge becomes at once
    becomes         what a pending charge becomes after `becomes_after_s`; None: the admin says
    charges         False: nothing happens in the books, whatever is answered
    effect_after_s  the charge takes place that much later; until then an inquiry finds nothing
    answer          plain: as it should be; hang: none; reset: the connection is reset; garbage:
                    200 with a page of HTML; truncated: the connection ends within the body;
                    status: `http_status` and no charge in the body
    amount          charge this amount instead of the one asked for
    notices         of each final state: none; once; twice (with one id); reversed (the final one,
                    then the pending one that came before it); forged (one that is not ours, then
                    the right one)
    match           only for charges whose fields have these values
    times           how many charges it is for, 0 for all
    weight          its share in a profile
    """

    status: Status = "approved"
    decline: Decline = Decline()
    becomes: Settled | None = None
    becomes_after_s: Seconds = 1.0
    charges: bool = True
    effect_after_s: Seconds = 0.0
    answer: Literal["plain", "hang", "reset", "garbage", "truncated", "status"] = "plain"
    http_status: Annotated[int, Meta(ge=200, le=599)] = 500
    answer_after_s: Seconds = 0.0
    amount: str = ""
    notices: Notices = "once"
    notice_after_s: Seconds = 0.0
    match: dict[str, str] = {}
    times: Annotated[int, Meta(ge=0)] = 1
    weight: Annotated[int, Meta(ge=1)] = 1


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mix of behaviours to draw from; without any every charge is approved."""

    behaviour: tuple[Behaviour, ...] = (Behaviour(),)


def read_profile(path: Path | None) -> Profile:
    """The profile of a TOML file, or the one in which every charge is approved.

    Raises msgspec.ValidationError, msgspec.DecodeError and OSError.
    """
    return Profile() if path is None else msgspec.toml.decode(path.read_bytes(), type=Profile)


class Script:
    """Chooses the behaviour of each charge: the first scripted one that fits, else a draw."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self._profile = profile
        self._seed = seed
        self._scripted: list[tuple[Behaviour, int]] = []  # with the charges left, 0 for no end

    @property
    def scripted(self) -> Sequence[Behaviour]:
        """What is still to come, in order."""
        return [behaviour for behaviour, _ in self._scripted]

    def add(self, behaviour: Behaviour) -> None:
        """Treat the next charges that fit like this."""
        self._scripted.append((behaviour, behaviour.times))

    def clear(self) -> None:
        """Forget what was scripted."""
        self._scripted.clear()

    def choose(self, reference: str, fields: Mapping[str, str]) -> Behaviour:
        """The behaviour of the charge with this reference and these fields."""
        for index, (behaviour, left) in enumerate(self._scripted):
            if all(fields.get(name) == value for name, value in behaviour.match.items()):
                if left == 1:
                    del self._scripted[index]
                elif left > 1:
                    self._scripted[index] = behaviour, left - 1
                return behaviour
        return self._draw(reference, fields)

    def _draw(self, reference: str, fields: Mapping[str, str]) -> Behaviour:
        fitting = [
            behaviour
            for behaviour in self._profile.behaviour
            if all(fields.get(name) == value for name, value in behaviour.match.items())
        ]
        if len(fitting) < 2:  # nothing to draw
            return fitting[0] if fitting else Behaviour()
        chance = random.Random(f"{self._seed}:{reference}")
        return chance.choices(fitting, [behaviour.weight for behaviour in fitting])[0]
