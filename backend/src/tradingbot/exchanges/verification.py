"""Asks an exchange whether new credentials are good, and whether they may do too much."""

from importlib.util import find_spec

from tradingbot.core.context import Context
from tradingbot.core.crypto import Envelopes
from tradingbot.core.errors import UnavailableError, UnprocessableError
from tradingbot.exchanges.base import CredentialsError, ExchangeError
from tradingbot.exchanges.factory import open_exchange
from tradingbot.exchanges.models import ExchangeAccount


async def verify(account: ExchangeAccount, context: Context) -> None:
    """Shows the account's credentials, if it has some, to its exchange.

    Raises:
        UnprocessableError: the exchange does not accept them, they may withdraw, or we cannot speak to it.
        UnavailableError: the exchange does not answer.
    """
    if find_spec("ccxt") is None:
        raise UnprocessableError(
            "Real exchanges need ccxt, which is not installed: build the image with the extra `exchanges`"
            " (backend_build_extras of the role, EXTRAS of the Dockerfile), or install tradingbot[exchanges]."
        )
    settings = context.settings
    try:
        exchange = open_exchange(account, settings, Envelopes.of(settings), context.database)
        try:
            await exchange.check_credentials()
        finally:
            await exchange.close()
    except CredentialsError as error:
        raise UnprocessableError(str(error)) from None
    except ExchangeError as error:
        raise UnavailableError(f"{account.exchange} could not be asked: {error}") from None
