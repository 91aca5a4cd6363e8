"""The control rooms put together: what `daemon.py` opens beside the journeys of money.

Knows their constructors and what each is handed. Refuses to decide anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import aiohttp
import asyncpg
import msgspec
from redis.asyncio import Redis

from config.findings import Finding
from config.rulebook import Entity
from config.settings import Settings, SignIn, peers
from gateway.control.access import Access
from gateway.control.audit import Command
from gateway.control.certificates import Certificates
from gateway.control.codes import Safe
from gateway.control.follower import Follower
from gateway.control.issuers import Provider
from gateway.control.keys import operator
from gateway.control.obstacles import needs_restart
from gateway.control.oidc import Issuer, Questions
from gateway.control.passwords import Passwords
from gateway.control.personal import Vault
from gateway.control.policies import KINDS
from gateway.control.rules import Compiled, Rules
from gateway.control.sign_ins import Lasting, SignIns
from gateway.control.signing_in import Admit, SigningIn, Tries
from gateway.control.versions import Enacting
from gateway.flows.approving import Applier, Approving, Emit, Lane
from gateway.flows.asking import Asking
from gateway.flows.assigning import Assigning
from gateway.flows.expiring import Expiring
from gateway.flows.glass import Glass
from gateway.flows.lending import Lending
from gateway.flows.onboarding import Onboarding
from gateway.flows.personal import Personal
from gateway.flows.publishing import Publishing, Reached
from gateway.flows.reattributing import Reattributing
from gateway.flows.tying import Tying
from gateway.http.auth import Keys
from gateway.http.entrance import Entrance
from gateway.http.limits import Limiter, Limits
from gateway.http.origins import Origins, networks
from gateway.opening import Clocks
from ledger.ids import Ids
from router.attempts import Attempts, terminals
from router.psp.connector import Connector

# --- who is calling -----------------------------------------------------------------------------


def entrance(
    *,
    settings: Settings,
    rules: Rules,
    pool: asyncpg.Pool,
    redis: Redis,
    http: aiohttp.ClientSession,
    ids: Ids,
    clocks: Clocks,
) -> Entrance:
    """All ways in: keys, sessions of people, certificates."""
    wanted, pepper = settings.sign_in, settings.control.pepper.reveal().encode()
    passwords = Passwords(clocks.random_bytes) if wanted.passwords else None
    ttl_s = settings.control.key_cache_s

    def access() -> Access:
        return rules.now.access

    sign_ins = SignIns(
        pool, pepper, ids, clocks.random_bytes, clocks.now, clocks.monotonic, access,
        Lasting(timedelta(seconds=wanted.session_s), timedelta(seconds=wanted.idle_s)), ttl_s,
    )  # fmt: skip
    signing_in = SigningIn(
        pool, sign_ins, passwords, Safe(pepper, clocks.random_bytes),
        _providers(wanted, http, clocks), Questions(pepper, clocks.random_bytes, clocks.now),
        tries(wanted, redis, clocks), ids, clocks.now,
    )  # fmt: skip
    return Entrance(
        Keys(pool, access, pepper, clocks.monotonic, ttl_s), sign_ins, signing_in,
        Certificates(pool, access, clocks.monotonic, ttl_s),
        Origins(networks(settings.http.proxies), settings.http.certificate_header),
    )  # fmt: skip


def tries(wanted: SignIn, redis: Redis, clocks: Clocks) -> Tries:
    """How often signing in may be tried: held to by every replica alone while Redis is lost."""

    def of(kind: str, per_minute: float, burst: int) -> Admit:
        limiter = Limiter(redis, Limits(per_minute / 60, burst), clocks.monotonic)

        async def admit(name: str) -> None:
            await limiter.admit(f"sign-in:{kind}:{name}", reads=False)

        return admit

    return Tries(
        of("person", wanted.tries_per_minute, wanted.tries_burst),
        of("address", wanted.address_tries_per_minute, wanted.address_tries_burst),
    )


def _providers(wanted: SignIn, http: aiohttp.ClientSession, clocks: Clocks) -> dict[str, Provider]:
    return {
        id: Provider(
            Issuer(
                id=id, url=place.url, client_id=place.client_id,
                client_secret=place.client_secret.reveal(), subject_claim=place.subject_claim,
                redirect_url=place.redirect_url,
            ),
            http, clocks.now, clocks.monotonic,
        )
        for id, place in wanted.issuers.items()
    }  # fmt: skip


# --- the rulebook -------------------------------------------------------------------------------


def follower(
    *,
    settings: Settings,
    rules: Rules,
    pool: asyncpg.Pool,
    ids: Ids,
    now: Callable[[], datetime],
    attempts: Attempts,
    connectors: Mapping[str, Connector],
    open_book: Callable[[Entity], None],
    swapped: Callable[[Compiled, float], None],
) -> Follower:
    """Who keeps the process in step with the rulebook in force.

    open_book  begins to accrue the book of an entity that is new, and knows those that are not
    """

    def ready(wanted: Compiled) -> Sequence[Finding]:
        book = wanted.book
        wrong = [*needs_restart(rules.now.book, book), *peers(settings, book)]
        if wrong:
            return wrong
        reached, wrong = terminals(book, settings.psps, connectors)
        if wrong:
            return wrong
        attempts.offer(reached, book.routing.answer_timeout_s)
        for entity in book.entities:
            open_book(entity)
        return ()

    by = Command(operator("rulebook"), "its time has come", ids.new("CR"), now())
    return Follower(rules, pool, Enacting(ids, by).due, ready, swapped, now)


# --- approvals ----------------------------------------------------------------------------------


class Deciding(msgspec.Struct, frozen=True):
    """What needs other people: who asks, who decides, and what lapses undecided.

    asking  asks a question of any kind; every room that asks is handed it
    """

    asking: Asking
    onboarding: Onboarding
    approving: Approving
    lending: Lending
    reattributing: Reattributing
    expiring: Expiring
    publishing: Publishing
    assigning: Assigning
    glass: Glass
    personal: Personal
    tying: Tying


def deciding(
    lane: Lane,
    pool: asyncpg.Pool,
    rules: Rules,
    ids: Ids,
    emit: Emit,
    now: Callable[[], datetime],
    reached: Reached,
    vault: Vault,
) -> Deciding:
    """The engine of approvals, the rooms that ask by it, and an applier for each kind.

    reached  what the settings of this process do not reach of a rulebook's peers
    """
    asking = Asking(lane, pool, rules, ids, emit, now)
    onboarding = Onboarding(lane, pool, rules, asking, ids, emit, now)
    reattributing = Reattributing(lane, pool, asking, ids, emit, now)
    personal = Personal(pool, vault, asking, ids, now)
    publishing = Publishing(lane, pool, rules, ids, emit, now, reached)
    assigning = Assigning(lane, pool, rules, asking, ids, now)
    glass = Glass(pool, rules, asking, ids, now)
    appliers: dict[str, Applier] = {
        **onboarding.appliers, **reattributing.appliers, **personal.appliers, **publishing.appliers,
        **assigning.appliers, **glass.appliers,
    }  # fmt: skip
    assert appliers.keys() == KINDS.keys(), "each kind of question has its applier"
    return Deciding(
        asking,
        onboarding,
        Approving(lane, pool, rules, ids, emit, appliers, now),
        Lending(lane, pool, rules, ids, now),
        reattributing,
        Expiring(lane, pool, emit, now),
        publishing,
        assigning,
        glass,
        personal,
        Tying(lane, pool, ids, now),
    )
