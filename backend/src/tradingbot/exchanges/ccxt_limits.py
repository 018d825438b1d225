"""What a market takes: steps, least and largest amounts, least value. Sources: ccxt's market structure
(https://docs.ccxt.com/#/?id=market-structure) and Binance's filters
(https://developers.binance.com/docs/binance-spot-api-docs/filters)."""

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

from tradingbot.core.amounts import ARITHMETIC, plain
from tradingbot.exchanges.base import MarketLimits, OrderRequest, RejectedError

Json = Mapping[str, Any]

# The limits of every order, and those of market orders.
_AMOUNTS = ("amount", "market")


def sendable(amount: Decimal, order: OrderRequest, market: Json) -> Decimal:
    """Return the amount rounded down to the market's step for market orders.

    Of what brings a position nearer to zero it is at most the largest market order: the rest goes by another.
    """
    with localcontext(ARITHMETIC):
        largest = _largest(market)
        if order.reduce_only and largest:
            amount = min(amount, largest)
        for step in _steps(market):
            amount = amount // step * step
    return amount


def market_limits(market: Json) -> MarketLimits:
    """Return what the market takes."""
    limits = market["limits"]
    with localcontext(ARITHMETIC):
        step, size = max(_steps(market)), Decimal(market["contractSize"] or 1)
        least = max(step, *(Decimal(limits.get(of, {}).get("min") or 0) for of in _AMOUNTS))
        return MarketLimits(
            min_quantity=least * size,
            min_value=Decimal(limits["cost"]["min"] or 0),
            shorts=not market["spot"],
            step=step * size,
        )


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


def _largest(market: Json) -> Decimal:
    most = (Decimal(market["limits"].get(of, {}).get("max") or 0) for of in _AMOUNTS)
    return min((amount for amount in most if amount), default=Decimal(0))


def _steps(market: Json) -> list[Decimal]:
    filters = market["info"].get("filters", [])
    of_market_orders = [entry for entry in filters if entry["filterType"] == "MARKET_LOT_SIZE"]
    steps = [market["precision"]["amount"], *(entry["stepSize"] for entry in of_market_orders)]
    return [Decimal(step) for step in steps if Decimal(step) > 0]


def _written(steps: list[Decimal]) -> str:
    return plain(max(steps))
