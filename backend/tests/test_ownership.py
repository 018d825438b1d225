"""Who may do what, for every endpoint: without credentials, with too little, and with somebody else's.

A new endpoint has to be entered in `ENDPOINTS`, or the first test fails.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from tests.access import PASSWORD, SignedIn, make_user, sign_in
from tests.conftest import make_account
from tests.test_webhooks import assert_problem
from tests.trading import open_desk
from tradingbot.api_keys import service as api_keys
from tradingbot.auth.principal import Scope
from tradingbot.core.models import utc_now
from tradingbot.core.settings import Settings
from tradingbot.events.service import EventType, record
from tradingbot.positions.models import AccountHolding, Position
from tradingbot.risk.models import Halt, Refusal, Rule
from tradingbot.webhooks.models import RejectedAlert


class Needs(Enum):
    """What an endpoint asks for."""

    NOTHING = "nothing"
    READ = "the scope read"
    TRADE = "the scope trade"
    SESSION = "a signed-in session"
    ADMIN = "an administrator's session"


ENDPOINTS = {
    "GET /health": Needs.NOTHING,
    "GET /health/ready": Needs.NOTHING,
    "POST /webhooks/tradingview/{token}": Needs.NOTHING,
    "POST /auth/register": Needs.NOTHING,
    "POST /auth/login": Needs.NOTHING,
    "POST /auth/refresh": Needs.NOTHING,
    "POST /auth/logout": Needs.SESSION,
    "POST /auth/password": Needs.SESSION,
    "GET /auth/me": Needs.READ,
    "GET /auth/sessions": Needs.SESSION,
    "DELETE /auth/sessions": Needs.SESSION,
    "DELETE /auth/sessions/{session_id}": Needs.SESSION,
    "POST /api-keys": Needs.SESSION,
    "GET /api-keys": Needs.SESSION,
    "DELETE /api-keys/{key_id}": Needs.SESSION,
    "POST /exchange-accounts": Needs.SESSION,
    "GET /exchange-accounts": Needs.READ,
    "GET /exchange-accounts/{account_id}": Needs.READ,
    "PATCH /exchange-accounts/{account_id}": Needs.SESSION,
    "DELETE /exchange-accounts/{account_id}": Needs.SESSION,
    "POST /strategies": Needs.TRADE,
    "GET /strategies": Needs.READ,
    "GET /strategies/{strategy_id}": Needs.READ,
    "PATCH /strategies/{strategy_id}": Needs.TRADE,
    "DELETE /strategies/{strategy_id}": Needs.TRADE,
    "POST /strategies/{strategy_id}/webhook-token": Needs.TRADE,
    "POST /strategies/{strategy_id}/secret": Needs.TRADE,
    "DELETE /strategies/{strategy_id}/secret": Needs.TRADE,
    "GET /signals": Needs.READ,
    "GET /signals/{signal_id}": Needs.READ,
    "GET /rejected-alerts": Needs.READ,
    "GET /orders": Needs.READ,
    "GET /orders/{order_id}": Needs.READ,
    "POST /orders/{order_id}/cancel": Needs.TRADE,
    "POST /orders/{order_id}/settle": Needs.TRADE,
    "GET /fills": Needs.READ,
    "GET /positions": Needs.READ,
    "GET /positions/summary": Needs.READ,
    "GET /positions/differences": Needs.READ,
    "GET /positions/{position_id}": Needs.READ,
    "POST /positions/{position_id}/close": Needs.TRADE,
    "POST /positions/{position_id}/adopt": Needs.TRADE,
    "POST /positions/{position_id}/correct": Needs.TRADE,
    "GET /refusals": Needs.READ,
    "GET /risk/halts": Needs.READ,
    "PUT /risk/halts/all": Needs.TRADE,
    "DELETE /risk/halts/all": Needs.TRADE,
    "PUT /risk/halts/strategies/{strategy_id}": Needs.TRADE,
    "DELETE /risk/halts/strategies/{strategy_id}": Needs.TRADE,
    "PUT /risk/halts/everybody": Needs.ADMIN,
    "DELETE /risk/halts/everybody": Needs.ADMIN,
    # A ticket changes nothing: it only opens a WebSocket, which shows.
    "POST /ws/tickets": Needs.READ,
    "GET /events": Needs.READ,
}
# For who is allowed, these make the request succeed.
BODIES: dict[str, Any] = {
    "POST /auth/password": {"current_password": PASSWORD, "new_password": "another good password"},
    "POST /api-keys": {"name": "mine"},
    "POST /exchange-accounts": {"name": "mine", "exchange": "paper", "mode": "paper"},
    "POST /orders/{order_id}/settle": {"filled_quantity": "0", "reason": "mine"},
    "POST /positions/{position_id}/adopt": {"reason": "mine"},
    "POST /positions/{position_id}/correct": {"quantity": "0", "reason": "mine"},
    "POST /strategies": {"name": "mine"},
    "PATCH /exchange-accounts/{account_id}": {"name": "taken"},
    "PATCH /strategies/{strategy_id}": {"name": "taken"},
}
HEADERS = {"POST /positions/{position_id}/close": {"Idempotency-Key": "once"}}
QUERIES = {"GET /events": {"after": "0"}}
GUARDED = [endpoint for endpoint, needs in ENDPOINTS.items() if needs is not Needs.NOTHING]
ENDS_A_SESSION = ("POST /auth/password", "POST /auth/logout")


@dataclass(frozen=True)
class Person:
    """Somebody with a session and API keys."""

    session: SignedIn
    keys: dict[str, str]

    def key(self, name: str) -> dict[str, str]:
        """Headers of an API key by its scopes."""
        return {"X-API-Key": self.keys[name]}


@dataclass(frozen=True)
class World:
    """An owner who has one of everything, and a stranger; `ids` are the owner's, by path parameter."""

    client: httpx.AsyncClient
    document: dict[str, Any]
    owner: Person
    stranger: Person
    ids: dict[str, str]

    async def ask(
        self, endpoint: str, headers: dict[str, str], parameters: dict[str, str] | None = None
    ) -> httpx.Response:
        """Sends a request to an endpoint, at the owner's ids."""
        method, _, path = endpoint.partition(" ")
        url = f"/api/v1{path.format_map(self.ids)}"
        body = BODIES.get(endpoint)
        return await self.client.request(
            method,
            url,
            headers=headers | HEADERS.get(endpoint, {}),
            params=QUERIES.get(endpoint, {}) | (parameters or {}),
            json=body,
        )

    def filters(self, endpoint: str) -> dict[str, str]:
        """The owner's ids for those query parameters of an endpoint that are ids."""
        method, _, path = endpoint.partition(" ")
        parameters = self.document["paths"][f"/api/v1{path}"][method.lower()].get("parameters", [])
        names = [parameter["name"] for parameter in parameters if parameter["in"] == "query"]
        return {name: self.ids[name] for name in names if name.endswith("_id")}

    def leaked(self, answer: httpx.Response) -> list[str]:
        """Which of the owner's ids are in an answer."""
        return [name for name, value in self.ids.items() if value in answer.text]


