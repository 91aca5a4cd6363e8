"""The connector engine: one provider, one file; requests built and answers read without any socket.

Knows how a provider's TOML becomes requests, outcomes and notices. Refuses to know time, storage
and the network, so that every byte is testable. What an answer does not say clearly is *unknown*.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

import msgspec

from config.rulebook import Finding, Where
from ledger.money import BadAmount, UnknownCurrency, currency, parse, text
from router.intents import Intent
from router.outcomes import (
    Approved,
    Declined,
    NotFound,
    NotSent,
    Outcome,
    Pending,
    Unknown,
)
from router.psp.signatures import SCHEMES, STRONG
from router.taxonomy import ADVICE, ISSUER, TRANSPORT, UNMAPPED, Meaning, Taxonomy

TEXT_CHARACTERS_MAX: Final = 128  # of any single value we keep from an answer
_NAME = re.compile(r"\{(\w+)\}")
_SUCCESS = range(200, 300)


class HttpRequest(msgspec.Struct, frozen=True):
    """A request to a provider, complete but for its host. `target` is path and query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class HttpAnswer(msgspec.Struct, frozen=True):
    """A complete answer: status and body, within the size we accept."""

    status: int
    body: bytes


class Unreadable(Exception):
    """An authentic notice that this connector cannot read: a person must look at the connector."""


# -- the shape of a connector's file ---------------------------------------------------------------


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of a connector's file."""


class RequestPart(Part, frozen=True, kw_only=True):
    """A request as templates."""

    method: Literal["GET", "POST"]
    path: str
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    body: dict[str, str] = {}


class NotFoundPart(Part, frozen=True, kw_only=True):
    """What proves that an object does not exist."""

    status: int
    field: str
    value: str


class AnswerPart(Part, frozen=True, kw_only=True):
    """Where an answer says what; names of fields, from the outside in, by points."""

    reference: str
    psp_reference: str
    status: str
    approved: tuple[str, ...]
    declined: tuple[str, ...]
    pending: tuple[str, ...] = ()
    amount: str
    currency: str
    amount_form: Literal["decimal", "minor"]
    not_found: NotFoundPart


class CodePart(Part, frozen=True, kw_only=True):
    """One code of the provider in the words of the taxonomy."""

    code: str
    category: str
    other_psp: Literal["yes", "no", "ask", "after_resolution"]


class DeclinePart(Part, frozen=True, kw_only=True):
    """Where a decline says why; "" for what the provider does not give."""

    advice: str = ""
    issuer: str = ""
    code: str = ""
    message: str = ""
    codes: tuple[CodePart, ...] = ()


class WebhookPart(Part, frozen=True, kw_only=True):
    """How notices are signed and what they carry."""

    signature: str
    header: str
    event_id: str
    at: str
    charge: str


class IdempotencyPart(Part, frozen=True, kw_only=True):
    """What the provider does with a repeated key, and for how long."""

    header: str
    replays: Literal["any", "success"]
    window_s: int


class Document(Part, frozen=True, kw_only=True):
    """A connector's file."""

    id: str
    charge: RequestPart
    inquiry: RequestPart
    refund: RequestPart
    refund_inquiry: RequestPart
    answer: AnswerPart
    decline: DeclinePart
    webhook: WebhookPart
    idempotency: IdempotencyPart


# -- compiled --------------------------------------------------------------------------------------

Values = Mapping[str, str]
Template = Callable[[Values], str]
Path = tuple[str, ...]


class WebhookScheme(msgspec.Struct, frozen=True):
    """How to check a notice. `strong`: it may move money without an inquiry. Lower-case header."""

    signature: str
    header: str
    strong: bool


CHARGE_NAMES: Final = frozenset(
    ("api_key", "reference", "amount", "minor", "currency", "method", "country", "client_id",
     "instrument")
)  # fmt: skip
INQUIRY_NAMES: Final = frozenset(("api_key", "reference", "psp_reference"))
REFUND_NAMES: Final = INQUIRY_NAMES | {"refund_reference", "amount", "minor", "currency"}


