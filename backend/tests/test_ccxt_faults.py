"""What goes wrong between us and an exchange, and that we neither lose nor double an order over it."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from ccxt.base import errors

from tests.stub_exchange import DEFAULT_KEY, DEFAULT_SECRET, Fault, Filling, StubExchange
from tests.stub_exchange.faults import FOREVER
from tests.test_ccxt_orders import CREDENTIALS, connect, request
from tradingbot.exchanges.base import (
    CredentialsError,
    ExchangeError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
)
from tradingbot.exchanges.ccxt_client import Answer, make_client
from tradingbot.exchanges.ccxt_errors import Meaning, understand
from tradingbot.exchanges.ccxt_exchange import CcxtExchange
from tradingbot.exchanges.models import Market, Mode
from tradingbot.orders.models import OrderState

SHORT = 1.0
_KEY = ConnectionKey("127.0.0.1", 9, False, True, None, None, None)


@pytest.fixture
async def stub() -> AsyncIterator[StubExchange]:
    async with StubExchange() as exchange:
        yield exchange


@pytest.fixture(params=list(Market))
async def exchange(stub: StubExchange, request: pytest.FixtureRequest) -> AsyncIterator[CcxtExchange]:
    """Has loaded its markets: what fails after that is the order."""
    opened = connect(stub, Market(request.param))
    await opened.price("BTCUSDT")
    yield opened
    await opened.close()


@pytest.fixture(params=list(Market))
async def hasty(stub: StubExchange, request: pytest.FixtureRequest) -> AsyncIterator[CcxtExchange]:
    """Does not wait for long."""
    opened = connect(stub, Market(request.param), timeout=SHORT)
    while await price_or_none(opened) is None:
        continue
    yield opened
    await opened.close()


async def price_or_none(exchange: CcxtExchange) -> Any:
    try:
        return await exchange.price("BTCUSDT")
    except NotSentError:
        return None


async def until_idle(stub: StubExchange) -> None:
    async with asyncio.timeout(30):
        await stub.idle.wait()


def answers(status: int, code: int | None = None, when: Any = "before", **more: Any) -> Fault:
    return Fault("answer", when, status=status, code=code, message=more.pop("message", "no"), **more)


REFUSALS_AND_DOUBTS = [
    pytest.param(Fault("drop"), OutcomeUnknownError, 0, id="lost before it was taken"),
    pytest.param(Fault("drop", "after"), OutcomeUnknownError, 1, id="answer lost"),
    pytest.param(answers(500), OutcomeUnknownError, 0, id="500 before"),
    pytest.param(answers(500, -1000, "after"), OutcomeUnknownError, 1, id="500 after"),
    pytest.param(answers(502, None, "after"), OutcomeUnknownError, 1, id="502 in HTML after"),
    pytest.param(answers(503, -1008), OutcomeUnknownError, 0, id="503 before"),
    pytest.param(answers(503, -1000, "after"), OutcomeUnknownError, 1, id="503 after"),
    pytest.param(answers(504, None, "after"), OutcomeUnknownError, 1, id="504 after"),
    pytest.param(
        answers(408, -1007, "after"), OutcomeUnknownError, 1, id="time-out behind the exchange's door"
    ),
    pytest.param(answers(400, -1006, "after"), OutcomeUnknownError, 1, id="unexpected response"),
    pytest.param(answers(400, -1001, "after"), OutcomeUnknownError, 1, id="disconnected"),
    pytest.param(answers(404, None), OutcomeUnknownError, 0, id="404 of something in between"),
    pytest.param(answers(200, None, "after"), OutcomeUnknownError, 1, id="200 that is no JSON"),
    pytest.param(answers(200, -1, "after"), OutcomeUnknownError, 1, id="200 that is no order"),
    pytest.param(answers(429, -1003, retry_after=7), NotSentError, 0, id="429"),
    pytest.param(answers(418, -1003, retry_after=7), NotSentError, 0, id="418"),
    pytest.param(answers(400, -1015), NotSentError, 0, id="too many orders"),
    pytest.param(answers(403, None), NotSentError, 0, id="403 of the firewall"),
    pytest.param(answers(400, -1021), NotSentError, 0, id="clock"),
    pytest.param(answers(400, -5028), NotSentError, 0, id="clock of the matching engine"),
    pytest.param(answers(400, -2010), RejectedError, 0, id="order refused"),
    pytest.param(answers(400, -1013), RejectedError, 0, id="filter"),
    pytest.param(answers(400, -1121), RejectedError, 0, id="symbol"),
    pytest.param(answers(400, -4061), RejectedError, 0, id="position side"),
    pytest.param(answers(451), RejectedError, 0, id="not from here"),
    pytest.param(answers(401, -2015), CredentialsError, 0, id="key"),
    pytest.param(answers(401), CredentialsError, 0, id="401 without a code"),
]


@pytest.mark.parametrize(("fault", "error", "booked"), REFUSALS_AND_DOUBTS)
async def test_a_fault_is_told_for_what_it_is_and_the_order_is_sent_once(
    stub: StubExchange,
    exchange: CcxtExchange,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    error: type[ExchangeError],
    booked: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    # The list is shared by the tests of both markets.
    stub.faults.add(Fault(**vars(fault)))
    with pytest.raises(error) as caught:
        await exchange.place(request())
    assert type(caught.value) is error
    assert stub.sent("tbone") == 1
    assert stub.account.booked("tbone") == booked
    for text in (str(caught.value), caplog.text):
        assert not [leak for leak in (DEFAULT_KEY, DEFAULT_SECRET, "signature=") if leak in text]
    assert "http://" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_nothing_follows_a_redirect(stub: StubExchange, exchange: CcxtExchange, status: int) -> None:
    """Followed, an order would be sent again, or its key and signature to somebody else."""
    path = "/api/v3/order" if exchange._kind == Market.SPOT else "/fapi/v1/order"
    stub.faults.add(answers(status, -1, "after", location=path))
    with pytest.raises(OutcomeUnknownError, match="Redirect"):
        await exchange.place(request())
    assert stub.account.counts() == {"tbone": 1}
    assert stub.sent("tbone") == 1
    stub.faults.add(answers(status, -1, method="GET", location="https://somewhere.test/"))
    with pytest.raises(NotSentError):
        await exchange.find("tbone", "BTCUSDT")
    assert await exchange.find("tbone", "BTCUSDT") is not None


async def test_after_a_lost_answer_the_order_is_found(stub: StubExchange, exchange: CcxtExchange) -> None:
    stub.faults.add(Fault("drop", "after"))
    with pytest.raises(OutcomeUnknownError):
        await exchange.place(request())
    report = await exchange.find("tbone", "BTCUSDT")
    assert report is not None
    assert (report.state, len(report.trades)) == (OrderState.FILLED, 1)


async def test_an_answer_that_takes_too_long_is_unknown(stub: StubExchange, hasty: CcxtExchange) -> None:
    stub.faults.add(Fault("delay", seconds=SHORT * 2))
    with pytest.raises(OutcomeUnknownError, match="no answer in time"):
        await hasty.place(request())
    assert await hasty.find("tbone", "BTCUSDT") is None
    await until_idle(stub)
    assert stub.account.booked("tbone") == 1, "it arrived after all"
    found = None
    while found is None:
        found = await hasty.find("tbone", "BTCUSDT")
    assert found.state in (OrderState.FILLED, OrderState.SUBMITTED)


async def test_a_request_that_arrives_after_its_window_is_not_taken(
    stub: StubExchange, hasty: CcxtExchange
) -> None:
    stub.faults.add(Fault("delay", seconds=SHORT * 2))
    with pytest.raises(OutcomeUnknownError):
        await hasty.place(request())
    stub.book.clock_offset = hasty.settle_time
    await until_idle(stub)
    assert stub.sent("tbone") == 1
    assert stub.account.booked("tbone") == 0


async def test_an_id_that_is_in_use_means_look_it_up(stub: StubExchange, exchange: CcxtExchange) -> None:
    stub.book.filling = Filling("manual")
    await exchange.place(request())
    with pytest.raises(OutcomeUnknownError, match=r"[Dd]uplicate"):
        await exchange.place(request())
    report = await exchange.find("tbone", "BTCUSDT")
    assert report is not None
    assert report.state == OrderState.SUBMITTED
    assert stub.account.booked("tbone") == 1


async def test_a_refused_connection_is_not_sent(stub: StubExchange, exchange: CcxtExchange) -> None:
    await stub.stop()
    with pytest.raises(NotSentError, match="no connection"):
        await exchange.place(request())
    assert stub.posts() == []


async def test_an_exchange_that_is_away_from_the_start_is_not_sent_to() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        client = make_client("binance", Market.SPOT, Mode.LIVE, CREDENTIALS, 5, url)
        exchange = CcxtExchange(client, "binance", Market.SPOT, Mode.LIVE, 5)
        for call in (
            exchange.place(request()),
            exchange.find("tbone", "BTCUSDT"),
            exchange.equity("BTCUSDT"),
        ):
            with pytest.raises(NotSentError, match="no connection"):
                await call
        await exchange.close()


@pytest.mark.parametrize("path", ["exchangeInfo", "time"])
async def test_before_the_markets_are_known_nothing_is_sent(stub: StubExchange, path: str) -> None:
    exchange = connect(stub, Market.SPOT)
    stub.faults.add(Fault("answer", method="GET", path=path, status=503, code=None))
    with pytest.raises(NotSentError):
        await exchange.place(request())
    assert stub.posts() == []
    assert (await exchange.place(request())).state == OrderState.FILLED
    await exchange.close()


async def test_a_rate_limit_is_kept_for_as_long_as_told(stub: StubExchange, exchange: CcxtExchange) -> None:
    stub.faults.add(answers(429, -1003, retry_after=7))
    with pytest.raises(NotSentError) as first:
        await exchange.place(request())
    assert first.value.retry_after == 7
    received = len(stub.received)
    for call in (exchange.place(request()), exchange.find("tbone", "BTCUSDT"), exchange.price("BTCUSDT")):
        with pytest.raises(NotSentError, match="left alone") as again:
            await call
        assert 0 < again.value.retry_after <= 7
    assert len(stub.received) == received


async def test_a_rate_limit_ends(stub: StubExchange, exchange: CcxtExchange) -> None:
    stub.faults.add(answers(429, -1003, retry_after=0))
    with pytest.raises(NotSentError):
        await exchange.place(request())
    assert (await exchange.place(request())).state == OrderState.FILLED


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", method="GET", times=FOREVER),
        Fault("answer", method="GET", status=500, times=FOREVER),
        Fault("answer", method="GET", status=400, code=-1000, times=FOREVER),
        Fault("answer", method="GET", status=200, code=None, times=FOREVER),
    ],
)
async def test_a_question_that_fails_may_be_asked_again(
    stub: StubExchange, exchange: CcxtExchange, fault: Fault
) -> None:
    await exchange.place(request())
    stub.faults.add(fault)
    with pytest.raises(NotSentError):
        await exchange.find("tbone", "BTCUSDT")
    stub.faults.clear()
    assert await exchange.find("tbone", "BTCUSDT") is not None


async def test_a_question_that_takes_too_long_may_be_asked_again(
    stub: StubExchange, hasty: CcxtExchange
) -> None:
    stub.faults.add(Fault("delay", method="GET", seconds=SHORT * 3))
    with pytest.raises(NotSentError, match="in time"):
        await hasty.find("tbone", "BTCUSDT")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_cancelling_again_does_no_harm(stub: StubExchange, exchange: CcxtExchange, when: Any) -> None:
    stub.book.filling = Filling("manual", parts=2)
    await exchange.place(request())
    stub.fill("tbone")
    stub.faults.add(Fault("answer", when, method="DELETE", status=503))
    with pytest.raises(NotSentError):
        await exchange.cancel("tbone", "BTCUSDT")
    report = await exchange.cancel("tbone", "BTCUSDT")
    assert report is not None
    assert (report.state, len(report.trades)) == (OrderState.CANCELLED, 1)


async def test_an_order_that_was_taken_stays_taken_when_its_trades_cannot_be_asked(
    stub: StubExchange,
) -> None:
    exchange = connect(stub, Market.FUTURE)
    stub.faults.add(Fault("answer", method="GET", path="userTrades", status=500))
    report = await exchange.place(request())
    assert (report.state, report.trades) == (OrderState.SUBMITTED, ())
    assert report.exchange_order_id == str(stub.account.order("tbone").id)
    found = await exchange.find("tbone", "BTCUSDT")
    assert found is not None
    assert (found.state, len(found.trades)) == (OrderState.FILLED, 1)
    await exchange.close()


async def test_who_gives_up_while_markets_load_does_not_disturb_others(stub: StubExchange) -> None:
    exchange = connect(stub, Market.SPOT)
    stub.faults.add(Fault("delay", method="GET", path="exchangeInfo", seconds=0.3))
    first = asyncio.create_task(exchange.place(request("tbfirst")))
    second = asyncio.create_task(exchange.place(request("tbsecond")))
    await stub.came("/exchangeInfo")
    first.cancel()
    assert (await second).state == OrderState.FILLED
    with pytest.raises(asyncio.CancelledError):
        await first
    assert stub.account.counts() == {"tbsecond": 1}
    await exchange.close()


async def test_the_decimals_of_others_are_left_alone(stub: StubExchange, exchange: CcxtExchange) -> None:
    from decimal import getcontext

    before = getcontext().copy()
    await exchange.place(request())
    assert repr(getcontext()) == repr(before)


@pytest.mark.parametrize(
    ("error", "cause", "meaning"),
    [
        (
            errors.ExchangeNotAvailable("x"),
            aiohttp.ClientConnectorDNSError(_KEY, OSError("x")),
            Meaning.NOT_SENT,
        ),
        (
            errors.ExchangeNotAvailable("x"),
            aiohttp.ClientConnectorError(_KEY, OSError("x")),
            Meaning.NOT_SENT,
        ),
        (errors.ExchangeNotAvailable("x"), socket.gaierror("x"), Meaning.NOT_SENT),
        (errors.ExchangeNotAvailable("x"), aiohttp.ClientOSError("reset"), Meaning.UNKNOWN),
        (errors.ExchangeNotAvailable("x"), aiohttp.ServerDisconnectedError(), Meaning.UNKNOWN),
        (errors.ExchangeError("x"), aiohttp.ClientPayloadError("cut off"), Meaning.UNKNOWN),
        (errors.RequestTimeout("x"), TimeoutError(), Meaning.UNKNOWN),
        (TimeoutError(), None, Meaning.UNKNOWN),
        (RuntimeError("closed"), None, Meaning.UNKNOWN),
        (errors.InvalidOrder("amount too small"), None, Meaning.REFUSED),
    ],
)
def test_without_an_answer_only_what_is_certain_counts_as_not_sent(
    error: Exception, cause: Exception | None, meaning: Meaning
) -> None:
    error.__cause__ = cause
    assert understand(error, Answer()).meaning == meaning
