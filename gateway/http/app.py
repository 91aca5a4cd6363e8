"""The API as one table of routes, and the application built from it.

Knows which path means which handler, scope, body and answers. Refuses to hold any logic: a row
names functions that live elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.control.glass import BreakGlass, BrokenPage
from gateway.control.views import (
    ApprovalPage,
    ApprovalView,
    Decide,
    DelegationPage,
    DelegationView,
    EndDelegation,
    ItemPage,
    ItemView,
    NewDelegation,
    ResolveItem,
    Withdraw,
)
from gateway.control.views_grants import (
    GrantPage,
    GrantView,
    NewGrant,
    NewTie,
    PersonView,
    RevokeGrant,
    TieView,
)
from gateway.control.views_rulebook import (
    DifferencesView,
    DraftRulebook,
    PublishRulebook,
    RulebookView,
    VersionPage,
    VersionView,
    WithdrawRulebook,
)
from gateway.flows.effects import Effects
from gateway.flows.views import AccountView, NewAccount, NewDeposit, PaymentView, RouteView
from gateway.flows.webhooks_out import Subscription, SubscriptionOrder
from gateway.http import (
    accounts,
    attribution,
    auditing,
    books,
    clients,
    control,
    delegations,
    deposits,
    desk,
    emergency,
    events,
    explanations,
    grants,
    house,
    pages,
    partners,
    personal,
    rebates,
    rulebook,
    signing,
    stream,
)
from gateway.http.calls import Call
from gateway.http.openapi import document
from gateway.http.parts import Parts, Readiness
from gateway.http.problems import Explanation
from gateway.http.serving import PUBLIC, RAW, Route, Serving, correlation, unserved
from gateway.people.views import ClientPage, ClientView, HistoryView, MoveClient, NewClient
from gateway.people.views_attribution import AttributionChangeList, MaskedPage, NewAttribution
from gateway.people.views_partners import (
    ContractView,
    NewContract,
    NewPartner,
    PartnerPage,
    PartnerView,
)

DESCRIPTION: Final = web.AppKey("description", bytes)


async def describe(call: Call) -> web.Response:
    """GET /openapi.json: this table, as OpenAPI 3.1."""
    return web.Response(body=call.request.app[DESCRIPTION], content_type="application/json")


ROUTES: Final = (
    # clients
    Route(
        method="POST", path="/v1/clients", scope="clients:write", handler=clients.create,
        summary="Make a client known", request=NewClient, idempotent=True,
        responses={201: ClientView},
        problems=("brand-unknown", "currency-unknown", "code-unknown", "reference-taken"),
    ),
    Route(
        method="GET", path="/v1/clients", scope="clients:read", masked=("clients:masked",),
        handler=clients.page,
        summary="List clients, newest first", params=clients.ClientParams,
        responses={200: ClientPage},
    ),
    Route(
        method="GET", path="/v1/clients/{id}", scope="clients:read", masked=("clients:masked",),
        handler=clients.show,
        summary="Read a client", responses={200: ClientView},
    ),
    Route(
        method="GET", path="/v1/clients/{id}/history", scope="clients:read",
        handler=clients.history, summary="Read a client's events", responses={200: HistoryView},
    ),
    Route(
        method="POST", path="/v1/clients/{id}/moves", scope="lifecycle:request",
        handler=clients.move,
        summary="Move a client to another state, or ask a second person for it",
        request=MoveClient, idempotent=True, responses={200: ClientView, 202: ApprovalView},
        problems=(
            "version-conflict", "client-transition", "blocks-missing", "blocks-misplaced",
            "approval-open", "money-left", "conflict",
        ),
    ),
    Route(
        method="POST", path="/v1/clients/{id}/attribution-changes", scope="attribution:request",
        handler=attribution.ask, summary="Ask that a client comes through another contract",
        request=NewAttribution, idempotent=True, responses={202: ApprovalView},
        problems=("code-unknown", "reason-missing", "evidence-missing", "effective-in-past",
                  "effective-too-far", "attribution-same", "attribution-ahead", "approval-open",
                  "duty-conflict", "conflict", "version-conflict", "rulebook-moved"),
    ),
    Route(
        method="GET", path="/v1/clients/{id}/attribution-changes", scope="attribution:read",
        handler=attribution.of_client, summary="List who moved a client from partner to partner",
        responses={200: AttributionChangeList},
    ),
    Route(
        method="GET", path="/v1/clients/{id}/wallet", scope="ledger:read", handler=clients.wallet,
        summary="Read a client's wallet, now or as of a closed moment",
        params=clients.WalletParams, responses={200: clients.WalletView},
        problems=("not-closed",),
    ),
    *personal.ROUTES,
    # partners
    Route(
        method="POST", path="/v1/partners", scope="partners:write", handler=partners.create,
        summary="Make a partner known", request=NewPartner, idempotent=True,
        responses={201: PartnerView}, problems=("reference-taken",),
    ),
    Route(
        method="GET", path="/v1/partners", scope="partners:read", handler=partners.page,
        summary="List partners, newest first", params=partners.PartnerParams,
        responses={200: PartnerPage},
    ),
    Route(
        method="GET", path="/v1/partners/{id}", scope="partners:read", handler=partners.show,
        summary="Read a partner with its contracts", responses={200: PartnerView},
    ),
    Route(
        method="POST", path="/v1/partners/{id}/contracts", scope="partners:write",
        handler=partners.contract, summary="Give a partner a contract, a parent and a plan",
        request=NewContract, idempotent=True, responses={201: ContractView},
        problems=("brand-unknown", "plan-unknown", "currency-mismatch", "parent-unknown",
                  "parent-elsewhere", "contract-exists", "code-taken", "conflict",
                  "rulebook-moved"),
    ),
    Route(
        method="GET", path="/v1/partners/{id}/attribution-changes", scope="attribution:read",
        handler=attribution.of_partner, partners=True, params=attribution.ChangeParams,
        summary="List which clients a partner won or lost, masked", responses={200: MaskedPage},
    ),
    Route(
        method="GET", path="/v1/contracts/{id}", scope="partners:read",
        handler=partners.show_contract, summary="Read a contract", responses={200: ContractView},
    ),
    # trading accounts
    Route(
        method="POST", path="/v1/accounts", scope="accounts:request", handler=accounts.request,
        summary="Ask for a trading account", request=NewAccount, idempotent=True,
        responses={202: AccountView},
        problems=("client-state", "group-unmapped", "leverage-too-high", "currency-unknown",
                  "version-conflict", "rulebook-moved"),
    ),
    Route(
        method="GET", path="/v1/accounts", scope="accounts:read", handler=accounts.page,
        summary="List a client's trading accounts", params=accounts.AccountParams,
        responses={200: accounts.AccountList}, problems=("not-found",),
    ),
    Route(
        method="GET", path="/v1/accounts/{id}", scope="accounts:read", handler=accounts.show,
        summary="Read a trading account", responses={200: AccountView},
    ),
    # deposits and payments
    Route(
        method="POST", path="/v1/deposits", scope="deposits:write", handler=deposits.start,
        summary="Take a deposit to the wallet or to a trading account", request=NewDeposit,
        idempotent=True, responses={201: PaymentView, 202: PaymentView},
        problems=("client-state", "account-not-ready", "amount-malformed", "amount-precision",
                  "amount-zero", "currency-unknown", "currency-mismatch", "version-conflict",
                  "rulebook-moved"),
    ),
    Route(
        method="GET", path="/v1/deposits/{id}", scope="deposits:read", masked=("deposits:masked",),
        handler=deposits.show,
        summary="Read a deposit", responses={200: PaymentView},
    ),
    Route(
        method="GET", path="/v1/payments", scope="deposits:read", masked=("deposits:masked",),
        handler=deposits.page,
        summary="List payments, newest first", params=deposits.PaymentParams,
        responses={200: deposits.PaymentPage}, problems=("client-needed", "not-found"),
    ),
    Route(
        method="GET", path="/v1/payments/{id}", scope="deposits:read", masked=("deposits:masked",),
        handler=deposits.show,
        summary="Read a payment with its attempts", responses={200: PaymentView},
    ),
    Route(
        method="GET", path="/v1/payments/{id}/trace", scope="deposits:read",
        handler=deposits.trace, summary="Read why a payment went its way, and all that happened",
        responses={200: deposits.TraceView},
    ),
    Route(
        method="POST", path="/v1/routing/explain", scope="routing:explain",
        handler=deposits.explain, summary="Say which way a deposit would take, without paying",
        request=NewDeposit, responses={200: RouteView},
        problems=("client-state", "account-not-ready", "amount-malformed", "amount-precision",
                  "amount-zero", "currency-unknown", "currency-mismatch"),
    ),
    # books
    Route(
        method="GET", path="/v1/ledger/balances", scope="ledger:read", handler=books.balances,
        summary="Read balances, now or as of a closed moment", params=books.BalanceParams,
        responses={200: books.BalanceList},
        problems=("account-kind-unknown", "not-closed", "not-found"),
    ),
    Route(
        method="GET", path="/v1/ledger/entries", scope="ledger:read", handler=books.entries,
        summary="List entries with their postings", params=books.EntryParams,
        responses={200: books.EntryPage}, problems=("not-closed", "not-found"),
    ),
    Route(
        method="GET", path="/v1/ledger/entries/{id}", scope="ledger:read", handler=books.entry,
        summary="Read an entry", responses={200: books.EntryView},
    ),
    # people at work
    Route(
        method="GET", path="/v1/approvals", scope="approvals:read", handler=control.approval_page,
        summary="List approvals, newest first", params=control.ApprovalParams,
        responses={200: ApprovalPage},
    ),
    Route(
        method="GET", path="/v1/approvals/{id}", scope="approvals:read", handler=control.approval,
        summary="Read an approval", responses={200: ApprovalView},
    ),
    Route(
        method="POST", path="/v1/approvals/{id}/decide", scope="approvals:decide",
        handler=control.decide, summary="Agree to, or refuse, what another person asked",
        request=Decide, idempotent=True, responses={200: ApprovalView},
        problems=("reason-missing", "duty-conflict", "already-decided", "approval-expired",
                  "already-voted", "approval-stale", "money-left", "rulebook-moved",
                  "version-conflict"),
    ),
    Route(
        method="POST", path="/v1/approvals/{id}/withdraw", scope="approvals:withdraw",
        handler=control.withdraw, summary="Take back what one asked", request=Withdraw,
        idempotent=True, responses={200: ApprovalView},
        problems=("reason-missing", "not-maker", "already-decided", "approval-expired",
                  "version-conflict"),
    ),
    Route(
        method="POST", path="/v1/grants", scope="roles:request", handler=grants.ask,
        summary="Ask another person to give somebody a role", request=NewGrant, idempotent=True,
        responses={202: ApprovalView},
        problems=("reason-missing", "role-unknown", "entity-unknown", "role-kind", "own-role",
                  "grant-time", "roles-conflict", "exception-time", "duty-conflict",
                  "rulebook-moved", "version-conflict"),
    ),
    Route(
        method="GET", path="/v1/grants", scope="people:read", handler=grants.page,
        summary="List who holds which role, newest first", params=grants.GrantParams,
        responses={200: GrantPage},
    ),
    Route(
        method="POST", path="/v1/grants/{id}/revoke", scope="roles:request",
        handler=grants.revoke, summary="Take a role back", request=RevokeGrant, idempotent=True,
        responses={200: GrantView},
        problems=("reason-missing", "grant-over", "version-conflict"),
    ),
    Route(
        method="GET", path="/v1/people/{id}", scope="people:read", handler=grants.person,
        summary="Read a person with the roles they hold", responses={200: PersonView},
    ),
    Route(
        method="POST", path="/v1/people/{id}/ties", scope="people:tie", handler=grants.tie,
        summary="Say whose account, client or partner something is", request=NewTie,
        idempotent=True, responses={201: TieView}, problems=("reason-missing", "version-conflict"),
    ),
    # the rulebook
    Route(
        method="GET", path="/v1/rulebook", scope="rulebook:read", handler=rulebook.in_force,
        summary="Read the rulebook in force", responses={200: RulebookView},
    ),
    Route(
        method="GET", path="/v1/rulebook/versions", scope="rulebook:read", handler=rulebook.page,
        summary="List versions of the rulebook, newest first", params=rulebook.VersionParams,
        responses={200: VersionPage},
    ),
    Route(
        method="POST", path="/v1/rulebook/versions", scope="rulebook:draft",
        handler=rulebook.draft, summary="Draft a version, or bring an earlier one back",
        request=DraftRulebook, idempotent=True, responses={201: VersionView},
        problems=("rulebook-unreadable", "rulebook-same", "duty-conflict", "reason-missing",
                  "rulebook-moved", "version-conflict"),
    ),
    Route(
        method="GET", path="/v1/rulebook/versions/{id}", scope="rulebook:read",
        handler=rulebook.show, summary="Read a version", responses={200: VersionView},
    ),
    Route(
        method="GET", path="/v1/rulebook/versions/{id}/diff", scope="rulebook:read",
        handler=rulebook.diff, summary="Read what a version says differently",
        params=rulebook.DifferenceParams, responses={200: DifferencesView},
    ),
    Route(
        method="GET", path="/v1/rulebook/versions/{id}/effects", scope="rulebook:read",
        handler=rulebook.effects, summary="Read what a version would change, and for whom",
        responses={200: Effects},
    ),
    Route(
        method="POST", path="/v1/rulebook/versions/{id}/publish", scope="rulebook:draft",
        handler=rulebook.publish, summary="Have other people asked to agree to a version",
        request=PublishRulebook, idempotent=True, responses={202: VersionView},
        problems=("version-state", "base-moved", "effective-in-past", "approval-open",
                  "duty-conflict", "reason-missing", "rulebook-moved", "version-conflict"),
    ),
    Route(
        method="POST", path="/v1/rulebook/versions/{id}/withdraw", scope="rulebook:draft",
        handler=rulebook.withdraw, summary="Take a version back", request=WithdrawRulebook,
        idempotent=True, responses={200: VersionView},
        problems=("version-state", "reason-missing", "version-conflict"),
    ),
    Route(
        method="POST", path="/v1/delegations", scope="delegations:give",
        handler=delegations.give, summary="Lend one's right to decide to another person",
        request=NewDelegation, idempotent=True, responses={201: DelegationView},
        problems=("reason-missing", "delegation-time", "delegate-self", "kind-unknown",
                  "person-unknown", "roles-conflict", "rulebook-moved", "version-conflict"),
    ),
    Route(
        method="GET", path="/v1/delegations", scope="delegations:read", handler=delegations.page,
        summary="List who lent whom the right to decide, newest first",
        params=delegations.DelegationParams, responses={200: DelegationPage},
    ),
    Route(
        method="POST", path="/v1/delegations/{id}/end", scope="delegations:give",
        handler=delegations.end, summary="Take back, or give back, a lent right",
        request=EndDelegation, idempotent=True, responses={200: DelegationView},
        problems=("reason-missing", "delegation-over", "version-conflict"),
    ),
    Route(
        method="GET", path="/v1/items", scope="items:read", handler=control.item_page,
        summary="List what a person must look at, newest first", params=control.ItemParams,
        responses={200: ItemPage},
    ),
    Route(
        method="GET", path="/v1/items/{id}", scope="items:read", handler=control.item,
        summary="Read an item", responses={200: ItemView},
    ),
    Route(
        method="POST", path="/v1/items/{id}/resolve", scope="items:resolve",
        handler=control.resolve, summary="Close an item with a reason", request=ResolveItem,
        idempotent=True, responses={200: ItemView},
        problems=("already-resolved", "version-conflict"),
    ),
    *auditing.ROUTES,
    Route(
        method="GET", path="/v1/sessions", scope="sessions:read", handler=house.sessions,
        summary="Read the state of platform sessions", responses={200: house.SessionList},
    ),
    # events
    Route(
        method="GET", path="/v1/events", scope="events:read", handler=events.page,
        summary="Pull one's own events in order", params=events.EventParams,
        responses={200: events.EventPage},
    ),
    Route(
        method="POST", path="/v1/events/{no}/resend", scope="events:resend",
        handler=events.resend, summary="Have an event delivered again", idempotent=True,
        responses={202: events.Resent}, problems=("event-waiting",),
    ),
    Route(
        method="PUT", path="/v1/subscription", scope="events:resend", handler=events.subscribe,
        summary="Name the address of one's webhooks", request=SubscriptionOrder,
        responses={200: Subscription}, problems=("webhook-url",),
    ),
    # live
    Route(
        method="GET", path="/v1/partners/{id}/stream", scope="partners:read",
        handler=stream.stream, partners=True, streams=True,
        summary="Watch a partner's balances: Server-Sent Events, each the whole state",
        responses={200: None}, problems=("limit-exceeded",),
    ),
    # the partner's page
    Route(
        method="POST", path="/v1/partners/{id}/page-link", scope="partners:link",
        handler=pages.link, summary="Give out a link to a partner's page: works once, for a while",
        responses={200: pages.PageLink}, problems=("not-found",),
    ),
    Route(
        method="DELETE", path="/v1/partners/{id}/visits", scope="partners:link",
        handler=pages.end, summary="End all links and visits of a partner",
        responses={200: pages.VisitsEnded}, problems=("not-found",),
    ),
    Route(
        method="GET", path="/v1/partners/{id}/day", scope="partners:read", handler=pages.day,
        partners=True, summary="Read the running day by the minute",
        responses={200: pages.DayView},
    ),
    Route(
        method="GET", path="/partners/{id}", scope=PUBLIC, handler=pages.show, media="text/html",
        summary="A partner's page: a link's door, then the page by the visit's cookie",
        responses={200: None, 303: None, 401: None, 404: None}, problems=("limit-exceeded",),
    ),
    Route(
        method="POST", path="/partners/{id}", scope=PUBLIC, handler=pages.enter, request=RAW,
        takes=pages.FORM, media="text/html", summary="Open a partner's page: use its link",
        responses={303: None, 401: None},
    ),
    Route(
        method="POST", path="/partners/{id}/leave", scope=PUBLIC, handler=pages.leave,
        media="text/html", summary="End the visit that the cookie belongs to",
        responses={204: None}, problems=("forbidden",),
    ),
    Route(
        method="GET", path="/partners/{id}/lines", scope=PUBLIC, handler=pages.rows,
        media="text/html", summary="The newest rows of a partner's page",
        responses={200: None}, problems=("unauthenticated", "not-found", "limit-exceeded"),
    ),
    Route(
        method="GET", path="/assets/{hash}/{name}", scope=PUBLIC, handler=pages.asset,
        media="application/octet-stream", summary="A file of the pages, for ever the same",
        responses={200: None}, problems=("not-found",),
    ),
    # what partners earned
    Route(
        method="GET", path="/v1/partners/{id}/balances", scope="partners:read",
        handler=rebates.balances, partners=True, params=rebates.BalancesParams,
        summary="Read a partner's balances, now or as of a closed moment",
        responses={200: rebates.PartnerBalances}, problems=("not-closed",),
    ),
    Route(
        method="GET", path="/v1/partners/{id}/lines", scope="partners:read",
        handler=rebates.lines, partners=True, params=rebates.LinesParams,
        summary="List what deals paid a partner's contract, in order or the newest first",
        responses={200: rebates.LinePage}, problems=("contract-needed", "not-closed"),
    ),
    Route(
        method="GET", path="/v1/rebates/liability", scope="partners:read",
        handler=rebates.owed, params=rebates.LiabilityParams,
        summary="Read what is owed to partners, by entity and currency",
        responses={200: rebates.LiabilityList}, problems=("not-closed", "not-found"),
    ),
    Route(
        method="GET", path="/v1/rebates/{line}/explanation", scope="partners:read",
        handler=explanations.explanation, partners=True,
        summary="Compute a line again from what is stored, and say every step",
        responses={200: explanations.ExplanationView},
    ),
    # providers
    Route(
        method="POST", path="/v1/psps/{psp}/webhooks", scope=PUBLIC, handler=house.notice,
        summary="A provider's webhook, signed by the provider", request=RAW,
        responses={200: house.Taken},
        problems=("psp-unknown", "webhook-forged", "webhook-unreadable"),
    ),
    # emergencies
    Route(
        method="POST", path="/v1/break-glass", scope="break-glass:request", handler=emergency.ask,
        summary="Ask another person for a role for minutes, in an emergency", request=BreakGlass,
        idempotent=True, responses={202: ApprovalView},
        problems=("reason-missing", "role-unknown", "role-kind", "entity-unknown",
                  "roles-conflict", "duty-conflict", "approval-open", "rulebook-moved",
                  "version-conflict"),
    ),
    Route(
        method="GET", path="/v1/break-glass", scope="break-glass:read", handler=emergency.page,
        masked=("break-glass:approve", "break-glass:request"),
        summary="List roles of emergencies, newest first", params=emergency.BrokenParams,
        responses={200: BrokenPage},
    ),
    # people of the house
    *signing.ROUTES,
    *desk.ROUTES,
    # the process itself
    Route(
        method="GET", path="/livez", scope=PUBLIC, handler=house.livez,
        summary="Whether the process answers", responses={200: house.Alive},
    ),
    Route(
        method="GET", path="/readyz", scope=PUBLIC, handler=house.readyz,
        summary="Whether it takes work, and what is degraded",
        responses={200: Readiness, 503: Readiness},
    ),
    Route(
        method="GET", path="/metrics", scope=PUBLIC, handler=house.metrics,
        summary="Metrics for Prometheus; from another machine with `metrics:read`",
        responses={200: None}, problems=("unauthenticated", "forbidden"),
    ),
    Route(
        method="GET", path="/openapi.json", scope=PUBLIC, handler=describe,
        summary="This description", responses={200: dict[str, Any]},
    ),
    Route(
        method="GET", path="/problems/{code}", scope=PUBLIC, handler=house.problem,
        summary="What a problem's type means", responses={200: Explanation},
        problems=("not-found",),
    ),
)  # fmt: skip

_OF_THE_API: Final = ("/v1/", "/partners/", "/assets/", "/sign-", "/desk")


def build(parts: Parts, *, commands: bool = True) -> web.Application:
    """The application: every route of the table, and problems for all that is not in it.

    commands  without them only what a process says of itself is served: its health and metrics
    """
    app = web.Application(middlewares=[_outside(parts)], client_max_size=parts.body_bytes_max)
    app[DESCRIPTION] = document(ROUTES, parts.version)
    for route in ROUTES:
        if route.path.startswith(_OF_THE_API) and not commands:
            continue
        app.router.add_route(route.method, route.path, Serving(route, parts).answer)
    app.on_shutdown.append(_close_streams(parts))
    return app


def _close_streams(parts: Parts) -> Callable[[web.Application], Awaitable[None]]:
    """Streams have no end of their own: they are ended before requests under way are waited for."""

    async def close(_: web.Application) -> None:
        parts.live.close()

    return close


def _outside(parts: Parts) -> Middleware:
    """Answer what no route took: unknown paths, wrong methods, malformed requests."""

    @web.middleware
    async def outside(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as no:
            return unserved(no, correlation(request, parts))

    return outside
