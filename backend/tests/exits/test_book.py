"""The book follows the exchange: an owner who trades by hand, a liquidation, coins of the owner's own."""

import asyncio
import json
from decimal import Decimal
from functools import partial
from uuid import UUID, uuid4

import httpx
import pytest

from tests.conftest import Account, make_account
from tests.desk import SYMBOL, Desk, open_desk, until, working_here
from tests.exits.steps import Say, future, queue, spot
from tests.forked import run
from tests.stub_exchange import StubExchange
from tests.test_webhooks import assert_problem
from tradingbot.cli.positions import COLUMNS
from tradingbot.core.errors import ConflictError, UnprocessableError
from tradingbot.core.models import utc_now
from tradingbot.core.settings import Settings
from tradingbot.exchanges.ccxt_exchange import CcxtExchange
from tradingbot.exchanges.models import Market, Mode
from tradingbot.orders.models import Order, OrderState, Side
from tradingbot.positions import holdings
from tradingbot.positions.correcting import Correction, correct
from tradingbot.positions.models import AccountHolding, Position
from tradingbot.risk.models import Rule
from tradingbot.signals.models import SignalStatus

D = Decimal
URL = "/api/v1/positions"
EMPTY: dict[str, object] = {"items": [], "next_cursor": None}
TITLE = f"{SYMBOL}: position differs"
ADOPT = Correction(None, D(51000), "closed in its app", "somebody")


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch, stub: StubExchange) -> None:
    monkeypatch.setenv("RECONCILE_INTERVAL", "0.1")
    monkeypatch.setenv("RECONCILE_POSITIONS_INTERVAL", "0.1")


@pytest.fixture
def settings(looks_often: None) -> Settings:
    return Settings()


async def differs(desk: Desk) -> bool:
    rows = await rows_of(desk)
    return any(row.differs_since is not None for row in rows)


async def rows_of(desk: Desk) -> list[AccountHolding]:
    async with desk.database.transaction() as session:
        return list(await holdings.differing(session, desk.user_id, 10))


async def is_known(desk: Desk, quantity: Decimal) -> bool:
    """Return whether this is what the account was last seen to hold, and differs from nothing."""
    (position,) = await desk.all(Position)
    async with desk.database.transaction() as session:
        (account_id,) = {order.exchange_account_id for order in await desk.orders()}
        row = await holdings.find(session, account_id, position.symbol)
    return row is not None and row.differs_since is None and row.quantity == quantity


async def say_of(desk: Desk, said: Correction) -> Position:
    (position,) = await desk.all(Position)
    async with desk.database.transaction() as session:
        return await correct(session, desk.user_id, position.id, said)


async def test_an_owner_who_closes_by_hand_gets_no_second_position(
    desk: Desk, stub: StubExchange, say: Say, told: list[tuple[str, str]]
) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "2")
    stub.account.positions["BTCUSDT"] = D(0)
    # Asked before it goes through zero: this used to sell 4.
    signal = await say(strategy, "short", "2")
    assert (signal.status, (await desk.refusal(signal.id)).rule) == (SignalStatus.REFUSED, Rule.SYMBOL)
    assert "the account holds 0 BTCUSDT, and the book says 2" in (signal.status_reason or "")
    assert len(stub.posts()) == 1
    await until(lambda: differs(desk), 20)
    assert [title for title, _ in told].count(TITLE) == 1
    # The exchange is right: then trading goes on.
    position = await say_of(desk, ADOPT)
    assert (position.quantity, position.realised_pnl) == (D(0), D(2) * (D(51000) - D(50000)))
    signal = await say(strategy, "short", "2")
    assert signal.status == SignalStatus.ORDERED
    assert stub.account.positions["BTCUSDT"] == D(-2)
    correction = (await desk.orders())[1]
    assert (correction.state, correction.side, correction.attempts) == (OrderState.FILLED, Side.SELL, 0)
    assert correction.reason == "corrected by somebody: closed in its app"
    assert correction.settled_at is not None


async def test_of_what_was_closed_by_hand_in_part_the_rest_gets_out(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "2")
    stub.account.positions["BTCUSDT"] = D("0.5")
    signal = await say(strategy, "short", "2")
    assert signal.status == SignalStatus.ORDERED
    assert "the account holds 0.5 BTCUSDT, and the book says 2" in (signal.status_reason or "")
    assert stub.account.positions["BTCUSDT"] == 0


