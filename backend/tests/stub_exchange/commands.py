"""Commands over HTTP, for a stub in a process of its own: all under /_stub, JSON in and out."""

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.stub_exchange import wire
from tests.stub_exchange.book import Account
from tests.stub_exchange.fills import Filling

if TYPE_CHECKING:
    from tests.stub_exchange.server import StubExchange


def routes(stub: "StubExchange") -> list[web.RouteDef]:
    """Gives the routes that command this stub."""

    async def add_fault(request: web.Request) -> web.Response:
        stub.faults.add(await request.json())
        return _done()

    async def clear_faults(_request: web.Request) -> web.Response:
        stub.faults.clear()
        return _done()

    async def configure(request: web.Request) -> web.Response:
        _configure(stub, await request.json())
        return _done()

    async def add_account(request: web.Request) -> web.Response:
        account = Account(**await request.json())
        stub.accounts[account.key] = account
        return _done()

    async def fill(request: web.Request) -> web.Response:
        command = await request.json()
        return web.json_response(wire.summary(stub.fill(command["client_order_id"], command.get("parts", 1))))

    async def orders(_request: web.Request) -> web.Response:
        listed = [wire.summary(order) for account in stub.accounts.values() for order in account.orders]
        return web.json_response(listed)

    async def received(_request: web.Request) -> web.Response:
        listed = [
            {"method": request.method, "path": request.path, "parameters": request.parameters}
            for request in stub.received
        ]
        return web.json_response(listed)

    async def reset(_request: web.Request) -> web.Response:
        stub.reset()
        return _done()

    return [
        web.post("/_stub/faults", add_fault),
        web.delete("/_stub/faults", clear_faults),
        web.post("/_stub/settings", configure),
        web.post("/_stub/accounts", add_account),
        web.post("/_stub/fill", fill),
        web.get("/_stub/orders", orders),
        web.get("/_stub/received", received),
        web.post("/_stub/reset", reset),
    ]


def _configure(stub: "StubExchange", command: dict[str, Any]) -> None:
    for symbol, price in command.get("prices", {}).items():
        stub.book.prices[symbol] = Decimal(price)
    if "filling" in command:
        filling = dict(command["filling"])
        filling["price_step"] = Decimal(filling.get("price_step", "0"))
        stub.book.filling = Filling(**filling)
    if "fee_rate" in command:
        stub.book.fee_rate = Decimal(command["fee_rate"])
    if "fee_asset" in command:
        stub.book.fee_asset = command["fee_asset"]
    if "clock_offset" in command:
        stub.book.clock_offset = float(command["clock_offset"])
    if "may_withdraw" in command:
        stub.account.may_withdraw = bool(command["may_withdraw"])


def _done() -> web.Response:
    return web.json_response({})
