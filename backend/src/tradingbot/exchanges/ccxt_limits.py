"""What a market takes: steps, least and largest amounts, least value. Sources: ccxt's market structure
(https://docs.ccxt.com/#/?id=market-structure) and Binance's filters
(https://developers.binance.com/docs/binance-spot-api-docs/filters)."""

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

from tradingbot.core.amounts import ARITHMETIC, plain, to_scale
from tradingbot.exchanges.base import OrderRequest, RejectedError

Json = Mapping[str, Any]

# The limits of every order, and those of market orders.
_AMOUNTS = ("amount", "market")


def rounded_down(amount: Decimal, market: Json) -> Decimal:
    """Rounds to the market's step for market orders, towards zero."""
    with localcontext(ARITHMETIC):
        for step in _steps(market):
            amount = amount // step * step
    return amount


def least_quantity(market: Json, price: Decimal | None) -> Decimal:
    """Gives the least quantity of an order in the base asset, and of one that is worth enough at `price`."""
    limits = market["limits"]
    with localcontext(ARITHMETIC):
        least = max(*_steps(market), *(Decimal(limits.get(of, {}).get("min") or 0) for of in _AMOUNTS))
        quantity = least * Decimal(market["contractSize"] or 1)
        if price is None or price <= 0:
            return quantity
        return max(quantity, to_scale(Decimal(limits["cost"]["min"] or 0) / price))


def check_limits(amount: Decimal, order: OrderRequest, market: Json) -> None:
    """Refuses what the exchange would refuse, in words that say why.

    Raises:
        RejectedError: too small or too large. The value is left to the exchange without a price, and for what
            brings a position nearer to zero: its price may be the alert's, which shall not keep it from that.
    """
    symbol, limits = market["symbol"], market["limits"]
    if amount <= 0:
        raise RejectedError(
            f"{plain(order.quantity)} of {symbol} is less than the market's step, {_written(_steps(market))}"
        )
    for of in _AMOUNTS:
        least, most = (Decimal(limits.get(of, {}).get(end) or 0) for end in ("min", "max"))
        if amount < least:
            raise RejectedError(f"{plain(amount)} of {symbol} is less than the least amount, {plain(least)}")
        if most and amount > most:
            raise RejectedError(f"{plain(amount)} of {symbol} is more than the largest amount, {plain(most)}")
    least_value = Decimal(limits["cost"]["min"] or 0)
    if order.price is None or order.reduce_only:
        return
    value = amount * Decimal(market["contractSize"] or 1) * order.price
    if value < least_value:
        raise RejectedError(
            f"{plain(amount)} of {symbol} is worth {plain(value)} {market['quote']},"
            f" less than the least order value, {plain(least_value)}"
        )


def _steps(market: Json) -> list[Decimal]:
    filters = market["info"].get("filters", [])
    of_market_orders = [entry for entry in filters if entry["filterType"] == "MARKET_LOT_SIZE"]
    steps = [market["precision"]["amount"], *(entry["stepSize"] for entry in of_market_orders)]
    return [Decimal(step) for step in steps if Decimal(step) > 0]


def _written(steps: list[Decimal]) -> str:
    return plain(max(steps))