class _Request:
    """The templates of one request, compiled: what never changes is made once."""

    def __init__(self, part: RequestPart) -> None:
        self._method = part.method
        self._path = _template(part.path)
        self._path_varies = _NAME.search(part.path) is not None
        self._query = {name: _template(value) for name, value in part.query.items()}
        self._headers = {name: _template(value) for name, value in part.headers.items()}
        self._body = {name: _template(value) for name, value in part.body.items()}

    def build(self, values: Values) -> HttpRequest:
        headers = {name: template(values) for name, template in self._headers.items()}
        quoted = values
        if self._path_varies:
            quoted = {name: quote(value, safe="") for name, value in values.items()}
        target = self._path(quoted)
        if self._query:
            query = {name: template(values) for name, template in self._query.items()}
            target = f"{target}?{urlencode(query)}"
        body = b""
        if self._body:
            headers["Content-Type"] = "application/json"
            fields = {name: template(values) for name, template in self._body.items()}
            body = msgspec.json.encode(fields)
        return HttpRequest(self._method, target, headers, body)


def _template(pattern: str) -> Template:
    """`"Bearer {api_key}"` as a function; a pattern of one name or of none is fast."""
    names = _NAME.findall(pattern)
    if not names:
        return lambda values: pattern
    if pattern == f"{{{names[0]}}}":
        name = names[0]
        return lambda values: values[name]
    return lambda values: _NAME.sub(lambda match: values[match[1]], pattern)


class Connector:
    """One provider: its requests, the reading of its answers and notices."""

    def __init__(self, document: Document, taxonomy: Taxonomy) -> None:
        """`document` has no findings; `taxonomy` lacks the provider's own codes."""
        self.id = document.id
        hook, keys = document.webhook, document.idempotency
        self.webhook = WebhookScheme(hook.signature, hook.header.lower(), hook.signature in STRONG)
        self.idempotency = keys
        self._charge, self._inquiry = _Request(document.charge), _Request(document.inquiry)
        self._refund = _Request(document.refund)
        self._refund_inquiry = _Request(document.refund_inquiry)
        self._taxonomy = taxonomy.with_rows(
            Meaning(document.id, row.code, "", row.category, row.other_psp)
            for row in document.decline.codes
        )
        self._read = _Reader(document, self._taxonomy)
        self._event_id, self._at = _path(hook.event_id), _path(hook.at)
        self._charge_in_notice = _path(hook.charge)

    def charge(self, intent: Intent, reference: str, api_key: str) -> HttpRequest:
        """The request that takes the money; `reference` is ours and also the idempotency key."""
        unit = currency(intent.currency)
        return self._charge.build(
            {
                "api_key": api_key, "reference": reference, "minor": str(intent.minor),
                "amount": text(intent.minor, unit.exponent), "currency": intent.currency,
                "method": intent.method, "country": intent.country,
                "client_id": intent.client_id, "instrument": intent.instrument,
            }
        )  # fmt: skip

    def inquiry(self, reference: str, psp_reference: str, api_key: str) -> HttpRequest:
        """The question what became of the charge; the provider's own id may be missing."""
        return self._inquiry.build(
            {"api_key": api_key, "reference": reference, "psp_reference": psp_reference}
        )

    def refund(
        self, reference: str, psp_reference: str, refund_reference: str, minor: int, code: str,
        api_key: str,
    ) -> HttpRequest:  # fmt: skip
        """The request that gives `minor` units of currency `code` back."""
        values = {
            "api_key": api_key, "reference": reference, "psp_reference": psp_reference,
            "refund_reference": refund_reference, "minor": str(minor), "currency": code,
            "amount": text(minor, currency(code).exponent),
        }  # fmt: skip
        return self._refund.build(values)

    def refund_inquiry(
        self, reference: str, psp_reference: str, refund_reference: str, api_key: str
    ) -> HttpRequest:
        """The question what became of a refund, by our own reference of it."""
        values = {
            "api_key": api_key, "reference": reference, "psp_reference": psp_reference,
            "refund_reference": refund_reference,
        }  # fmt: skip
        return self._refund_inquiry.build(values)

    def read_charge(self, answer: HttpAnswer, reference: str) -> Outcome:
        """What the answer to a charge or a refund says about `reference`.

        The provider processed nothing only where its status proves it (429, and the refusals of
        the taxonomy's transport rows); everything unclear is unknown.
        """
        if answer.status == 429:  # Too Many Requests
            return NotSent("http_429")
        document = _decode(answer.body)
        if document is not None and answer.status < 500:  # beyond, it failed itself
            outcome = self._read.outcome(document, reference)
            if outcome is not None:
                return outcome
        return self._by_status(answer.status)

    def read_inquiry(self, answer: HttpAnswer, reference: str) -> Outcome:
        """What the answer to an inquiry says about `reference`; unknown unless it is clear."""
        document = _decode(answer.body)
        if document is None:
            return self._unclear(answer.status)
        if self._read.says_not_found(answer.status, document):
            return NotFound()
        seen = self._read.outcome(document, reference) if answer.status in _SUCCESS else None
        return seen or self._unclear(answer.status)

    def read_webhook(self, raw: bytes) -> tuple[str, str, Outcome, datetime]:
        """Event id, our reference, outcome and time of a notice already proven authentic.

        Raises Unreadable.
        """
        document = _decode(raw)
        charge = _find(document, self._charge_in_notice)
        event_id, seconds = _text_at(document, self._event_id), _find(document, self._at)
        reference = self._read.reference(charge)
        known_time = isinstance(seconds, int) and 0 <= seconds < 2**33
        if not event_id or not reference or not known_time:
            raise Unreadable(f"{self.id}: no event id, reference or time")
        outcome = self._read.outcome(charge, reference)
        if outcome is None:
            raise Unreadable(f"{self.id}: event {event_id} carries no outcome we know")
        return event_id, reference, outcome, datetime.fromtimestamp(seconds, UTC)

    def _by_status(self, status: int) -> Outcome:
        """What a status says whose body says nothing."""
        row = self._taxonomy.find(TRANSPORT, f"http_{status}")
        if row is None or row.category == "unknown_outcome":
            return self._unclear(status)
        return Declined(row.name, row.category, "", "", row.other_psp == "yes")

    @staticmethod
    def _unclear(status: int) -> Unknown:
        return Unknown("unreadable" if status in _SUCCESS else f"http_{status}")


