"""A real exchange through ccxt: market orders on one account, spot or futures settled in the quote asset.

An order is sent once. Its request carries the time of the decision and a window of RECV_WINDOW: what is held
up on its way for longer the exchange refuses, so that after `settle_time` an order that it does not know
cannot arrive any more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from time import monotonic
from typing import Any

from tradingbot.core.amounts import ARITHMETIC, plain, to_scale
from tradingbot.core.symbols import market_of
from tradingbot.exchanges import ccxt_reports as reports
from tradingbot.exchanges import symbols
from tradingbot.exchanges.base import (
    CredentialsError,
    MarketLimits,
    NotSentError,
    OrderReport,
    OrderRequest,
    UnknownSymbolError,
)
from tradingbot.exchanges.ccxt_client import RECV_WINDOW, Answer, current_answer
from tradingbot.exchanges.ccxt_errors import Failure, Meaning, understand
from tradingbot.exchanges.ccxt_limits import check_limits, market_limits, sendable
from tradingbot.exchanges.models import Market, Mode

# The asset that an account's equity is told in.
EQUITY_ASSET = "USDT"
# Seconds until an order that the exchange took can be asked for, and by which clocks may differ.
_MARGIN = 5.0
# Seconds until filters and the difference of clocks are asked for again; and for an unknown symbol.
_MARKETS_AGE = 3600.0
_MARKETS_AGE_UNKNOWN = 60.0
_TRADES_PAGE = 1000
_MAX_PAGES = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_WINDOW = RECV_WINDOW * _MILLISECOND

Json = dict[str, Any]
Request = Callable[[], Coroutine[Any, Any, Any]]
# What the account's strategies hold: symbols and signed quantities.
Holdings = Callable[[], Awaitable[Iterable[tuple[str, Decimal]]]]


class FailedError(Exception):
    """A call that failed, and what that means."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class CcxtExchange:
    """One account. `timeout` (seconds) bounds each call; `client` is from `ccxt_client.make_client`.

    `holdings` says which of a spot account's coins are its strategies'.
    """

    settle_time = RECV_WINDOW / 1000 + _MARGIN

    def __init__(
        self,
        client: Any,
        exchange: str,
        market: Market,
        mode: Mode,
        timeout: float,
        holdings: Holdings | None = None,
    ) -> None:
        self._client = client
        self._exchange = exchange
        self._kind = market
        self._mode = mode
        self._timeout = timeout
        self._holdings = holdings
        self._markets: symbols.Markets = {}
        self._loaded_at = float("-inf")
        self._loading = asyncio.Lock()
        # Until then (monotonic) the exchange wants to be left alone.
        self._quiet_until = 0.0

    async def place(self, order: OrderRequest) -> OrderReport:
        """Sends the order, once: see `Exchange.place`."""
        issued_at = order.issued_at or datetime.now(UTC)
        deadline = self._deadline()
        market = await self._market(order.symbol, deadline)
        amount = self._amount(order, market)
        if datetime.now(UTC) - issued_at > _WINDOW:
            raise NotSentError("held up for too long to be sent safely")
        parameters: Json = {
            "clientOrderId": order.client_order_id,
            # Of the decision, not of now: so it does not matter where between the two we are held up.
            "timestamp": (issued_at - _EPOCH) // _MILLISECOND - self._client.options["timeDifference"],
            "recvWindow": RECV_WINDOW,
        }
        if order.reduce_only and market["contract"]:
            parameters["reduceOnly"] = "true"
        try:
            placed = await self._order(
                lambda: self._client.create_order(
                    market["symbol"], "market", order.side.value, plain(amount), None, parameters
                ),
                order.client_order_id,
                deadline,
            )
        except FailedError as error:
            raise error.failure.of_order() from None
        return await self._first_report(order.client_order_id, placed, market, deadline)

    async def find(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Gives the order, or None: see `Exchange.find`."""
        deadline = self._deadline()
        async with self._asking():
            market = await self._market(symbol, deadline)
            return await self._find(client_order_id, market, deadline)

    async def cancel(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Cancels what is left: see `Exchange.cancel`."""
        deadline = self._deadline()
        async with self._asking():
            market = await self._market(symbol, deadline)
            parameters = {"clientOrderId": client_order_id}
            try:
                await self._call(
                    lambda: self._client.cancel_order(None, market["symbol"], parameters), deadline
                )
            except FailedError as error:
                # It is unknown, or over already: asking tells which.
                if error.failure.meaning not in (Meaning.NOT_FOUND, Meaning.REFUSED):
                    raise
            return await self._find(client_order_id, market, deadline)

    async def holding(self, symbol: str) -> Decimal | None:
        """Gives the account's position, or its balance of the base asset: see `Exchange.holding`."""
        deadline = self._deadline()
        async with self._asking():
            market = await self._market(symbol, deadline)
            if not market["contract"]:
                balance = await self._call(self._client.fetch_balance, deadline)
                return to_scale(Decimal(balance["total"].get(market["base"]) or 0))
            request = {"symbol": market["id"]}
            positions = await self._call(
                lambda: self._client.fapiPrivateV3GetPositionRisk(dict(request)), deadline
            )
            with localcontext(ARITHMETIC):
                held = sum((Decimal(position["positionAmt"]) for position in positions), Decimal(0))
                return to_scale(held * reports.contract_size(market))

    async def asset(self, symbol: str) -> str:
        """Return what a holding is counted in: see `Exchange.asset`."""
        async with self._asking():
            market = await self._market(symbol, self._deadline())
            return market_of(market["symbol"]) if market["contract"] else str(market["base"])

    async def price(self, symbol: str) -> Decimal | None:
        """Gives the last price: see `Exchange.price`."""
        deadline = self._deadline()
        async with self._asking():
            try:
                market = await self._market(symbol, deadline)
            except UnknownSymbolError:
                return None
            return await self._last_price(market, deadline)

    async def equity(self, symbol: str) -> Decimal | None:
        """Return the equity in EQUITY_ASSET, if that is the quote asset.

        On spot it is the balance of EQUITY_ASSET and the worth of what the account's strategies hold, as far
        as it is there and has a price: the owner's other coins are not theirs.
        """
        deadline = self._deadline()
        async with self._asking():
            try:
                market = await self._market(symbol, deadline)
            except UnknownSymbolError:
                return None
            if market["quote"] != EQUITY_ASSET:
                return None
            balance = await self._call(self._client.fetch_balance, deadline)
            if self._kind == Market.FUTURE:
                # Wallet and unrealised profit, as Binance adds them up.
                return to_scale(Decimal(balance["info"]["totalMarginBalance"]))
            return await self._worth(balance["total"], deadline)

    async def limits(self, symbol: str) -> MarketLimits:
        """Return what the market's filters say: see `Exchange.limits`."""
        async with self._asking():
            return market_limits(await self._market(symbol, self._deadline()))

    async def sendable(self, order: OrderRequest) -> tuple[Decimal, str]:
        """Return what would be sent of the order, in the base asset, and the name of that asset.

        Raises:
            RejectedError: the market does not take it.
            NotSentError: the exchange does not answer.
        """
        async with self._asking():
            market = await self._market(order.symbol, self._deadline())
        size = reports.contract_size(market)
        return to_scale(ARITHMETIC.multiply(self._amount(order, market), size)), market["base"]

    async def check_credentials(self) -> None:
        """Shows the key: see `Exchange.check_credentials`. Only live keys have anything to withdraw."""
        deadline = self._deadline()
        async with self._asking():
            await self._load(deadline)
            await self._call(self._client.fetch_balance, deadline)
            if self._mode != Mode.LIVE:
                return
            rights = await self._call(self._client.sapiGetAccountApiRestrictions, deadline)
        if rights.get("enableWithdrawals") is not False:
            raise CredentialsError("The key may withdraw: make one that may not.")
        needed = "enableFutures" if self._kind == Market.FUTURE else "enableSpotAndMarginTrading"
        if rights.get(needed) is not True:
            raise CredentialsError(f"The key may not trade: it lacks {needed}.")

    async def close(self) -> None:
        """Closes connections."""
        await self._client.close()

    async def _first_report(
        self, client_order_id: str, placed: Json, market: Json, deadline: float
    ) -> OrderReport:
        """The report of an order just placed: what goes wrong from here on does not undo it."""
        try:
            async with self._asking():
                return await self._report(client_order_id, placed, market, deadline)
        except (NotSentError, CredentialsError):
            return reports.make_report(client_order_id, placed, [], market, {})

    async def _find(self, client_order_id: str, market: Json, deadline: float) -> OrderReport | None:
        parameters = {"clientOrderId": client_order_id}
        try:
            order = await self._order(
                lambda: self._client.fetch_order(None, market["symbol"], parameters),
                client_order_id,
                deadline,
            )
        except FailedError as error:
            if error.failure.meaning == Meaning.NOT_FOUND:
                return None
            raise
        return await self._report(client_order_id, order, market, deadline)

    async def _report(self, client_order_id: str, order: Json, market: Json, deadline: float) -> OrderReport:
        trades: list[Json] = list(order["trades"] or [])
        if not reports.is_complete(order, trades):
            trades = await self._trades(order["id"], market, deadline)
        prices: dict[str, Decimal] = {}
        for asset in reports.fee_assets(trades) - {market["base"], market["quote"]}:
            other = self._markets.get(market_of(f"{asset}/{market['quote']}"))
            price = await self._last_price(other, deadline) if other else None
            if price is not None:
                prices[asset] = price
        return reports.make_report(client_order_id, order, trades, market, prices)

    async def _trades(self, order_id: str, market: Json, deadline: float) -> list[Json]:
        trades: list[Json] = []
        parameters: Json = {"orderId": order_id}
        for _ in range(_MAX_PAGES):
            page = await self._call(
                lambda: self._client.fetch_my_trades(market["symbol"], None, _TRADES_PAGE, dict(parameters)),
                deadline,
            )
            trades += page
            if len(page) < _TRADES_PAGE:
                break
            parameters["fromId"] = max(int(trade["id"]) for trade in page) + 1
        return trades

    def _amount(self, order: OrderRequest, market: Json) -> Decimal:
        """Gives what to send, in the market's units."""
        with localcontext(ARITHMETIC):
            amount = sendable(order.quantity / reports.contract_size(market), order, market)
        check_limits(amount, order, market)
        return amount

    async def _worth(self, totals: Json, deadline: float) -> Decimal:
        worth, held = Decimal(totals.get(EQUITY_ASSET) or 0), dict[str, Decimal]()
        for symbol, quantity in await self._holdings() if self._holdings else ():
            try:
                base = symbols.find(symbol, self._markets, self._exchange, self._kind)["base"]
            except UnknownSymbolError:
                continue
            held[base] = ARITHMETIC.add(held.get(base, Decimal(0)), quantity)
        markets = {asset: self._markets.get(market_of(f"{asset}/{EQUITY_ASSET}")) for asset in held}
        names = {asset: market["symbol"] for asset, market in markets.items() if market and held[asset] > 0}
        if names:
            tickers = await self._call(lambda: self._client.fetch_tickers(list(names.values())), deadline)
            with localcontext(ARITHMETIC):
                for asset, name in names.items():
                    is_there = min(held[asset], Decimal(totals.get(asset) or 0))
                    worth += is_there * Decimal(tickers.get(name, {}).get("last") or 0)
        return to_scale(worth)

    async def _last_price(self, market: Json, deadline: float) -> Decimal | None:
        ticker = await self._call(lambda: self._client.fetch_ticker(market["symbol"]), deadline)
        last = Decimal(ticker["last"] or 0)
        return to_scale(last) if last > 0 else None

    async def _market(self, symbol: str, deadline: float) -> Json:
        """Gives the market of a symbol.

        Raises:
            UnknownSymbolError, NotSentError, CredentialsError.
        """
        async with self._asking():
            await self._load(deadline)
            try:
                return symbols.find(symbol, self._markets, self._exchange, self._kind)
            except UnknownSymbolError:
                # It may be new.
                await self._load(deadline, _MARKETS_AGE_UNKNOWN)
                return symbols.find(symbol, self._markets, self._exchange, self._kind)

    async def _load(self, deadline: float, age: float = _MARKETS_AGE) -> None:
        """Asks for markets and time again, if what we know is older than `age`."""
        if monotonic() - self._loaded_at <= age:
            return
        # One at a time: ccxt would let one that is cancelled cancel the others.
        async with asyncio.timeout_at(deadline), self._loading:
            if monotonic() - self._loaded_at <= age:
                return
            # Binance: leaves out what makes up most of the answer.
            parameters = {"showPermissionSets": "false"} if self._kind == Market.SPOT else {}
            try:
                found = await self._call(lambda: self._client.fetch_markets(parameters), deadline)
            except FailedError:
                if not self._markets:
                    raise
                return
            self._client.set_markets(found)
            self._markets = symbols.index(self._client.markets.values(), self._kind)
            self._loaded_at = monotonic()

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout

    async def _call(self, request: Request, deadline: float) -> Any:
        """Makes one request of the client.

        Raises:
            FailedError: whatever went wrong.
        """
        wait = self._quiet_until - monotonic()
        if wait > 0:
            raise FailedError(Failure(Meaning.RATE_LIMITED, "the exchange wants to be left alone", wait))
        answer = Answer()
        token = current_answer.set(answer)
        try:
            # ccxt changes the context of decimals that it finds.
            with localcontext():
                async with asyncio.timeout_at(deadline):
                    return await request()
        except Exception as error:
            failure = understand(error, answer)
            if failure.meaning == Meaning.RATE_LIMITED:
                self._quiet_until = monotonic() + failure.retry_after
            elif failure.meaning == Meaning.CLOCK:
                self._loaded_at = float("-inf")
            raise FailedError(failure) from error
        finally:
            current_answer.reset(token)

    async def _order(self, request: Request, client_order_id: str, deadline: float) -> Json:
        """Makes a request that is answered with an order.

        Raises:
            FailedError: whatever went wrong; unknown, if the answer is not about this order.
        """
        order: Json = await self._call(request, deadline)
        if not order["id"] or order["clientOrderId"] != client_order_id:
            raise FailedError(Failure(Meaning.UNKNOWN, "the answer is not about this order"))
        return order

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Says of whatever goes wrong that it may be asked again."""
        try:
            yield
        except FailedError as error:
            raise error.failure.of_question() from None
        except TimeoutError:
            raise NotSentError("no answer in time") from None
