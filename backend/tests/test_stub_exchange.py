"""The stub exchange itself: signatures, times, duplicates, faults, and its commands from another process."""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.stub_exchange import DEFAULT_KEY, DEFAULT_SECRET, Fault, Filling, StubExchange, stub_process

SPOT, FUTURE = "/api/v3", "/fapi/v1"


class Signed:
    """Asks as a customer of Binance does."""

    def __init__(self, url: str, secret: str = DEFAULT_SECRET, key: str = DEFAULT_KEY) -> None:
        self._secret = secret
        self.http = httpx.AsyncClient(base_url=url, headers={"X-MBX-APIKEY": key}, trust_env=False)

    async def __call__(self, method: str, path: str, **parameters: Any) -> httpx.Response:
        parameters.setdefault("timestamp", int(time.time() * 1000))
        query = urlencode(parameters)
        signature = hmac.new(self._secret.encode(), query.encode(), hashlib.sha256).hexdigest()
        return await self.http.request(method, f"{path}?{query}&signature={signature}")


def market_order(client_order_id: str = "tb1", **changes: Any) -> dict[str, Any]:
    order = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    return order | {"newClientOrderId": client_order_id} | changes


@pytest.fixture
async def stub() -> AsyncIterator[StubExchange]:
    async with StubExchange() as exchange:
        yield exchange


@pytest.fixture
async def ask(stub: StubExchange) -> AsyncIterator[Signed]:
    client = Signed(stub.url)
    yield client
    await client.http.aclose()


@pytest.mark.parametrize("base", [SPOT, FUTURE])
async def test_takes_a_signed_order(stub: StubExchange, ask: Signed, base: str) -> None:
    answer = await ask("POST", f"{base}/order", **market_order())
    assert answer.status_code == 200
    assert answer.json()["status"] == "FILLED"
    assert stub.account.booked("tb1") == stub.sent("tb1") == 1


async def test_refuses_wrong_signatures_keys_and_times(stub: StubExchange, ask: Signed) -> None:
    wrong_secret, wrong_key = Signed(stub.url, secret="wrong"), Signed(stub.url, key="wrong")
    now = int(time.time() * 1000)
    answers = [
        await wrong_secret("GET", f"{SPOT}/account"),
        await wrong_key("GET", f"{SPOT}/account"),
        await ask("GET", f"{SPOT}/account", timestamp=now - 6000),
        await ask("GET", f"{SPOT}/account", timestamp=now + 3000),
        await ask("GET", f"{SPOT}/account", recvWindow=60001),
        await ask.http.get(f"{SPOT}/account", params={"timestamp": now}),
    ]
    assert [answer.json()["code"] for answer in answers] == [-1022, -2015, -1021, -1021, -1131, -1102]
    assert (await ask("GET", f"{SPOT}/account", timestamp=now - 6000, recvWindow=10000)).status_code == 200
    await wrong_secret.http.aclose()
    await wrong_key.http.aclose()


@pytest.mark.parametrize(("base", "code"), [(SPOT, -2010), (FUTURE, -4116)])
async def test_client_order_ids_are_unique_among_open_orders_only(
    stub: StubExchange, ask: Signed, base: str, code: int
) -> None:
    stub.book.filling = Filling("manual")
    assert (await ask("POST", f"{base}/order", **market_order())).json()["status"] == "NEW"
    assert (await ask("POST", f"{base}/order", **market_order())).json()["code"] == code
    stub.fill("tb1")
    assert (await ask("POST", f"{base}/order", **market_order())).status_code == 200
    assert stub.account.counts() == {"tb1": 2}
    assert stub.sent("tb1") == 3