class _Reader:
    """Reads a charge as the provider writes it, in answers and in notices."""

    def __init__(self, document: Document, taxonomy: Taxonomy) -> None:
        answer, decline = document.answer, document.decline
        self._id = document.id
        self._taxonomy = taxonomy
        self._statuses = dict.fromkeys(answer.approved, "approved")
        self._statuses |= dict.fromkeys(answer.declined, "declined")
        self._statuses |= dict.fromkeys(answer.pending, "pending")
        self._reference, self._psp_reference = _path(answer.reference), _path(answer.psp_reference)
        self._status, self._amount = _path(answer.status), _path(answer.amount)
        self._currency, self._form = _path(answer.currency), answer.amount_form
        self._not_found = answer.not_found
        self._not_found_at = _path(answer.not_found.field)
        self._advice, self._issuer = _path(decline.advice), _path(decline.issuer)
        self._code, self._message = _path(decline.code), _path(decline.message)

    def reference(self, document: object) -> str:
        """Our own reference in a charge, "" when there is none."""
        return _text_at(document, self._reference)

    def says_not_found(self, status: int, document: object) -> bool:
        """Whether this is the provider's proof that it knows no such object."""
        proof = self._not_found
        return status == proof.status and _text_at(document, self._not_found_at) == proof.value

    def outcome(self, document: object, reference: str) -> Outcome | None:
        """The outcome a charge shows; None when it shows none. Another reference is not ours."""
        status = self._statuses.get(_text_at(document, self._status), "")
        if not status:
            return None
        if self.reference(document) != reference:
            return Unknown("reference_mismatch")
        psp_reference = _text_at(document, self._psp_reference)
        if status == "pending":
            return Pending(psp_reference)
        if status == "declined":
            return self._declined(document, psp_reference)
        return self._approved(document, psp_reference)

    def _approved(self, document: object, psp_reference: str) -> Outcome:
        amount, code = _find(document, self._amount), _text_at(document, self._currency)
        try:
            unit = currency(code)
            if self._form == "decimal" and isinstance(amount, str):
                return Approved(psp_reference, parse(amount, unit).minor, code)
        except (BadAmount, UnknownCurrency):
            return Unknown("amount_unreadable")
        if self._form == "minor" and isinstance(amount, int) and not isinstance(amount, bool):
            return Approved(psp_reference, amount, code)
        return Unknown("amount_unreadable")

    def _declined(self, document: object, psp_reference: str) -> Outcome:
        meaning = self._taxonomy.classify(
            (
                (ADVICE, _text_at(document, self._advice)),
                (ISSUER, _text_at(document, self._issuer)),
                (self._id, _text_at(document, self._code)),
            )
        )
        # "Declined" with a code of success or of "already sent": it must be asked, not believed.
        if meaning.category == "approved" or meaning.other_psp == "after_resolution":
            return Unknown(f"contradiction:{meaning.name}"[:TEXT_CHARACTERS_MAX])
        cascade = meaning.category != UNMAPPED and meaning.other_psp == "yes"
        message = _text_at(document, self._message)
        code = meaning.name if meaning.code else "none"
        return Declined(code, meaning.category, message, psp_reference, cascade)