@pytest.mark.parametrize("words", ["flat", "close"])
async def test_an_exit_ends_where_nothing_is_left_of_it(
    desk: Desk, stub: StubExchange, say: Say, words: str
) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "2")
    stub.account.positions["BTCUSDT"] = D(0)
    await say(strategy, words)
    last = (await desk.orders())[-1]
    assert (last.state, last.attempts) == (OrderState.CANCELLED, 3)
    assert "the account does not hold it any more, it has 0 of 2" in (last.reason or "")
    assert await desk.held(strategy) == 2


async def test_entries_stop_while_the_book_differs_and_people_are_told_once(
    desk: Desk, stub: StubExchange, settings: Settings, told: list[tuple[str, str]]
) -> None:
    stub.account.balances["BTC"] = D(0)
    strategy = await spot(desk)
    async with working_here(settings):
        await queue(desk, strategy, "buy", "1")
        await desk.until_idle(20)
        await until(lambda: is_known(desk, D(1)), 20)
        stub.account.balances["BTC"] = D("0.4")
        await until(lambda: differs(desk), 20)
        refused = await queue(desk, strategy, "buy", "1")
        await desk.until_idle(20)
        assert (await desk.refusal(refused)).rule == Rule.SYMBOL
        # An exit takes what is there.
        await queue(desk, strategy, "sell", "0.1")
        await desk.until_idle(20)
        assert stub.account.balances["BTC"] == D("0.3")
        stub.account.balances["BTC"] = D("0.2")
        await until(lambda: holds(desk, D("0.2")), 20)
    # Nor does another process tell it again.
    stub.account.balances["BTC"] = D("0.1")
    async with working_here(settings):
        await until(lambda: holds(desk, D("0.1")), 20)
    assert [title for title, _ in told].count(TITLE) == 1
    position = await say_of(desk, Correction(D("0.1"), None, "sold in its app", "somebody"))
    assert position.quantity == D("0.1")
    async with working_here(settings):
        await queue(desk, strategy, "buy", "1")
        await desk.until_idle(20)
    assert stub.account.balances["BTC"] == D("1.1")


async def holds(desk: Desk, quantity: Decimal) -> bool:
    return [row.quantity for row in await rows_of(desk)] == [quantity]


async def test_an_owners_own_coins_are_no_alarm_and_may_come_and_go(
    desk: Desk, stub: StubExchange, settings: Settings, told: list[tuple[str, str]]
) -> None:
    stub.account.balances["BTC"] = D(5)
    strategy = await spot(desk)
    async with working_here(settings):
        await queue(desk, strategy, "buy", "1")
        await desk.until_idle(20)
        for balance in (D(6), D(8), D("1.5")):
            stub.account.balances["BTC"] = balance
            await until(partial(is_known, desk, balance), 20)
        assert TITLE not in [title for title, _ in told]
        # All of them, and half of the strategy's.
        stub.account.balances["BTC"] = D("0.5")
        await until(lambda: differs(desk), 20)
    (text,) = [text for title, text in told if title == TITLE]
    assert "the account holds 0.5 BTC, and the book says 1" in text
    # What is traded before anybody puts it right changes both.
    async with working_here(settings):
        await queue(desk, strategy, "sell", "0.2")
        await desk.until_idle(20)
    await say_of(desk, ADOPT)
    assert await desk.held(strategy) == stub.account.balances["BTC"] == D("0.3")
    assert not await differs(desk)


async def test_markets_of_one_base_asset_share_a_balance(
    desk: Desk, stub: StubExchange, settings: Settings, told: list[tuple[str, str]]
) -> None:
    stub.account.balances |= {"ETH": D(0), "BTC": D(10)}
    account = await desk.account()
    first, second = await desk.strategy(account), await desk.strategy(account)
    async with working_here(settings):
        await queue(desk, first, "buy", "1", symbol="ETHUSDT")
        await queue(desk, second, "buy", "2", symbol="ETHBTC")
        await desk.until_idle(20)
        await until(lambda: all_hold(desk, account, D(3)), 20)
        await queue(desk, second, "sell", "2", symbol="ETHBTC")
        await desk.until_idle(20)
        await until(lambda: all_hold(desk, account, D(1)), 20)
        assert told == [one for one in told if "differs" not in one[0]]
        stub.account.balances["ETH"] = D(0)
        await until(lambda: differs(desk), 20)
    assert [title for title, _ in told if "differs" in title] == ["ETHBTC, ETHUSDT: position differs"]
    # What one of them adopts no other one does again.
    async with desk.database.transaction() as session:
        (row,) = await desk.all(Position, Position.symbol == "ETHUSDT")
        await correct(session, desk.user_id, row.id, ADOPT)
    assert not await differs(desk)
    assert sum(position.quantity for position in await desk.all(Position)) == 0


