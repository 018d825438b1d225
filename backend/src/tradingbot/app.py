"""Puts the application together."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache

from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.middleware.cors import CORSMiddleware

from tradingbot import __version__
from tradingbot.api_keys import endpoints as api_keys
from tradingbot.auth import endpoints as auth
from tradingbot.auth.lockout import Attempts
from tradingbot.core import metrics_endpoint as metrics
from tradingbot.core.body import LARGEST, BodyLimit
from tradingbot.core.context import Context
from tradingbot.core.database import Database
from tradingbot.core.direct_route import add_direct_routes
from tradingbot.core.logging import configure_logging
from tradingbot.core.metrics import set_build_info, watch_pool
from tradingbot.core.middleware import RequestMiddleware
from tradingbot.core.openapi import Application
from tradingbot.core.passwords import Passwords
from tradingbot.core.problems import install_error_handlers, problem_response
from tradingbot.core.redis import make_redis
from tradingbot.core.refusal import load
from tradingbot.core.sentry import reporting_errors
from tradingbot.core.settings import Settings
from tradingbot.docs.endpoints import add_docs
from tradingbot.events import endpoints as events
from tradingbot.events.hub import EventHub
from tradingbot.events.protocol import LiveProtocol
from tradingbot.events.publisher import EventPublisher
from tradingbot.exchanges import endpoints as exchanges
from tradingbot.health import endpoints as health
from tradingbot.orders import endpoints as orders
from tradingbot.outbox.waker import Waker
from tradingbot.positions import endpoints as positions
from tradingbot.risk import endpoints as risk
from tradingbot.risk import refusals_endpoints as refusals
from tradingbot.signals import endpoints as signals
from tradingbot.strategies import endpoints as strategies
from tradingbot.webhooks import endpoints as webhooks
from tradingbot.webhooks import rejected_endpoints as rejected_alerts
from tradingbot.webhooks.intake import Intake
from tradingbot.webhooks.rejections import Rejections

API_PREFIX = "/api/v1"


def create_app(settings: Settings | None = None) -> FastAPI:
    """Makes the application; without `settings` they are read from the environment."""
    settings = settings or load(Settings)
    configure_logging(settings.log_level)
    app = Application(
        title="TradingBot",
        version=__version__,
        summary="Takes trading alerts, keeps each one once, and streams them live.",
        lifespan=_lifespan(settings),
        docs_url=None,
        openapi_url="/openapi.json" if settings.serves_docs else None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_error_handlers(app)
    app.router.routes.extend(endpoints().routes)
    if settings.serves_docs:
        add_docs(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-API-Key", "X-Request-ID"],
            expose_headers=["Retry-After", "X-Request-ID"],
            max_age=600,
        )
    app.add_middleware(BodyLimit, limit=max(LARGEST, settings.webhook_max_bytes))
    app.add_middleware(RequestMiddleware, slow=settings.slow_request_ms / 1000)
    return app


@cache
def endpoints() -> APIRouter:
    """Return all endpoints. They are the same whatever the settings are, and take longest of all to build."""
    routes = APIRouter()
    add_direct_routes(routes, API_PREFIX, [*health.direct, *webhooks.direct])
    api = APIRouter(prefix=API_PREFIX)
    for domain in (
        health,
        auth,
        api_keys,
        exchanges,
        strategies,
        signals,
        rejected_alerts,
        orders,
        positions,
        refusals,
        risk,
        events,
    ):
        api.include_router(domain.router)
    routes.include_router(api)
    routes.include_router(metrics.router)
    routes.add_api_websocket_route("/{path:path}", _nowhere)
    return routes


async def _nowhere(websocket: WebSocket) -> None:
    """Refuses a WebSocket at any other path as all is refused, rather than with an empty 403."""
    await websocket.send_denial_response(problem_response(404))


def _lifespan(settings: Settings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        redis = make_redis(settings)
        publisher = EventPublisher(redis)
        database = Database(settings, publisher.publish_all)
        hub = EventHub(redis, database, settings)
        waker = Waker(settings)
        intake = Intake(settings, waker)
        rejections = Rejections(database, settings)
        passwords, attempts = Passwords(), Attempts(redis, settings)
        app.state.context = Context(
            settings, database, redis, publisher, hub, intake, rejections, passwords, attempts
        )
        set_build_info()
        watch_pool(database.engine, "web")
        with reporting_errors(settings, "web"):
            publisher.start()
            hub.start()
            waker.start()
            await database.open()
            await intake.start()
            rejections.start()
            # A thread of another program gets no signals.
            if threading.current_thread() is threading.main_thread():
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, LiveProtocol.reconnect_all)
            try:
                yield
            finally:
                passwords.close()
                await hub.close()
                await intake.close()
                await rejections.close()
                await waker.close()
                await publisher.close()
                await redis.aclose()
                await database.close()

    return lifespan