@pytest.fixture
async def world(app: FastAPI, client: httpx.AsyncClient, settings: Settings) -> World:
    owner = await _person(app, client, settings, "owner@mail.test")
    stranger = await _person(app, client, settings, "stranger@mail.test")
    ids = await _one_of_everything(app, settings, owner)
    return World(client, app.openapi(), owner, stranger, ids)


async def _person(app: FastAPI, client: httpx.AsyncClient, settings: Settings, email: str) -> Person:
    user_id = await make_user(settings, email)
    keys = {}
    async with app.state.context.database.transaction() as session:
        for name, scopes in (("read", [Scope.READ]), ("trade", [Scope.TRADE]), ("both", Scope)):
            _, keys[name] = await api_keys.create(
                session, user_id, name, settings.secret_key.get_secret_value(), scopes
            )
    return Person(await sign_in(client, email), keys)


async def _one_of_everything(app: FastAPI, settings: Settings, owner: Person) -> dict[str, str]:
    database = app.state.context.database
    account = await make_account(settings, "owner@mail.test")
    desk = await open_desk(database, account)
    signal = await desk.signal()
    order = await desk.hold("1")
    refusal = Refusal(
        user_id=desk.user_id,
        strategy_id=desk.strategy_id,
        signal_id=signal.id,
        rule=Rule.MAX_POSITION,
        reason="too much",
    )
    rejected = RejectedAlert(
        user_id=desk.user_id,
        strategy_id=desk.strategy_id,
        kind="x",
        status=422,
        reason="x",
        last_at=utc_now(),
    )
    async with database.transaction() as session:
        session.add(refusal)
        session.add(rejected)
        session.add(
            AccountHolding(
                exchange_account_id=desk.exchange_account_id,
                market="BTCUSDT",
                asset="BTC",
                quantity=Decimal(2),
                booked=Decimal(1),
                differs_since=utc_now(),
            )
        )
        session.add(Halt(user_id=desk.user_id, strategy_id=desk.strategy_id, reason="the owner's"))
        await record(session, desk.user_id, EventType.SIGNAL, {"id": str(signal.id)})
    async with database.transaction() as session:
        held = select(Position.id).where(Position.strategy_id == desk.strategy_id)
        position_id = (await session.execute(held)).scalar_one()
        listed = await api_keys.list_page(session, desk.user_id, 200, None)
    return {
        "session_id": owner.session.session_id,
        "key_id": str(listed.items[0].id),
        "account_id": str(desk.exchange_account_id),
        "exchange_account_id": str(desk.exchange_account_id),
        "strategy_id": str(desk.strategy_id),
        "signal_id": str(signal.id),
        "order_id": str(order.id),
        "position_id": str(position_id),
        "refusal_id": str(refusal.id),
        "rejected_alert_id": str(rejected.id),
        "user_id": str(desk.user_id),
    }