async def test_of_two_who_adopt_the_same_difference_at_once_one_does(desk: Desk) -> None:
    account_id = await desk.account()
    common = {"user_id": desk.user_id, "quantity": D(1), "average_price": D(50), "last_price": D(50)}
    rows = [
        Position(id=uuid4(), strategy_id=await desk.strategy(account_id), symbol=symbol, **common)
        for symbol in ("ETHUSDT", "ETHBTC")
    ]
    seen = {"exchange_account_id": account_id, "asset": "ETH", "quantity": D("1.5"), "booked": D(2)}
    async with desk.database.transaction() as session:
        session.add_all(rows)
        session.add_all(AccountHolding(market=row.symbol, differs_since=utc_now(), **seen) for row in rows)

    async def adopt(position_id: UUID) -> Position:
        async with desk.database.transaction() as session:
            return await correct(session, desk.user_id, position_id, ADOPT)

    done = await asyncio.gather(*(adopt(row.id) for row in rows), return_exceptions=True)
    assert [type(one) for one in done].count(ConflictError) == 1
    assert sum(position.quantity for position in await desk.all(Position)) == D("1.5")


async def all_hold(desk: Desk, account_id: UUID, quantity: Decimal) -> bool:
    async with desk.database.transaction() as session:
        rows = await holdings.with_market(session, account_id, "ETHUSDT")
    return [row.quantity for row in rows if row.differs_since is None] == [quantity] * 2


async def test_where_no_strategy_is_any_more_nothing_stays_locked(
    desk: Desk, stub: StubExchange, settings: Settings
) -> None:
    account_id = await desk.account()
    holding = AccountHolding(
        exchange_account_id=account_id,
        market=SYMBOL,
        asset="BTC",
        quantity=D(0),
        booked=D(1),
        differs_since=utc_now(),
    )
    async with desk.database.transaction() as session:
        session.add(holding)
    async with working_here(settings):
        await until(lambda: agrees(desk), 20)


async def agrees(desk: Desk) -> bool:
    return not await differs(desk)


async def test_an_exchange_whose_answers_are_apart_for_a_moment_is_asked_again(
    desk: Desk, stub: StubExchange, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "2")
    holding, looks = CcxtExchange.holding, 0

    async def late(exchange: CcxtExchange, symbol: str) -> Decimal | None:
        nonlocal looks
        looks += 1
        return D(0) if looks == 1 else await holding(exchange, symbol)

    monkeypatch.setattr(CcxtExchange, "holding", late)
    signal = await say(strategy, "short", "2")
    assert signal.status == SignalStatus.ORDERED
    assert stub.account.positions["BTCUSDT"] == D(-2)