@pytest.mark.parametrize(
    ("base", "changes", "code"),
    [
        (SPOT, {"symbol": "NOPE"}, -1121),
        (SPOT, {"symbol": "LUNAUSDT"}, -1013),
        (SPOT, {"quantity": "0.000001"}, -1013),
        (SPOT, {"quantity": "0.00001"}, -1013),
        (SPOT, {"quantity": "1e-2"}, -1100),
        (SPOT, {"quantity": "1000"}, -2010),
        (SPOT, {"newClientOrderId": "x" * 37}, -1100),
        (SPOT, {"reduceOnly": "true"}, -1104),
        (SPOT, {"side": "HOLD"}, -1117),
        (SPOT, {"type": "STOP"}, -1116),
        (FUTURE, {"quantity": "0.0001"}, -1111),
        (FUTURE, {"quantity": "0"}, -4003),
        (FUTURE, {"quantity": "0.001"}, -4164),
        (FUTURE, {"quantity": "9999"}, -4005),
        (FUTURE, {"quantity": "8000"}, -2019),
        (FUTURE, {"reduceOnly": "true"}, -2022),
    ],
)
async def test_refuses_orders_as_binance_does(
    stub: StubExchange, ask: Signed, base: str, changes: dict[str, Any], code: int
) -> None:
    answer = await ask("POST", f"{base}/order", **market_order() | changes)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert not stub.account.orders


@pytest.mark.parametrize(("base", "market", "code"), [(SPOT, "spot", -1013), (FUTURE, "future", -4005)])
async def test_a_market_order_has_a_limit_of_its_own_and_a_market_may_close(
    stub: StubExchange, ask: Signed, base: str, market: str, code: int
) -> None:
    stub.book.change(market, "BTCUSDT", market_maximum=Decimal("0.01"))
    assert (await ask("POST", f"{base}/order", **market_order("tb1"))).status_code == 200
    refused = await ask("POST", f"{base}/order", **market_order("tb2", quantity="0.02"))
    assert (refused.status_code, refused.json()["code"]) == (400, code)
    filters = (await ask.http.get(f"{base}/exchangeInfo")).json()["symbols"][0]["filters"]
    most = {entry["filterType"]: entry["maxQty"] for entry in filters if "maxQty" in entry}
    assert most == {"LOT_SIZE": "9000.00000000", "MARKET_LOT_SIZE": "0.01000000"}
    stub.book.change(market, "BTCUSDT", status="BREAK")
    closed = await ask("POST", f"{base}/order", **market_order("tb3"))
    assert closed.json() == {"code": -1013, "msg": "Market is closed."}
    assert (await ask("GET", f"{base}/order", symbol="BTCUSDT", origClientOrderId="tb1")).status_code == 200


async def test_the_rest_of_a_market_order_expires_when_the_book_is_empty(
    stub: StubExchange, ask: Signed
) -> None:
    stub.book.filling = Filling(parts=4, expires_after=1)
    answer = (await ask("POST", f"{SPOT}/order", **market_order(quantity="0.04"))).json()
    assert (answer["status"], Decimal(answer["executedQty"])) == ("EXPIRED", Decimal("0.01"))


@pytest.mark.parametrize("base", [SPOT, FUTURE])
async def test_fills_in_parts_on_command_and_cancels_the_rest(
    stub: StubExchange, ask: Signed, base: str
) -> None:
    stub.book.filling = Filling("manual", parts=4, price_step=Decimal(10))
    await ask("POST", f"{base}/order", **market_order(quantity="0.04"))
    stub.fill("tb1", parts=2)
    found = await ask("GET", f"{base}/order", symbol="BTCUSDT", origClientOrderId="tb1")
    assert found.json()["status"] == "PARTIALLY_FILLED"
    assert Decimal(found.json()["executedQty"]) == Decimal("0.02")
    trades = await ask("GET", f"{base}/{'myTrades' if base == SPOT else 'userTrades'}", symbol="BTCUSDT")
    assert [Decimal(trade["price"]) for trade in trades.json()] == [50000, 50010]
    cancelled = await ask("DELETE", f"{base}/order", symbol="BTCUSDT", origClientOrderId="tb1")
    assert cancelled.json()["status"] == "CANCELED"
    again = await ask("DELETE", f"{base}/order", symbol="BTCUSDT", origClientOrderId="tb1")
    assert again.json()["code"] == -2011
    unknown = await ask("GET", f"{base}/order", symbol="BTCUSDT", origClientOrderId="tb2")
    assert unknown.json()["code"] == -2013


