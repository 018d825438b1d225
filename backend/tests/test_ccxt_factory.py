"""How an exchange account becomes an exchange, and what is refused on the way."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import ENCRYPTION_KEY
from tests.stub_exchange import DEFAULT_KEY, DEFAULT_SECRET, StubExchange
from tests.test_ccxt_orders import CREDENTIALS, request
from tradingbot.core.crypto import EnvelopeError, Envelopes
from tradingbot.core.database import Database
from tradingbot.core.settings import Settings
from tradingbot.exchanges.base import CredentialsError, Exchange
from tradingbot.exchanges.ccxt_client import make_client
from tradingbot.exchanges.ccxt_loading import MissingExtraError, exchange_class
from tradingbot.exchanges.credentials import seal_credentials
from tradingbot.exchanges.factory import open_exchange
from tradingbot.exchanges.models import ExchangeAccount, Market, Mode
from tradingbot.orders.models import OrderState

Open = Callable[..., Exchange]


def make_account(**columns: Any) -> ExchangeAccount:
    values = {"exchange": "binance", "market": Market.SPOT, "mode": Mode.TESTNET, "live_price": False}
    account = ExchangeAccount(id=uuid4(), user_id=uuid4(), name="account", **{**values, **columns})
    seal_credentials(account, CREDENTIALS, Envelopes(ENCRYPTION_KEY))
    return account


@pytest.fixture
def opened(settings: Settings) -> Open:
    """Opens an account under changed settings."""

    def open_it(account: ExchangeAccount, **changes: Any) -> Exchange:
        changed = settings.model_copy(update=changes)
        return open_exchange(account, changed, Envelopes(ENCRYPTION_KEY), Database(changed))

    return open_it


@pytest.mark.parametrize(
    ("market", "mode"),
    [
        (Market.SPOT, Mode.TESTNET),
        (Market.SPOT, Mode.DEMO),
        (Market.FUTURE, Mode.DEMO),
        (Market.SPOT, Mode.LIVE),
        (Market.FUTURE, Mode.LIVE),
    ],
)
async def test_an_account_trades_with_its_own_key(opened: Open, market: Market, mode: Mode) -> None:
    async with StubExchange() as stub:
        account = make_account(market=market, mode=mode)
        exchange = opened(account, exchange_base_url=stub.url, binance_testnet=False)
        assert (await exchange.place(request())).state == OrderState.FILLED
        assert stub.posts()[0].headers["X-MBX-APIKEY"] == DEFAULT_KEY
        await exchange.close()


@pytest.mark.parametrize(
    ("columns", "changes", "reason"),
    [
        ({"mode": Mode.LIVE}, {}, "BINANCE_TESTNET"),
        ({"market": Market.FUTURE}, {}, "use mode demo"),
        ({"exchange": "kraken"}, {}, "kraken is not supported"),
        ({}, {"exchange_base_url": "http://10.0.0.1"}, "EXCHANGE_BASE_URL"),
        ({}, {"exchange_base_url": "http://binance.test"}, "EXCHANGE_BASE_URL"),
        ({}, {"exchange_base_url": "http://127.0.0.1:9", "environment": "production"}, "EXCHANGE_BASE_URL"),
    ],
)
async def test_what_cannot_or_may_not_be_used_is_refused(
    opened: Open, columns: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CredentialsError, match=reason):
        opened(make_account(**columns), **changes)


async def test_envelopes_of_another_row_do_not_open(opened: Open) -> None:
    account = make_account()
    account.id = uuid4()
    with pytest.raises(EnvelopeError):
        opened(account)


@pytest.mark.parametrize(
    ("market", "mode", "host"),
    [
        (Market.SPOT, Mode.LIVE, "https://api.binance.com/api/v3"),
        (Market.SPOT, Mode.TESTNET, "https://testnet.binance.vision/api/v3"),
        (Market.SPOT, Mode.DEMO, "https://demo-api.binance.com/api/v3"),
        (Market.FUTURE, Mode.LIVE, "https://fapi.binance.com/fapi/v1"),
        (Market.FUTURE, Mode.DEMO, "https://demo-fapi.binance.com/fapi/v1"),
    ],
)
async def test_a_mode_has_its_own_address(market: Market, mode: Mode, host: str) -> None:
    client = make_client("binance", market, mode, CREDENTIALS, 5)
    api = "private" if market == Market.SPOT else "fapiPrivate"
    signed = client.sign("order", api, "POST", {"newClientOrderId": "tbone"})
    assert signed["url"] == f"{host}/order"
    assert DEFAULT_SECRET not in repr(signed)
    await client.close()


def test_only_the_exchange_that_is_needed_is_imported_and_only_when_it_is() -> None:
    program = """if True:
        import sys
        from tradingbot.exchanges import factory
        assert not {"ccxt", "aiohttp"} & sys.modules.keys()
        from tradingbot.exchanges.ccxt_loading import exchange_class
        binance = exchange_class("binance")
        assert binance is exchange_class("binance")
        others = {"ccxt.kraken", "ccxt.async_support.kraken", "ccxt.binance"}
        assert not others & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_the_extra_the_account_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ccxt"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(MissingExtraError, match="extra `exchanges`"):
        exchange_class("binance")
    assert "ccxt" not in sys.modules
