"""Problems: the one table from a refusal's code to a status and a title, and their RFC 9457 JSON.

Knows every code the API can answer with. Refuses to decide anything: whoever refuses names the
code, and what is not in the table is a bug that a test finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from gateway.control.refusals import Refusal

MEDIA_TYPE: Final = "application/problem+json"
BASE: Final = "/problems/"


class Meaning(msgspec.Struct, frozen=True):
    """What a code means: its HTTP status, its title, and what the caller can do about it."""

    status: int
    title: str
    advice: str


class FieldError(msgspec.Struct, frozen=True):
    """One field that is wrong: `path` from the body's root as `$.amount.currency`."""

    path: str
    code: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 with our `code`, `errors` and `request_id`; facts stand beside them as members."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: tuple[FieldError, ...] = ()


def _m(status: int, title: str, advice: str) -> Meaning:
    return Meaning(status, title, advice)


TABLE: Final[Mapping[str, Meaning]] = {
    # the request itself
    "malformed-json": _m(400, "The body is not JSON", "Send one JSON object, each key once."),
    "malformed-request": _m(400, "The request cannot be read", "Correct the request line."),
    "invalid-request": _m(422, "The body is not what this route takes", "See `errors`."),
    "invalid-parameter": _m(422, "A parameter is not what this route takes", "See `errors`."),
    "unsupported-media-type": _m(
        415, "The body is not application/json", "Set Content-Type to application/json."
    ),
    "body-too-large": _m(413, "The body is too large", "Bodies are limited to 64 KiB."),
    "route-unknown": _m(404, "There is nothing at this path", "See /openapi.json."),
    "method-not-allowed": _m(405, "This path has no such method", "See the Allow header."),
    # the credential
    "unauthenticated": _m(
        401, "No valid credential", "Send `Authorization: Bearer` with an API key that is in force."
    ),
    "link-void": _m(401, "The link does not work", "Ask for another: one works once, for a while."),
    "sign-in-failed": _m(401, "Not let in", "Name, password or code is wrong, or it was used."),
    "issuer-away": _m(503, "The identity provider does not answer", "Try again in a moment."),
    "password-weak": _m(422, "The password is of no use", "Choose a longer one."),
    "identity-taken": _m(409, "The subject is somebody already", "Take it from them first."),
    "name-malformed": _m(422, "Not a certificate's name", "Write URI:..., DNS:... or email:...."),
    "name-taken": _m(409, "The name is another credential's", "Revoke that one first."),
    "forbidden": _m(403, "The credential does not allow this", "Ask for the scope it names."),
    "limit-exceeded": _m(429, "Too many requests", "Wait as long as Retry-After says."),
    # idempotency
    "idempotency-key-missing": _m(
        400, "Idempotency-Key is missing", "Send a key of your own with each command."
    ),
    "idempotency-key-malformed": _m(
        400, "Idempotency-Key is malformed", "Use 1 to 128 visible ASCII characters."
    ),
    "idempotency-in-flight": _m(
        409, "The first request is still being answered", "Look at Location, or ask again later."
    ),
    "idempotency-key-reused": _m(
        422, "The key was used for another request", "Use a new key for a new request."
    ),
    # objects
    "not-found": _m(404, "No such object", "It does not exist, or lies outside your entities."),
    "version-conflict": _m(409, "The object has changed", "Read it again and decide again."),
    "conflict": _m(409, "Something else happened at the same time", "Read again and decide."),
    # clients
    "brand-unknown": _m(422, "No such brand", "Use a brand of the rulebook within your entities."),
    "currency-unknown": _m(422, "No such currency", "Use a code of ISO 4217 or the broker's own."),
    "reference-taken": _m(409, "The reference is in use", "`client` names who has it."),
    "client-transition": _m(409, "A client does not move that way", "See the table of moves."),
    "client-state": _m(409, "The client's state does not allow this", "Move the client first."),
    "money-left": _m(409, "The client has money", "Pay it out before the client is archived."),
    "blocks-missing": _m(422, "A restriction says what it blocks", "Give `blocks`."),
    "blocks-misplaced": _m(422, "Only a restriction has blocks", "Leave `blocks` out."),
    # attribution
    "evidence-missing": _m(422, "The evidence is missing", "Name it by its id, in `evidence`."),
    "effective-in-past": _m(422, "It would begin in the past", "Let it begin now or later."),
    "effective-too-far": _m(422, "It would begin too far ahead", "Let it begin within a year."),
    "attribution-same": _m(409, "Nothing would change", "The client comes through this already."),
    "attribution-ahead": _m(409, "A change has not begun yet", "Wait until `effective`."),
    # partners
    "code-unknown": _m(422, "No such code", "Name a contract with the client's own brand."),
    "code-taken": _m(409, "The code is in use", "Choose another, or leave it out."),
    "contract-exists": _m(409, "There is a contract already", "`contract` names it."),
    "parent-unknown": _m(422, "No such contract above it", "Name one within your entities."),
    "parent-elsewhere": _m(
        422, "The contract above is in other books", "A chain stays in the books of one entity."
    ),
    "plan-unknown": _m(422, "No such plan", "Use a plan of the rulebook in force."),
    "client-needed": _m(
        422, "Within a desk or partners payments are one client's", "Name one: `client`."
    ),
    "contract-needed": _m(422, "The partner has several contracts", "Name one: `contract`."),
    # approvals and items
    "approval-open": _m(409, "A question is open already", "Have it decided first."),
    "approval-expired": _m(409, "The question has expired", "Ask again."),
    "approval-stale": _m(409, "The object went on meanwhile", "Refuse the question and ask again."),
    "already-decided": _m(409, "It is decided", "Nothing is left to do."),
    "already-voted": _m(409, "You have agreed already", "Another person must agree too."),
    "already-resolved": _m(409, "The item is resolved", "Nothing is left to do."),
    "duty-conflict": _m(
        403, "One person may not do both", "Another person must: `conflict` names the rule."
    ),
    "personal-off": _m(
        503, "No personal data is kept here", "Set control.personal_key, then ask again."
    ),
    "erased": _m(409, "The data is erased", "None is taken of this client again."),
    "reason-missing": _m(422, "A reason is missing", "Say why, in `reason`."),
    "delegation-time": _m(422, "Not a time to lend a right for", "At most 31 days, from now on."),
    "delegation-over": _m(409, "The delegation is over", "Nothing is left to do."),
    "delegate-self": _m(422, "A right is lent to another person", "Name somebody else."),
    "kind-unknown": _m(422, "No such kind of question", "Use a kind that is asked here, or `*`."),
    "person-unknown": _m(422, "No such person", "Name somebody who holds a role here."),
    "not-maker": _m(403, "Only whoever asked may take it back", "Refuse it instead."),
    # accounts
    "account-not-ready": _m(409, "The trading account is not ready", "Wait until it is verified."),
    "group-unmapped": _m(
        422, "No platform group for this account", "The rulebook maps no group to this wish."
    ),
    "leverage-too-high": _m(422, "The leverage is above the group's", "Ask for less."),
    # deposits and routing
    "amount-malformed": _m(422, "The amount is malformed", 'Write it as "100.00".'),
    "amount-precision": _m(422, "The amount has too many decimals", "Use the currency's decimals."),
    "amount-zero": _m(422, "The amount is zero", "Deposit more than nothing."),
    "currency-mismatch": _m(422, "The currency does not fit", "Use the currency that is named."),
    "rulebook-moved": _m(503, "The rules changed meanwhile", "Send the same request again."),
    # versions of the rulebook
    "rulebook-unreadable": _m(422, "Not a rulebook", "`findings` says what is wrong, and where."),
    "rulebook-same": _m(409, "Nothing would change", "These rules are in force already."),
    "version-state": _m(409, "The version's state does not allow this", "`state` says which."),
    "base-moved": _m(409, "Another rulebook is in force meanwhile", "Draft your change on it."),
    # books
    "not-closed": _m(409, "The books are not closed up to then", "Ask as of `horizon` or before."),
    "account-kind-unknown": _m(422, "No such kind of account", "See the chart of accounts."),
    # webhooks in
    "webhook-forged": _m(401, "The webhook's signature does not hold", "Sign the raw body."),
    "webhook-unreadable": _m(422, "The webhook cannot be read", "Send it as agreed."),
    "psp-unknown": _m(404, "No such provider", "Use the address you were given."),
    # webhooks out
    "webhook-url": _m(422, "Not an address we may post to", "Give an http or https address."),
    "event-waiting": _m(409, "The event is on its way", "Wait for its delivery."),
    # keys and roles
    "own-role": _m(403, "Nobody gives themselves a role", "Two other people must."),
    "roles-conflict": _m(
        409, "Roles that may not be in one hand", "Give it to another, or ask for an exception."
    ),
    "exception-time": _m(422, "An exception ends soon", "Give `valid_until`, at most 30 days on."),
    "grant-time": _m(422, "Not a time for a role", "It begins now or later, and ends after that."),
    "grant-over": _m(409, "The role is taken back", "Nothing is left to do."),
    "role-kind": _m(422, "Not for this person", "People and services have roles of their own."),
    "entity-unknown": _m(422, "No such entity", "Name one within your own entities."),
    "role-unknown": _m(422, "No such role", "Use a role of the rulebook in force."),
    # ours
    "unavailable": _m(503, "Not possible at this moment", "Send the same request again."),
    "overloaded": _m(503, "Too much is waiting", "Send the same request again later."),
    "internal": _m(500, "A fault of ours", "Tell us the request_id."),
}