async def test_what_cannot_be_corrected(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await spot(desk)
    await say(strategy, "buy", "1")
    with pytest.raises(ConflictError, match="nothing to adopt"):
        await say_of(desk, ADOPT)
    with pytest.raises(ConflictError, match="The book says so already: 1 BTCUSDT"):
        await say_of(desk, Correction(D(1), None, "why", "somebody"))
    with pytest.raises(UnprocessableError, match="On spot a position is 0 or more"):
        await say_of(desk, Correction(D(-1), None, "why", "somebody"))
    with pytest.raises(UnprocessableError, match="at most"):
        await say_of(desk, Correction(D(10) ** 16, None, "why", "somebody"))
    assert await desk.held(strategy) == 1
    assert len(await desk.orders()) == 1


async def test_an_open_order_is_waited_for(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await spot(desk)
    await say(strategy, "buy", "1")
    async with desk.database.transaction() as session:
        (order,) = await desk.orders()
        copy = {column.key: getattr(order, column.key) for column in Order.__table__.columns}
        copy |= {"id": strategy, "client_order_id": "tbopen", "signal_id": None, "state": OrderState.UNKNOWN}
        session.add(Order(**copy))
    with pytest.raises(ConflictError, match="An order in this market is open"):
        await say_of(desk, Correction(D(2), None, "why", "somebody"))


async def differing(desk: Desk) -> tuple[UUID, UUID]:
    """Make a position of 2 of which the account holds 1.5; return its id and its account's."""
    account_id = await desk.account(market=Market.FUTURE, mode=Mode.DEMO)
    strategy_id = await desk.strategy(account_id)
    position = Position(
        id=uuid4(),
        user_id=desk.user_id,
        strategy_id=strategy_id,
        symbol="BTCUSDT.P",
        quantity=D(2),
        average_price=D(50000),
        last_price=D(51000),
    )
    holding = AccountHolding(
        exchange_account_id=account_id,
        market=SYMBOL,
        asset=SYMBOL,
        quantity=D("1.5"),
        booked=D(2),
        differs_since=utc_now(),
    )
    async with desk.database.transaction() as session:
        session.add_all([position, holding])
    return position.id, account_id


async def test_the_api(client: httpx.AsyncClient, account: Account, settings: Settings) -> None:
    async with open_desk(settings, account.email) as desk:
        position_id, account_id = await differing(desk)
        (shown,) = (await client.get(f"{URL}/differences", headers=account.headers)).json()["items"]
        assert (shown["exchange_account_id"], shown["market"]) == (str(account_id), SYMBOL)
        assert (shown["asset"], shown["quantity"], shown["booked"]) == (SYMBOL, "1.5", "2")
        address = f"{URL}/{position_id}"
        for action, body in (("adopt", {}), ("correct", {"reason": "x"}), ("adopt", {"reason": " "})):
            assert_problem(await client.post(f"{address}/{action}", json=body, headers=account.headers), 422)
        body = {"reason": "in its app"}
        assert_problem(
            await client.post(f"{URL}/{account_id}/adopt", json=body, headers=account.headers), 404
        )
        adopted = await client.post(f"{address}/adopt", json=body, headers=account.headers)
        assert (adopted.status_code, adopted.json()["quantity"]) == (200, "1.5")
        # At the last known price.
        assert adopted.json()["realised_pnl"] == "500"
        assert (await client.get(f"{URL}/differences", headers=account.headers)).json() == EMPTY
        assert_problem(await client.post(f"{address}/adopt", json=body, headers=account.headers), 409)
        body |= {"quantity": "-1", "price": "49000"}
        corrected = await client.post(f"{address}/correct", json=body, headers=account.headers)
        assert (corrected.status_code, corrected.json()["quantity"]) == (200, "-1")
        assert corrected.json()["average_price"] == "49000"
        assert len(await desk.orders()) == len(await desk.fills()) == 2
        # Nobody else's.
        other = await make_account(settings, "other@mail.test")
        assert_problem(await client.post(f"{address}/correct", json=body, headers=other.headers), 404)
        assert (await client.get(f"{URL}/differences", headers=other.headers)).json() == EMPTY


async def test_the_command_line(desk: Desk) -> None:
    position_id, _ = await differing(desk)
    head, line = run("position", "list").stdout.splitlines()
    assert head.split() == list(COLUMNS)
    assert line.split()[:2] == [str(position_id), "desk@mail.test"]
    (listed,) = json.loads(run("position", "list", "--json").stdout)
    assert (listed["quantity"], listed["account_holds"], listed["of"]) == ("2", "1.5", SYMBOL)
    assert len(run("position", "list", "--user", "other@mail.test").stdout.splitlines()) == 1
    adopted = run("position", "adopt", str(position_id), "--reason", "in its app")
    assert adopted.stdout == "the book says now: 1.5 BTCUSDT.P\n"
    again = run("position", "adopt", str(position_id), "--reason", "in its app")
    assert (again.returncode, again.stdout) == (1, "")
    assert "nothing to adopt" in again.stderr
    words = ("position", "correct", str(position_id), "--reason", "seen", "--quantity")
    assert run(*words, "-1", "--price", "49000").stdout == "the book says now: -1 BTCUSDT.P\n"
    for wrong, option in (("many", "--quantity: "), ("1e30", "--quantity: ")):
        refused = run(*words, wrong)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert option in refused.stderr
    assert "`tradingbot position list` shows them" in run("position", "adopt", "7", "--reason", "x").stderr
    reasons = [order.reason for order in await desk.orders()]
    assert reasons == ["corrected by an operator: in its app", "corrected by an operator: seen"]


async def test_on_paper_the_book_is_all_there_is(desk: Desk, settings: Settings) -> None:
    strategy = await desk.strategy()
    async with working_here(settings):
        await queue(desk, strategy, "buy", "0.1")
        await desk.until_idle(20)
    with pytest.raises(ConflictError, match="On paper"):
        await say_of(desk, ADOPT)
