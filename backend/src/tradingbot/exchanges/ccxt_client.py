"""ccxt's client of one account: decimals instead of floats, nothing sent twice, no credential in a log."""

import logging
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from tradingbot.exchanges.base import CredentialsError
from tradingbot.exchanges.ccxt_loading import exchange_class
from tradingbot.exchanges.credentials import Credentials
from tradingbot.exchanges.models import Market, Mode

# Milliseconds after its timestamp in which Binance takes a request; its own default and recommendation.
# https://developers.binance.com/docs/binance-spot-api-docs/rest-api/request-security#timing-security
RECV_WINDOW = 5000
# Exchanges whose faults, identifiers and key permissions the adapter knows. Each needs its own tests.
SUPPORTED = ("binance",)

# ccxt logs requests at DEBUG, with the key in their headers: never, whatever LOG_LEVEL says.
_logger = logging.getLogger("tradingbot.exchanges.ccxt")
_logger.setLevel(logging.WARNING)


@dataclass
class Answer:
    """The last answer to the call under way, as it came; nothing in it if there was none."""

    status: int | None = None
    body: str = ""
    retry_after: str | None = None


current_answer: ContextVar[Answer | None] = ContextVar("current_answer", default=None)


def make_client(
    exchange: str,
    market: Market,
    mode: Mode,
    credentials: Credentials | None,
    timeout: float,
    base_url: str | None = None,
) -> Any:
    """Gives a client; it connects when first used. `timeout` (seconds) is for one request.

    Raises:
        CredentialsError: the exchange, or this mode of it, cannot be used.
    """
    if exchange not in SUPPORTED:
        raise CredentialsError(
            f"The exchange {exchange} is not supported; these are: {', '.join(SUPPORTED)}."
        )
    if mode == Mode.TESTNET and market == Market.FUTURE:
        raise CredentialsError(
            "Binance has closed its testnet for futures: use mode demo, with a key of demo trading."
        )
    client = _with_hooks(exchange_class(exchange))(_configuration(market, credentials, timeout))
    if mode == Mode.TESTNET:
        client.set_sandbox_mode(True)
    elif mode == Mode.DEMO:
        client.enable_demo_trading(True)
    if base_url is not None:
        client.urls["api"] = {
            name: base_url.rstrip("/") + urlsplit(address).path
            for name, address in client.urls["api"].items()
        }
    return client


def _configuration(market: Market, credentials: Credentials | None, timeout: float) -> dict[str, Any]:
    keys = {}
    if credentials is not None:
        keys = {"apiKey": credentials.key, "secret": credentials.secret, "password": credentials.passphrase}
    return keys | {
        "enableRateLimit": True,
        "timeout": int(timeout * 1000),
        # Milliseconds that close() sleeps; the connections are closed before.
        "timeout_on_exit": 0,
        "options": {
            "defaultType": market.value,
            "fetchMarkets": {"types": ["spot" if market == Market.SPOT else "linear"]},
            "fetchCurrencies": False,
            "fetchMargins": False,
            "adjustForTimeDifference": True,
            "maxRetriesOnFailure": 0,
            "recvWindow": RECV_WINDOW,
        },
    }


def _with_hooks(base: Any) -> Any:
    import aiohttp

    async def refuse(_session: Any, _context: Any, redirect: aiohttp.TraceRequestRedirectParams) -> None:
        # Followed, 307 and 308 would send an order twice, and its key and signature to anybody.
        redirect.response.close()
        raise aiohttp.TooManyRedirects(redirect.response.request_info, (redirect.response,))

    class Client(base):  # type: ignore[misc]  # ccxt has no types
        number = Decimal
        logger = _logger

        def open(self) -> None:
            is_first = self.session is None
            super().open()
            if is_first:
                tracing = aiohttp.TraceConfig()
                tracing.on_request_redirect.append(refuse)
                tracing.freeze()
                self.session.trace_configs.append(tracing)

        def on_rest_response(
            self,
            code: int,
            reason: str,
            url: str,
            method: str,
            response_headers: Any,
            response_body: str,
            request_headers: Any,
            request_body: Any,
        ) -> Any:
            answer = current_answer.get()
            if answer is not None:
                answer.status, answer.body = code, response_body
                answer.retry_after = response_headers.get("Retry-After")
            return super().on_rest_response(
                code, reason, url, method, response_headers, response_body, request_headers, request_body
            )

        def parse_json(self, http_response: str) -> Any:
            # ccxt would make an order without any content of a page of HTML.
            parsed = super().parse_json(http_response)
            if parsed is None:
                raise ValueError("the answer is not JSON")
            return parsed

    return Client
