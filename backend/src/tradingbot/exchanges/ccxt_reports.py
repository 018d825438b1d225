"""ccxt's orders and trades as reports of ours. Decimals all the way: the client makes no floats."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

from tradingbot.core.amounts import ARITHMETIC, to_scale
from tradingbot.exchanges.base import OrderReport, Trade
from tradingbot.orders.models import OrderState

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO = Decimal(0)
_STATES = {
    "open": OrderState.SUBMITTED,
    "closed": OrderState.FILLED,
    "canceled": OrderState.CANCELLED,
    "canceling": OrderState.SUBMITTED,
    # Binance ends a market order so when the book has no more for it.
    "expired": OrderState.CANCELLED,
    "rejected": OrderState.REJECTED,
}

Json = Mapping[str, Any]


def contract_size(market: Json) -> Decimal:
    """Gives the base quantity of one unit of the market's amounts: 1 but for contracts."""
    return Decimal(market["contractSize"] or 1)


def executed(order: Json) -> Decimal:
    """Gives the amount that the exchange says is filled, in the market's units."""
    return Decimal(order["filled"] or 0)


def is_complete(order: Json, trades: list[dict[str, Any]]) -> bool:
    """Tells whether the trades make up all that is filled."""
    return _sum(trades) >= executed(order)


def make_report(
    client_order_id: str,
    order: Json,
    trades: list[dict[str, Any]],
    market: Json,
    prices: Mapping[str, Decimal],
) -> OrderReport:
    """Gives the report; `prices` are those of other fee assets in the quote asset, as far as known."""
    state = _STATES.get(str(order["status"]), OrderState.SUBMITTED)
    reason = None
    if state == OrderState.CANCELLED and order["status"] == "expired":
        reason = "the exchange let the rest expire"
    elif state == OrderState.REJECTED:
        reason = "the exchange rejected the order"
    is_over = state in (OrderState.FILLED, OrderState.CANCELLED)
    if (is_over and not is_complete(order, trades)) or (state == OrderState.SUBMITTED and trades):
        state = OrderState.PARTIALLY_FILLED if trades else OrderState.SUBMITTED
    made = tuple(_trade(trade, order, market, prices) for trade in trades)
    return OrderReport(client_order_id, str(order["id"]), state, made, reason)


def fee_assets(trades: list[dict[str, Any]]) -> set[str]:
    """Gives the assets that fees were paid in."""
    return {fee["currency"] for trade in trades for fee in _fees(trade) if fee["currency"]}


def _sum(trades: list[dict[str, Any]]) -> Decimal:
    return sum((Decimal(trade["amount"]) for trade in trades), _ZERO)


def _fees(trade: Json) -> list[dict[str, Any]]:
    fees = trade.get("fees") or [trade.get("fee") or {}]
    return [fee for fee in fees if fee.get("cost") is not None]


def _trade(trade: Json, order: Json, market: Json, prices: Mapping[str, Decimal]) -> Trade:
    price = Decimal(trade["price"])
    at = trade["timestamp"] or order["lastTradeTimestamp"] or order["timestamp"]
    with localcontext(ARITHMETIC):
        quantity = Decimal(trade["amount"]) * contract_size(market)
        fee, asset, unvalued, unvalued_asset = _ZERO, None, _ZERO, None
        for part in _fees(trade):
            cost, asset = Decimal(part["cost"]), part["currency"]
            if asset == market["quote"]:
                fee += cost
            elif asset == market["base"]:
                fee += cost * price
                if market["spot"] and order["side"] == "buy":
                    quantity -= cost
            elif str(asset) in prices:
                fee += cost * prices[str(asset)]
            elif cost:
                unvalued, unvalued_asset = unvalued + cost, asset
        return Trade(
            trade_id=str(trade["id"]),
            quantity=to_scale(quantity),
            price=to_scale(price),
            fee=to_scale(fee),
            fee_asset=unvalued_asset or asset,
            at=_EPOCH + timedelta(milliseconds=int(at)),
            unvalued_fee=to_scale(unvalued),
        )
