"""Opens what an exchange account stands for. Nothing connects before it is asked for something."""

import ipaddress
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tradingbot.core.crypto import Envelopes
from tradingbot.core.database import Database
from tradingbot.core.settings import Settings
from tradingbot.exchanges import repository
from tradingbot.exchanges.base import CredentialsError, Exchange
from tradingbot.exchanges.credentials import Credentials, credentials_of
from tradingbot.exchanges.models import ExchangeAccount, Market, Mode
from tradingbot.exchanges.paper import PaperAccount, PaperExchange
from tradingbot.exchanges.service import LiveForbiddenError, check_mode

if TYPE_CHECKING:
    from tradingbot.exchanges.ccxt_exchange import CcxtExchange, Holdings


def open_exchange(
    account: ExchangeAccount, settings: Settings, envelopes: Envelopes, database: Database
) -> Exchange:
    """Gives the account's exchange, to be kept, used again and closed. Must be called in the event loop.

    Raises:
        CredentialsError: the account cannot be used: an exchange or mode that is not supported, real money
            under BINANCE_TESTNET, the extra `exchanges` missing.
        EnvelopeError: its credentials do not open.
    """
    market, mode = Market(account.market), Mode(account.mode)
    if mode == Mode.PAPER:
        live = _real(account.exchange, market, Mode.LIVE, settings) if account.live_price else None
        return PaperExchange(PaperAccount.of(account), database, live)
    try:
        check_mode(account, settings)
    except LiveForbiddenError as error:
        raise CredentialsError(error.detail) from None
    account_id = account.id

    async def holdings() -> Sequence[tuple[str, Decimal]]:
        async with database.transaction() as session:
            return await repository.held(session, account_id)

    return _real(account.exchange, market, mode, settings, credentials_of(account, envelopes), holdings)


def _real(
    exchange: str,
    market: Market,
    mode: Mode,
    settings: Settings,
    credentials: Credentials | None = None,
    holdings: "Holdings | None" = None,
) -> "CcxtExchange":
    # Only here: it imports aiohttp, which processes without real accounts do not need.
    from tradingbot.exchanges.ccxt_client import make_client
    from tradingbot.exchanges.ccxt_exchange import CcxtExchange

    timeout = settings.exchange_timeout
    client = make_client(exchange, market, mode, credentials, timeout, _base_url(settings))
    return CcxtExchange(client, exchange, market, mode, timeout, holdings)


def _base_url(settings: Settings) -> str | None:
    """Gives EXCHANGE_BASE_URL. Credentials are sent there: only to this machine, and never in production."""
    url = settings.exchange_base_url
    if url is None:
        return None
    if settings.environment == "production" or not _is_loopback(urlsplit(url).hostname):
        raise CredentialsError(
            "EXCHANGE_BASE_URL is for tests: an address of this machine, and not in production."
        )
    return url


def _is_loopback(host: str | None) -> bool:
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
