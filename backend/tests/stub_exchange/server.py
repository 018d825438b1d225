"""The server: Binance's paths, and /_stub for commands from another process."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.stub_exchange import commands, wire
from tests.stub_exchange.access import signed
from tests.stub_exchange.book import DEFAULT_KEY, FUTURE, OPEN, SPOT, Account, Book, Booked, BookError
from tests.stub_exchange.faults import Faults, strike

CLIENT_ORDER_ID = re.compile(r"^[\.A-Z\:/a-z0-9_-]{1,36}$")
MAX_TRADES = 1000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Parameters = dict[str, str]


@dataclass(frozen=True)
class Received:
    """A request as it came, whatever became of it."""

    method: str
    path: str
    parameters: Parameters
    headers: dict[str, str]


class StubExchange:
    """The exchange; an async context manager that listens on loopback.

    `book` (prices, filling, fees, clock), `accounts` (by API key), `faults` and `received` may be read and
    changed at any time from the same event loop.
    """

    def __init__(self, port: int = 0) -> None:
        self.book = Book()
        self.accounts: dict[str, Account] = {DEFAULT_KEY: Account()}
        self.faults = Faults()
        self.received: list[Received] = []
        # Ids of trades that the lists of trades do not show yet.
        self.hidden_trades: set[int] = set()
        self.url = ""
        # Set while no request is being worked on, whether or not anybody still waits for its answer.
        self.idle = asyncio.Event()
        self._busy = 0
        self._arrival = asyncio.Condition()
        self._port = port
        self._runner: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def account(self) -> Account:
        """The account of the default key."""
        return self.accounts[DEFAULT_KEY]

    def sent(self, client_order_id: str) -> int:
        """Counts the POSTs of orders of this client order id that came, taken or not."""
        return len(self.posts(client_order_id))

    def posts(self, client_order_id: str | None = None) -> list[Received]:
        """Gives the POSTs of orders that came."""
        return [
            request
            for request in self.received
            if request.method == "POST"
            and request.path.endswith("/order")
            and client_order_id in (None, request.parameters.get("newClientOrderId"))
        ]

    async def came(self, path: str) -> None:
        """Waits until a request has come to a path that ends with `path`."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: any(item.path.endswith(path) for item in self.received))

    def fill(self, client_order_id: str, parts: int = 1) -> Booked:
        """Fills the next parts of an order (filling `manual`)."""
        for account in self.accounts.values():
            if account.booked(client_order_id):
                order = account.order(client_order_id)
                for _ in range(parts):
                    self.book.fill(account, order)
                return order
        raise BookError(-2013, "Order does not exist.")

    def reset(self) -> None:
        """Forgets everything."""
        self.book = Book()
        self.accounts = {DEFAULT_KEY: Account()}
        self.faults.clear()
        self.received.clear()
        self.hidden_trades.clear()

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._middleware])
        app.add_routes([*self._routes(), *commands.routes(self)])
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stops listening, and cuts off whoever is connected."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _routes(self) -> list[web.RouteDef]:
        routes = [web.get("/sapi/v1/account/apiRestrictions", self._signed(self._restrictions))]
        for market, base, trades in ((SPOT, "/api/v3", "myTrades"), (FUTURE, "/fapi/v1", "userTrades")):
            routes += [
                web.get(f"{base}/ping", self._public(market, lambda _market, _parameters: {})),
                web.get(
                    f"{base}/time", self._public(market, lambda _market, _p: {"serverTime": self.book.now()})
                ),
                web.get(f"{base}/exchangeInfo", self._public(market, self._exchange_info)),
                web.get(f"{base}/ticker/24hr", self._public(market, self._ticker)),
                web.get(f"{base}/ticker/price", self._public(market, self._price)),
                web.post(f"{base}/order", self._signed(self._place, market)),
                web.get(f"{base}/order", self._signed(self._find, market)),
                web.delete(f"{base}/order", self._signed(self._cancel, market)),
                web.get(f"{base}/openOrders", self._signed(self._open_orders, market)),
                web.get(f"{base}/{trades}", self._signed(self._trades, market)),
            ]
        routes.append(web.get("/api/v3/account", self._signed(self._spot_account)))
        for version in ("v2", "v3"):
            routes += [
                web.get(f"/fapi/{version}/account", self._signed(self._future_account)),
                web.get(f"/fapi/{version}/balance", self._signed(self._future_balance)),
                web.get(f"/fapi/{version}/positionRisk", self._signed(self._position_risk)),
            ]
        return routes

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/_stub"):
            return await handler(request)
        parameters = dict(request.query) | {
            name: str(value) for name, value in (await request.post()).items()
        }
        self.received.append(Received(request.method, request.path, parameters, dict(request.headers)))
        self._busy += 1
        self.idle.clear()
        async with self._arrival:
            self._arrival.notify_all()
        try:
            return await self._answer(request, handler)
        finally:
            self._busy -= 1
            if not self._busy:
                self.idle.set()

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        instead = await strike(self.faults.take(request.method, request.path, "before"), request)
        if instead is not None:
            return instead
        try:
            answer = await handler(request)
        except BookError as error:
            return web.json_response({"code": error.code, "msg": error.message}, status=error.status)
        return await strike(self.faults.take(request.method, request.path, "after"), request) or answer

    def _public(self, market: str, answer: Callable[[str, Parameters], Any]) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            return web.json_response(answer(market, dict(request.query)))

        return handle

    def _signed(self, answer: Callable[[str, Account, Parameters], Any], market: str = "") -> Handler:
        async def handle(request: web.Request) -> web.Response:
            account, parameters = await signed(request, self.book, self.accounts)
            return web.json_response(answer(market, account, parameters))

        return handle

    def _exchange_info(self, market: str, _parameters: Parameters) -> Any:
        return wire.exchange_info(self.book, market)

    def _ticker(self, market: str, parameters: Parameters) -> Any:
        if "symbol" in parameters:
            return wire.ticker(self.book, self.book.symbol(market, parameters["symbol"]))
        return [wire.ticker(self.book, symbol) for symbol in self.book.symbols if symbol.market == market]

    def _price(self, market: str, parameters: Parameters) -> Any:
        symbol = self.book.symbol(market, parameters.get("symbol", ""))
        return {"symbol": symbol.id, "price": wire.text(self.book.prices[symbol.id])}

    def _place(self, market: str, account: Account, parameters: Parameters) -> Any:
        symbol = self.book.symbol(market, parameters.get("symbol", ""))
        kind, side = parameters.get("type", ""), parameters.get("side", "")
        if side not in ("BUY", "SELL"):
            raise BookError(-1117, "Invalid side.")
        if kind not in ("MARKET", "LIMIT"):
            raise BookError(-1116, "Invalid orderType.")
        client_order_id = parameters.get("newClientOrderId", f"stub-{len(account.orders)}")
        if not CLIENT_ORDER_ID.match(client_order_id):
            raise BookError(-1100, "Illegal characters found in parameter 'newClientOrderId'.")
        reduce_only = parameters.get("reduceOnly", "false").lower() == "true"
        if market == SPOT and "reduceOnly" in parameters:
            raise BookError(-1104, "Not all sent parameters were read.")
        price = _decimal(parameters, "price") if kind == "LIMIT" else None
        order = self.book.place(
            account, symbol, side, kind, _decimal(parameters, "quantity"), price, client_order_id, reduce_only
        )
        if order.parts and self.book.filling.how == "timed":
            task = asyncio.create_task(self._fill_in_time(account, order))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return wire.order(order, with_fills=parameters.get("newOrderRespType", "FULL") == "FULL")

    async def _fill_in_time(self, account: Account, order: Booked) -> None:
        while order.parts:
            await asyncio.sleep(self.book.filling.interval)
            self.book.fill(account, order)

    def _find(self, market: str, account: Account, parameters: Parameters) -> Any:
        return wire.order(self._order(market, account, parameters))

    def _cancel(self, market: str, account: Account, parameters: Parameters) -> Any:
        try:
            order = self._order(market, account, parameters)
        except BookError as error:
            if error.code != -2013:
                raise
            raise BookError(-2011, "Unknown order sent.") from None
        return wire.order(self.book.cancel(order))

    def _order(self, market: str, account: Account, parameters: Parameters) -> Booked:
        symbol = self.book.symbol(market, parameters.get("symbol", ""))
        wanted, number = parameters.get("origClientOrderId"), parameters.get("orderId")
        if not wanted and not number:
            raise BookError(
                -1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!"
            )
        for order in reversed(account.orders):
            if order.is_of(symbol) and (str(order.id) == number or order.client_order_id == wanted):
                return order
        raise BookError(-2013, "Order does not exist.")

    def _open_orders(self, market: str, account: Account, parameters: Parameters) -> Any:
        return [
            wire.order(order)
            for order in account.orders
            if order.symbol.market == market
            and order.status in OPEN
            and parameters.get("symbol") in (None, order.symbol.id)
        ]

    def _trades(self, market: str, account: Account, parameters: Parameters) -> Any:
        symbol = self.book.symbol(market, parameters.get("symbol", ""))
        first, limit = int(parameters.get("fromId", 0)), int(parameters.get("limit", 500))
        if limit > MAX_TRADES:
            raise BookError(-1130, "Data sent for parameter 'limit' is not valid.")
        trades = [
            wire.trade(order, trade)
            for order in account.orders
            if order.is_of(symbol) and parameters.get("orderId") in (None, str(order.id))
            for trade in order.executions
            if trade.id >= first and trade.id not in self.hidden_trades
        ]
        return sorted(trades, key=lambda trade: int(trade["id"]))[:limit]

    def _spot_account(self, _market: str, account: Account, _parameters: Parameters) -> Any:
        return wire.spot_account(self.book, account)

    def _future_account(self, _market: str, account: Account, _parameters: Parameters) -> Any:
        return wire.future_account(self.book, account)

    def _future_balance(self, _market: str, account: Account, _parameters: Parameters) -> Any:
        return wire.future_account(self.book, account)["assets"]

    def _position_risk(self, _market: str, account: Account, parameters: Parameters) -> Any:
        name = parameters.get("symbol")
        if name is not None:
            self.book.symbol(FUTURE, name)
        return wire.position_risk(self.book, account, name)

    def _restrictions(self, _market: str, account: Account, _parameters: Parameters) -> Any:
        return wire.restrictions(account)


def _decimal(parameters: Parameters, name: str) -> Decimal:
    value = parameters.get(name, "")
    if not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?", value):
        raise BookError(-1100, f"Illegal characters found in parameter '{name}'.")
    try:
        return Decimal(value)
    except InvalidOperation:
        raise BookError(-1100, f"Illegal characters found in parameter '{name}'.") from None