def test_every_endpoint_is_entered(app: FastAPI) -> None:
    served = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    }
    assert served == set(ENDPOINTS)


def _routes(router: Any) -> Iterator[Any]:
    for route in router.routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from _routes(included)


def test_nothing_else_is_served(app: FastAPI) -> None:
    hidden = {route.path for route in _routes(app) if not getattr(route, "include_in_schema", False)}
    # The WebSocket's tickets, and who may read the metrics, have tests of their own. The last one is for
    # WebSockets that ask for anything else.
    loaded = {"favicon-32x32.png", "start.js", "swagger-ui-bundle.js", "swagger-ui.css"}
    page = {"/docs", *(f"/docs/{name}" for name in loaded)}
    assert hidden == {"/openapi.json", *page, "/ws", "/metrics", "/{path:path}"}


def test_only_what_changes_nothing_needs_no_more_than_read() -> None:
    changing = {name for name, needs in ENDPOINTS.items() if needs is Needs.READ and name[:4] != "GET "}
    assert changing == {"POST /ws/tickets"}


def test_document_says_what_is_needed(app: FastAPI) -> None:
    for endpoint, needs in ENDPOINTS.items():
        method, _, path = endpoint.partition(" ")
        operation = app.openapi()["paths"][f"/api/v1{path}"][method.lower()]
        schemes = {name for one in operation.get("security", []) for name in one}
        expected = {
            Needs.NOTHING: set(),
            Needs.READ: {"session", "apiKey"},
            Needs.TRADE: {"session", "apiKey"},
        }.get(needs, {"session"})
        assert schemes == expected, endpoint
        if needs is not Needs.NOTHING:
            assert {"401", "403", "503"} <= set(operation["responses"]), endpoint
            assert ("404" in operation["responses"]) == ("{" in path), endpoint


async def test_without_credentials(world: World) -> None:
    for endpoint in GUARDED:
        for headers in ({}, {"X-API-Key": "tbk_x"}, {"Authorization": "Bearer x.y.z"}):
            answer = await world.ask(endpoint, headers)
            assert answer.status_code == 401, endpoint
            assert_problem(answer, 401)
            assert answer.headers["www-authenticate"], endpoint