def _path(dotted: str) -> Path:
    return tuple(dotted.split(".")) if dotted else ()


def _find(document: object, path: Path) -> Any:
    """The value at a path, None when any step is missing or is no object. () finds nothing."""
    if not path:
        return None
    for name in path:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def _text_at(document: object, path: Path) -> str:
    """A text at a path, cut to what we keep; "" for anything else. No row can hold a zero byte."""
    value = _find(document, path)
    return value[:TEXT_CHARACTERS_MAX].replace("\0", "") if isinstance(value, str) else ""


def _decode(body: bytes) -> object | None:
    """A JSON object, or None."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return document if isinstance(document, dict) else None


# -- compiling -------------------------------------------------------------------------------------


def compile_connector(
    name: str, source: str, taxonomy: Taxonomy
) -> tuple[Connector | None, list[Finding]]:
    """Compile the file `name` with this text; every fault is a finding and none an exception."""
    try:
        document = msgspec.convert(tomllib.loads(source), Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        return None, [Finding(Where(name), "connector-malformed", str(error))]
    findings = [
        Finding(Where(name, _line_of(source, wrong)), code, f"{path}: {why} {wrong!r}", path)
        for path, code, why, wrong in _faults(document)
    ]
    return (None if findings else Connector(document, taxonomy)), findings


def _faults(document: Document) -> list[tuple[str, str, str, str]]:
    """Each as (path, code, what is wrong, the wrong text)."""
    faults = []
    for table, part, known in (
        ("charge", document.charge, CHARGE_NAMES),
        ("inquiry", document.inquiry, INQUIRY_NAMES),
        ("refund", document.refund, REFUND_NAMES),
        ("refund_inquiry", document.refund_inquiry, INQUIRY_NAMES | {"refund_reference"}),
    ):
        for pattern in _patterns(part):
            faults += [
                (table, "name-unknown", "there is nothing called", f"{{{name}}}")
                for name in _NAME.findall(pattern)
                if name not in known
            ]
        if not any("reference}" in pattern for pattern in _patterns(part)):
            faults.append((table, "reference-missing", "our own reference is not in", part.path))
    if document.webhook.signature not in SCHEMES:
        faults.append(
            ("webhook.signature", "scheme-unknown", "no such scheme:", document.webhook.signature)
        )
    return faults + _status_faults(document.answer)


def _status_faults(answer: AnswerPart) -> list[tuple[str, str, str, str]]:
    named = [*answer.approved, *answer.declined, *answer.pending]
    twice = sorted({status for status in named if named.count(status) > 1})
    return [("answer", "status-twice", "two meanings for", status) for status in twice]


def _patterns(part: RequestPart) -> list[str]:
    return [part.path, *part.query.values(), *part.headers.values(), *part.body.values()]


def _line_of(source: str, text: str) -> int:
    """The first line that shows `text`; 0 when none does."""
    lines = source.splitlines()
    return next((number for number, line in enumerate(lines, 1) if text in line), 0)


def load_connectors(
    taxonomy: Taxonomy, folder: Traversable | None = None
) -> tuple[Mapping[str, Connector], list[Finding]]:
    """All connectors of the package (or of another folder) by id, and what is wrong with them."""
    connectors: dict[str, Connector] = {}
    findings: list[Finding] = []
    home = folder or files("router.psp") / "connectors"
    for file in sorted(home.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            connector, wrong = compile_connector(file.name, file.read_text("utf-8"), taxonomy)
            findings += wrong
            if connector:
                connectors[connector.id] = connector
    return connectors, findings