async def test_fills_in_time(stub: StubExchange, ask: Signed) -> None:
    stub.book.filling = Filling("timed", parts=3, interval=0.01)
    answer = await ask("POST", f"{SPOT}/order", **market_order())
    assert answer.json()["status"] == "NEW"
    deadline = time.monotonic() + 60
    while stub.account.order("tb1").status != "FILLED":
        assert time.monotonic() < deadline
        await ask("GET", f"{SPOT}/order", symbol="BTCUSDT", origClientOrderId="tb1")
    assert len(stub.account.order("tb1").executions) == 3


@pytest.mark.parametrize(("when", "booked"), [("before", 0), ("after", 1)])
async def test_loses_the_answer_before_or_after_booking(
    stub: StubExchange, ask: Signed, when: Any, booked: int
) -> None:
    stub.faults.add(Fault("drop", when))
    with pytest.raises(httpx.RemoteProtocolError):
        await ask("POST", f"{SPOT}/order", **market_order())
    assert stub.account.booked("tb1") == booked
    stub.faults.add(Fault("answer", when, status=502, code=None))
    answer = await ask("POST", f"{SPOT}/order", **market_order("tb2"))
    assert answer.status_code == 502
    assert stub.account.booked("tb2") == booked


async def test_limits_the_rate_for_as_long_as_told(stub: StubExchange, ask: Signed) -> None:
    stub.faults.add(
        Fault("answer", status=429, code=-1003, message="Too many requests.", retry_after=7, times=2)
    )
    for _ in range(2):
        answer = await ask("POST", f"{SPOT}/order", **market_order())
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert (await ask("POST", f"{SPOT}/order", **market_order())).status_code == 200


async def test_a_future_position_follows_its_orders(stub: StubExchange, ask: Signed) -> None:
    stub.book.fee_rate = Decimal(0)
    await ask("POST", f"{FUTURE}/order", **market_order(quantity="0.02"))
    stub.book.prices["BTCUSDT"] = Decimal(51000)
    await ask("POST", f"{FUTURE}/order", **market_order("tb2", side="SELL", quantity="0.05"))
    (position,) = (await ask("GET", "/fapi/v3/positionRisk", symbol="BTCUSDT")).json()
    assert Decimal(position["positionAmt"]) == Decimal("-0.03")
    assert Decimal(position["entryPrice"]) == 51000
    assert stub.account.wallet == 1_000_020


def test_is_commanded_from_another_process() -> None:
    with stub_process() as control:
        control.add_account("k" * 64, "s" * 64)
        control.configure(prices={"BTCUSDT": "40000"}, filling={"how": "manual", "parts": 2}, fee_rate="0")
        control.add_fault(Fault("answer", "after", status=503))
        control.clear_faults()
        with httpx.Client(base_url=control.url, headers={"X-MBX-APIKEY": "k" * 64}, trust_env=False) as http:
            query = urlencode(market_order() | {"timestamp": int(time.time() * 1000)})
            signature = hmac.new(b"s" * 64, query.encode(), hashlib.sha256).hexdigest()
            assert http.post(f"{SPOT}/order?{query}&signature={signature}").status_code == 200
        assert [order["status"] for order in control.orders()] == ["NEW"]
        control.fill("tb1", parts=2)
        assert [order["status"] for order in control.orders()] == ["FILLED"]
        assert control.counts() == {"tb1": 1}
        assert control.sent("tb1") == 1
        control.reset()
        assert control.orders() == control.received() == []