_EXTENSIONS = frozenset(Problem.__struct_fields__)


def problem(
    code: str,
    detail: str,
    request_id: str,
    *,
    errors: tuple[FieldError, ...] = (),
    facts: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """The answer for a code; `facts` become members beside the standard ones."""
    meaning = TABLE[code]
    value = Problem(
        type=BASE + code,
        title=meaning.title,
        status=meaning.status,
        detail=detail,
        code=code,
        request_id=request_id,
        errors=errors,
    )
    body: object = value
    if facts:
        extra = {name: fact for name, fact in facts.items() if name not in _EXTENSIONS}
        body = msgspec.to_builtins(value) | extra
    return web.Response(
        body=msgspec.json.encode(body),
        status=meaning.status,
        headers=headers,
        content_type=MEDIA_TYPE,
    )


def refused(no: Refusal, request_id: str) -> web.Response:
    """The answer for a refusal, with the headers its code calls for."""
    facts = dict(no.facts)
    headers: dict[str, str] = {}
    if location := facts.pop("location", None):
        headers["Location"] = str(location)
    if (wait := facts.pop("retry_after_s", None)) is not None:
        headers["Retry-After"] = str(wait)
    if no.code == "unauthenticated":
        headers["WWW-Authenticate"] = 'Bearer realm="brokerd"'
    errors = facts.pop("errors", ())
    assert isinstance(errors, tuple)
    return problem(no.code, no.detail, request_id, errors=errors, facts=facts, headers=headers)


class Explanation(msgspec.Struct, frozen=True):
    """What a code means, for people who follow a problem's `type`."""

    code: str
    status: int
    title: str
    advice: str


def explain(code: str) -> Explanation | None:
    """The row of a code."""
    meaning = TABLE.get(code)
    if meaning is None:
        return None
    return Explanation(code, meaning.status, meaning.title, meaning.advice)
