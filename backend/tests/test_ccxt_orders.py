"""Orders through ccxt to the stub exchange: what arrives there, and what is made of its answers."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.stub_exchange import DEFAULT_KEY, DEFAULT_SECRET, Filling, StubExchange
from tradingbot.exchanges.base import (
    CredentialsError,
    NotSentError,
    OrderRequest,
    RejectedError,
    UnknownSymbolError,
)
from tradingbot.exchanges.ccxt_client import make_client
from tradingbot.exchanges.ccxt_exchange import CcxtExchange, Holdings
from tradingbot.exchanges.credentials import Credentials
from tradingbot.exchanges.models import Market, Mode
from tradingbot.orders.models import OrderState, Side

D = Decimal
CREDENTIALS = Credentials(DEFAULT_KEY, DEFAULT_SECRET)


def request(client_order_id: str = "tbone", **changes: Any) -> OrderRequest:
    order = {"symbol": "BTCUSDT", "side": Side.BUY, "quantity": D("0.5"), "price": D(50000)}
    return OrderRequest(client_order_id=client_order_id, **{**order, **changes})


def connect(
    stub: StubExchange,
    market: Market,
    mode: Mode = Mode.LIVE,
    credentials: Credentials = CREDENTIALS,
    timeout: float = 20.0,
    holdings: Holdings | None = None,
) -> CcxtExchange:
    client = make_client("binance", market, mode, credentials, timeout, stub.url)
    return CcxtExchange(client, "binance", market, mode, timeout, holdings)


@pytest.fixture
async def stub() -> AsyncIterator[StubExchange]:
    async with StubExchange() as exchange:
        yield exchange


@pytest.fixture(params=list(Market))
def market(request: pytest.FixtureRequest) -> Market:
    return Market(request.param)


@pytest.fixture
async def exchange(stub: StubExchange, market: Market) -> AsyncIterator[CcxtExchange]:
    opened = connect(stub, market)
    yield opened
    await opened.close()


@pytest.fixture
async def spot(stub: StubExchange) -> AsyncIterator[CcxtExchange]:
    opened = connect(stub, Market.SPOT)
    yield opened
    await opened.close()


@pytest.fixture
async def future(stub: StubExchange) -> AsyncIterator[CcxtExchange]:
    opened = connect(stub, Market.FUTURE)
    yield opened
    await opened.close()


async def test_an_order_is_filled_and_found_again(stub: StubExchange, exchange: CcxtExchange) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    report = await exchange.place(request())
    assert report.state == OrderState.FILLED
    assert report.client_order_id == "tbone"
    (trade,) = report.trades
    assert (trade.quantity, trade.price, trade.fee, trade.fee_asset) == (D("0.5"), D(50000), D(25), "USDT")
    assert before < trade.at < datetime.now(UTC) + timedelta(seconds=1)
    assert await exchange.find("tbone", "BTCUSDT") == report
    assert stub.account.counts() == {"tbone": 1}
    assert stub.sent("tbone") == 1


async def test_unknown_orders_are_found_to_be_none(exchange: CcxtExchange) -> None:
    assert await exchange.find("tbnone", "BTCUSDT") is None
    assert await exchange.cancel("tbnone", "BTCUSDT") is None


@pytest.mark.parametrize(
    ("quantity", "spot_text", "future_text"),
    [
        ("0.123456789012345678", "0.12345", "0.123"),
        ("0.1", "0.1", "0.1"),
        ("0.300000000000000000", "0.3", "0.3"),
        # The nearest float is 0.29999999999999998889…, from which a step would be lost.
        ("0.29", "0.29", "0.29"),
        ("1.005", "1.005", "1.005"),
        ("9.999999", "9.99999", "9.999"),
    ],
)
async def test_amounts_arrive_rounded_down_to_the_step_without_a_float(
    stub: StubExchange,
    exchange: CcxtExchange,
    market: Market,
    quantity: str,
    spot_text: str,
    future_text: str,
) -> None:
    report = await exchange.place(request(quantity=D(quantity)))
    (post,) = stub.posts("tbone")
    wanted = spot_text if market == Market.SPOT else future_text
    assert post.parameters["quantity"] == wanted
    assert post.parameters["type"] == "MARKET"
    assert post.parameters["side"] == "BUY"
    assert sum(trade.quantity for trade in report.trades) == D(wanted)
    assert {type(value) for trade in report.trades for value in (trade.quantity, trade.price, trade.fee)} == {
        D
    }


async def test_large_and_tiny_numbers_stay_exact(stub: StubExchange, spot: CcxtExchange) -> None:
    stub.account.balances["USDT"] = D(10) ** 9
    stub.book.prices["SHIBUSDT"] = D("0.00001234")
    report = await spot.place(request(symbol="SHIBUSDT", quantity=D("9007199993.9"), price=D("0.00001234")))
    assert stub.posts("tbone")[0].parameters["quantity"] == "9007199993"
    (trade,) = report.trades
    assert (trade.quantity, trade.price) == (D(9007199993), D("0.00001234"))
    assert trade.fee == D("111.14884791362")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantity": D("0.000001")}, "less than the market's step"),
        ({"quantity": D("0.0009"), "price": D(1)}, "less than the"),
        ({"quantity": D(10000)}, "more than the largest amount, 9000"),
        ({"quantity": D("0.01"), "price": D(100)}, "less than the least order value"),
        ({"symbol": "NOPEUSDT"}, "binance has no"),
        ({"symbol": "COINBASE:BTCUSD"}, "a symbol of COINBASE"),
    ],
)
async def test_what_the_market_does_not_take_is_refused_before_it_is_sent(
    stub: StubExchange, exchange: CcxtExchange, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RejectedError, match=reason):
        await exchange.place(request(**changes))
    assert stub.posts() == []


async def test_the_least_quantity_is_by_amount_and_by_worth(spot: CcxtExchange, future: CcxtExchange) -> None:
    for exchange in (spot, future):
        limits = await exchange.limits("BTCUSDT")
        least = limits.min_quantity
        for price in (None, D(0), D(10) ** 9):
            assert limits.min_order(price) == limits.min_exit(price) == least
        with pytest.raises(RejectedError, match="less than"):
            await exchange.place(request(quantity=least - D("0.000001"), price=None))
        with pytest.raises(UnknownSymbolError, match="NOPEUSDT"):
            await exchange.limits("NOPEUSDT")
    limits = await spot.limits("BTCUSDT")
    worth_enough = limits.min_order(D(100))
    assert (limits.shorts, limits.min_exit(D(100))) == (False, worth_enough)
    with pytest.raises(RejectedError, match="least order value"):
        await spot.place(request(quantity=worth_enough - D("0.00001"), price=D(100)))
    await spot.place(request(quantity=worth_enough, price=D(100)))
    limits = await future.limits("BTCUSDT")
    # What only reduces a contract may be worth anything.
    assert (limits.shorts, limits.min_order(D(100)), limits.min_exit(D(100))) == (True, D(1), D("0.001"))


async def test_an_exit_is_cut_to_the_largest_market_order(
    stub: StubExchange, market: Market, exchange: CcxtExchange
) -> None:
    stub.book.change(market.value, "BTCUSDT", market_maximum=D("0.2"))
    with pytest.raises(RejectedError, match="more than the largest amount"):
        await exchange.place(request())
    await exchange.place(request("tbtwo", quantity=D("0.2")))
    report = await exchange.place(request("tbthree", side=Side.SELL, reduce_only=True))
    assert report.state == OrderState.FILLED
    assert sum(trade.quantity for trade in report.trades) == D("0.2")


async def test_what_the_exchange_refuses_is_refused_for_good(
    stub: StubExchange, spot: CcxtExchange, future: CcxtExchange
) -> None:
    with pytest.raises(RejectedError, match="-2010 Account has insufficient balance"):
        await spot.place(request(quantity=D(1000), price=None))
    with pytest.raises(RejectedError, match=r"-1013 Market is closed\."):
        await spot.place(request(symbol="LUNAUSDT", quantity=D(10), price=D(1)))
    with pytest.raises(RejectedError, match="-1013 Filter failure: NOTIONAL"):
        await spot.place(request(quantity=D("0.00001"), price=None))
    with pytest.raises(RejectedError, match="-2019 Margin is insufficient"):
        await future.place(request(quantity=D(8000)))
    with pytest.raises(RejectedError, match="-2022 ReduceOnly Order is rejected"):
        await future.place(request(reduce_only=True))
    assert not stub.account.orders


async def test_reduce_only_is_for_futures_and_has_no_least_value(
    stub: StubExchange, spot: CcxtExchange, future: CcxtExchange
) -> None:
    await future.place(request("tbopen", quantity=D("0.1")))
    report = await future.place(
        request("tbclose", side=Side.SELL, quantity=D("0.001"), price=D(50000), reduce_only=True)
    )
    assert report.state == OrderState.FILLED
    assert stub.posts("tbclose")[0].parameters["reduceOnly"] == "true"
    assert await future.holding("BTCUSDT") == D("0.099")
    # Nor does spot know a reduce-only order, and the price of an alert decides nothing.
    await spot.place(request("tbspot", side=Side.SELL, quantity=D("0.1"), price=D("0.01"), reduce_only=True))
    assert "reduceOnly" not in stub.posts("tbspot")[0].parameters


@pytest.mark.parametrize(
    ("symbol", "spot_id", "future_id"),
    [
        ("BTCUSDT", "BTCUSDT", "BTCUSDT"),
        ("btcusdt", "BTCUSDT", "BTCUSDT"),
        ("BINANCE:ETHUSDT", "ETHUSDT", "ETHUSDT"),
        ("BTC/USDT", "BTCUSDT", "BTCUSDT"),
        ("BTCUSDT.P", None, "BTCUSDT"),
        ("BINANCE:BTCUSDT.P", None, "BTCUSDT"),
        ("BTC-USDT", "BTCUSDT", "BTCUSDT"),
        ("binance:btc_usdt", "BTCUSDT", "BTCUSDT"),
        ("BYBIT:BTCUSDT", None, None),
        ("BTC/USDT:USDT", None, "BTCUSDT"),
        ("BTC/USDT:BTC", None, None),
        ("BTC/USDT:USDT-270326", None, "BTCUSDT_270326"),
        ("BTCUSDT270326", None, "BTCUSDT_270326"),
        ("BTCUSDT_270326", None, "BTCUSDT_270326"),
        ("BTCUSDT_270326.P", None, None),
        ("ETH/BTC", "ETHBTC", None),
        ("BINANCE:", None, None),
        ("", None, None),
    ],
)
async def test_symbols_are_understood_as_tradingview_and_ccxt_write_them(
    stub: StubExchange,
    exchange: CcxtExchange,
    market: Market,
    symbol: str,
    spot_id: str | None,
    future_id: str | None,
) -> None:
    wanted = spot_id if market == Market.SPOT else future_id
    if wanted is None:
        with pytest.raises(RejectedError):
            await exchange.place(request(symbol=symbol, price=None))
        assert await exchange.price(symbol) is None
        return
    stub.account.balances["BTC"] = D(100)
    await exchange.place(request(symbol=symbol, price=None))
    assert stub.posts()[0].parameters["symbol"] == wanted
    assert await exchange.price(symbol) == stub.book.prices[wanted]


async def test_a_new_market_is_seen_without_a_restart(
    stub: StubExchange, spot: CcxtExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = stub.book.symbols.pop(0)
    assert await spot.price("BTCUSDT") is None
    stub.book.symbols.append(hidden)
    assert await spot.price("BTCUSDT") is None, "asked again too soon"
    monkeypatch.setattr("tradingbot.exchanges.ccxt_exchange._MARKETS_AGE_UNKNOWN", 0.0)
    assert await spot.price("BTCUSDT") == 50000


async def test_fills_in_parts_are_reported_as_they_come(stub: StubExchange, exchange: CcxtExchange) -> None:
    stub.book.filling = Filling("manual", parts=3, price_step=D(10))
    placed = await exchange.place(request(quantity=D("0.3")))
    assert (placed.state, placed.trades) == (OrderState.SUBMITTED, ())
    assert placed.exchange_order_id == str(stub.account.order("tbone").id)
    stub.fill("tbone")
    found = await exchange.find("tbone", "BTCUSDT")
    assert found is not None
    assert found.state == OrderState.PARTIALLY_FILLED
    assert [trade.quantity for trade in found.trades] == [D("0.1")]
    stub.fill("tbone", parts=2)
    filled = await exchange.find("tbone", "BTCUSDT")
    assert filled is not None
    assert filled.state == OrderState.FILLED
    assert filled.trades[:1] == found.trades
    assert [trade.price for trade in filled.trades] == [50000, 50010, 50020]
    assert len({trade.trade_id for trade in filled.trades}) == 3


async def test_what_is_left_of_an_order_is_cancelled(stub: StubExchange, exchange: CcxtExchange) -> None:
    stub.book.filling = Filling("manual", parts=2)
    await exchange.place(request(quantity=D("0.2")))
    stub.fill("tbone")
    report = await exchange.cancel("tbone", "BTCUSDT")
    assert report is not None
    assert report.state == OrderState.CANCELLED
    assert [trade.quantity for trade in report.trades] == [D("0.1")]
    assert await exchange.cancel("tbone", "BTCUSDT") == report


async def test_an_order_that_the_exchange_lets_expire_is_cancelled(
    stub: StubExchange, exchange: CcxtExchange
) -> None:
    stub.book.filling = Filling("manual", parts=2)
    await exchange.place(request(quantity=D("0.2")))
    stub.account.order("tbone").status = "EXPIRED"
    report = await exchange.find("tbone", "BTCUSDT")
    assert report is not None
    assert (report.state, report.reason) == (OrderState.CANCELLED, "the exchange let the rest expire")


async def test_an_order_is_over_only_with_all_of_its_trades(
    stub: StubExchange, exchange: CcxtExchange
) -> None:
    stub.book.filling = Filling("manual", parts=2)
    await exchange.place(request(quantity=D("0.2")))
    stub.fill("tbone", parts=2)
    order = stub.account.order("tbone")
    stub.hidden_trades.add(order.executions[1].id)
    report = await exchange.find("tbone", "BTCUSDT")
    assert report is not None
    assert (report.state, len(report.trades)) == (OrderState.PARTIALLY_FILLED, 1)
    stub.hidden_trades.add(order.executions[0].id)
    report = await exchange.find("tbone", "BTCUSDT")
    assert report is not None
    assert (report.state, report.trades) == (OrderState.SUBMITTED, ())
    stub.hidden_trades.clear()
    report = await exchange.find("tbone", "BTCUSDT")
    assert report is not None
    assert (report.state, len(report.trades)) == (OrderState.FILLED, 2)


async def test_more_trades_than_one_page_are_all_found(stub: StubExchange, future: CcxtExchange) -> None:
    stub.book.filling = Filling("at_once", parts=1001)
    report = await future.place(request(quantity=D("5.005")))
    assert report.state == OrderState.FILLED
    assert len({trade.trade_id for trade in report.trades}) == 1001
    assert sum(trade.quantity for trade in report.trades) == D("5.005")


async def test_a_fee_taken_from_what_was_bought_is_no_longer_held(
    stub: StubExchange, spot: CcxtExchange
) -> None:
    stub.book.fee_asset = "base"
    (bought,) = (await spot.place(request("tbbuy", quantity=D("0.5")))).trades
    assert (bought.quantity, bought.fee, bought.fee_asset) == (D("0.4995"), D(25), "BTC")
    assert await spot.holding("BTCUSDT") == D(10) + bought.quantity
    (sold,) = (await spot.place(request("tbsell", side=Side.SELL, quantity=D("0.4995")))).trades
    assert (sold.quantity, sold.fee, sold.fee_asset) == (D("0.4995"), D("24.975"), "USDT")
    assert await spot.holding("BTCUSDT") == 10


async def test_a_fee_in_another_asset_is_told_in_the_quote_asset(
    stub: StubExchange, spot: CcxtExchange
) -> None:
    stub.book.fee_asset = "BNB"
    (trade,) = (await spot.place(request())).trades
    # 25 USDT at 600 are 0.04166667 BNB, in the eight digits of the exchange.
    assert (trade.fee, trade.fee_asset, trade.unvalued_fee) == (D("25.000002"), "BNB", D(0))
    assert trade.quantity == D("0.5")
    stub.book.fee_asset = "XYZ"
    (unknown,) = (await spot.place(request("tbtwo"))).trades
    # Its price is 1 at the stub, and nobody asks for it: there is no such market.
    assert (unknown.fee, unknown.fee_asset, unknown.unvalued_fee) == (D(0), "XYZ", D(25))


async def test_holding_and_equity(stub: StubExchange, spot: CcxtExchange, future: CcxtExchange) -> None:
    stub.account.balances = {"USDT": D(1000), "BTC": D("0.5"), "XYZ": D(7), "ETH": D(0)}
    assert await spot.holding("BINANCE:BTCUSDT") == D("0.5")
    assert await spot.holding("SHIBUSDT") == 0
    # Coins that no strategy has bought are its owner's.
    assert await spot.equity("BTCUSDT") == D(1000)
    assert await future.holding("BTCUSDT.P") == 0
    stub.book.fee_rate = D(0)
    await future.place(request(side=Side.SELL, quantity=D("0.2")))
    stub.book.prices["BTCUSDT"] = D(49000)
    assert await future.holding("BTCUSDT.P") == D("-0.2")
    assert await future.equity("BTCUSDT") == D(1_000_200)
    # USDT divided by a price in BTC are no quantity.
    assert await spot.equity("ETHBTC") is None
    assert await spot.equity("NOPEUSDT") is None


async def test_the_equity_of_a_spot_account_has_what_its_strategies_hold(stub: StubExchange) -> None:
    held = [("BINANCE:BTCUSDT", D("0.2")), ("BTC/USDT", D("0.1")), ("ETHUSDT", D(2)), ("BNBUSDT", D(-1))]

    async def holdings() -> list[tuple[str, Decimal]]:
        return [*held, ("NOPEUSDT", D(5)), ("SHIBUSDT", D(0))]

    stub.account.balances = {"USDT": D(1000), "BTC": D("0.5"), "ETH": D("1.5"), "BNB": D(9)}
    spot = connect(stub, Market.SPOT, holdings=holdings)
    # 1000 + 0.3 * 50000, and of ETH there is less by now: 1.5 * 2500.
    assert await spot.equity("BTCUSDT") == D(19750)
    await spot.close()


async def test_a_key_that_may_withdraw_is_refused(stub: StubExchange, exchange: CcxtExchange) -> None:
    await exchange.check_credentials()
    stub.account.may_withdraw = True
    with pytest.raises(CredentialsError, match="may withdraw"):
        await exchange.check_credentials()
    stub.account.may_withdraw = False
    stub.account.may_trade = False
    with pytest.raises(CredentialsError, match="may not trade"):
        await exchange.check_credentials()


@pytest.mark.parametrize("mode", [Mode.TESTNET, Mode.DEMO])
async def test_a_key_for_play_money_has_nothing_to_withdraw(stub: StubExchange, mode: Mode) -> None:
    stub.account.may_withdraw = True
    opened = connect(stub, Market.SPOT, mode)
    await opened.check_credentials()
    await opened.close()
    assert not [request for request in stub.received if request.path.startswith("/sapi")]


async def test_wrong_credentials_are_named(stub: StubExchange, market: Market) -> None:
    for credentials in (Credentials("wrong", DEFAULT_SECRET), Credentials(DEFAULT_KEY, "wrong")):
        opened = connect(stub, market, credentials=credentials)
        calls: list[Callable[[], Any]] = [
            opened.check_credentials,
            lambda opened=opened: opened.place(request()),  # type: ignore[misc]  # mypy infers no lambda
            lambda opened=opened: opened.find("tbone", "BTCUSDT"),  # type: ignore[misc]  # the same
        ]
        for call in calls:
            with pytest.raises(CredentialsError, match=r"-2015|-1022") as caught:
                await call()
            assert DEFAULT_SECRET not in str(caught.value)
        await opened.close()


async def test_a_key_that_is_revoked_later_is_named_too(stub: StubExchange, spot: CcxtExchange) -> None:
    await spot.place(request())
    stub.accounts.clear()
    with pytest.raises(CredentialsError, match="-2015"):
        await spot.place(request("tbtwo"))


async def test_clocks_that_differ_are_adjusted_to(stub: StubExchange, exchange: CcxtExchange) -> None:
    stub.book.clock_offset = -3600
    assert (await exchange.place(request())).state == OrderState.FILLED
    stub.book.clock_offset = 3600
    with pytest.raises(NotSentError, match="-1021"):
        await exchange.place(request("tbtwo"))
    assert (await exchange.place(request("tbtwo"))).state == OrderState.FILLED
    assert stub.account.counts() == {"tbone": 1, "tbtwo": 1}


async def test_an_order_carries_the_time_of_its_decision(stub: StubExchange, exchange: CcxtExchange) -> None:
    await exchange.price("BTCUSDT")
    decided = datetime.now(UTC) - timedelta(seconds=3)
    await exchange.place(request(issued_at=decided))
    (post,) = stub.posts()
    assert abs(int(post.parameters["timestamp"]) - decided.timestamp() * 1000) < 1000
    assert post.parameters["recvWindow"] == "5000"
    with pytest.raises(NotSentError, match="held up"):
        await exchange.place(request("tblate", issued_at=decided - timedelta(seconds=3)))
    assert stub.sent("tblate") == 0
    assert exchange.settle_time >= 5


async def test_an_order_that_is_held_up_until_the_last_moment_is_not_taken(
    stub: StubExchange, exchange: CcxtExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a pause of the process where nothing of ours looks at the clock any more."""
    await exchange.price("BTCUSDT")
    pause, now = exchange.settle_time, exchange._client.milliseconds
    monkeypatch.setattr(exchange._client, "milliseconds", lambda: now() + int(pause * 1000))
    stub.book.clock_offset = pause
    with pytest.raises(NotSentError, match="-1021"):
        await exchange.place(request())
    assert stub.sent("tbone") == 1
    assert stub.account.booked("tbone") == 0