async def test_with_too_little(world: World) -> None:
    for endpoint in GUARDED:
        needs = ENDPOINTS[endpoint]
        for key, sufficient in (("read", Needs.READ), ("trade", Needs.TRADE), ("both", None)):
            allowed = needs in (Needs.READ, Needs.TRADE) if key == "both" else needs is sufficient
            if allowed:
                continue
            answer = await world.ask(endpoint, world.owner.key(key))
            assert answer.status_code == 403, (endpoint, key)
            detail = assert_problem(answer, 403)["detail"]
            if needs in (Needs.READ, Needs.TRADE):
                assert detail == f"The API key lacks {needs.value}.", endpoint
        if needs is Needs.ADMIN:
            assert_problem(await world.ask(endpoint, world.owner.session.headers), 403)


@pytest.mark.parametrize("method", ["GET", "other"])
async def test_strangers_do_not_find_it(world: World, method: str) -> None:
    for endpoint in GUARDED:
        if "{" not in endpoint or (endpoint[:4] == "GET ") != (method == "GET"):
            continue
        answers = [await world.ask(endpoint, world.stranger.session.headers)]
        if ENDPOINTS[endpoint] in (Needs.READ, Needs.TRADE):
            answers.append(await world.ask(endpoint, world.stranger.key("both")))
            if ENDPOINTS[endpoint] is Needs.TRADE:
                answers[-1] = await world.ask(endpoint, world.stranger.key("trade"))
        for answer in answers:
            assert answer.status_code == 404, (endpoint, answer.text)
            assert_problem(answer, 404)
            assert not world.leaked(answer), endpoint


async def test_strangers_see_nothing_in_lists(world: World) -> None:
    for endpoint in GUARDED:
        if endpoint[:4] != "GET ":
            continue
        own = await world.ask(endpoint, world.owner.session.headers)
        assert own.status_code == 200, (endpoint, own.text)
        # Otherwise there would be nothing to find.
        assert world.leaked(own), endpoint
        if "{" in endpoint:
            continue
        for parameters in ({}, world.filters(endpoint)):
            answer = await world.ask(endpoint, world.stranger.session.headers, parameters)
            assert answer.status_code in ({200, 404} if parameters else {200}), (endpoint, answer.text)
            assert not world.leaked(answer), (endpoint, answer.text)


async def test_strangers_change_nothing(world: World) -> None:
    async def seen() -> dict[str, Any]:
        return {
            endpoint: (await world.ask(endpoint, world.owner.session.headers)).json()
            for endpoint in GUARDED
            if endpoint[:4] == "GET "
        }

    before = await seen()
    last = [endpoint for endpoint in ENDS_A_SESSION if endpoint in GUARDED]
    for endpoint in [*(name for name in GUARDED if name not in last), *last]:
        if endpoint[:4] == "GET " or ENDPOINTS[endpoint] is Needs.ADMIN:
            continue
        answer = await world.ask(endpoint, world.stranger.session.headers)
        expected = {404} if "{" in endpoint else {200, 201, 202, 204}
        assert answer.status_code in expected, (endpoint, answer.text)
    assert await seen() == before
    # The owner's password and keys work as before.
    await sign_in(world.client, "owner@mail.test")
    for name in ("read", "both"):
        answer = await world.client.get("/api/v1/auth/me", headers=world.owner.key(name))
        assert answer.status_code == 200


async def test_strangers_cannot_use_the_owners_account(world: World) -> None:
    headers = world.stranger.session.headers
    stolen = {"exchange_account_id": world.ids["account_id"]}
    body = {"name": "mine"} | stolen
    refused = await world.client.post("/api/v1/strategies", json=body, headers=headers)
    assert_problem(refused, 422)
    made = await world.client.post("/api/v1/strategies", json={"name": "mine"}, headers=headers)
    path = f"/api/v1/strategies/{re.findall(r'[0-9a-f-]{36}', made.text)[0]}"
    assert (await world.client.get(path, headers=headers)).status_code == 200
    assert_problem(await world.client.patch(path, json=stolen, headers=headers), 422)
