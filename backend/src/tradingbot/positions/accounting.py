"""Positions and profit and loss by the average-cost method, as pure functions.

Sources: IAS 2 *Inventories*, paragraphs 25 and 27 (weighted average cost, computed anew with each purchase),
and what exchanges show for linear contracts, e.g. Bybit Help Centre, "P&L calculations (USDT Contract)":

- average entry price = Σ(quantity * price) / Σ quantity, over the fills that opened or added;
- unrealised P&L = quantity * (price - average entry price), of a short quantity * (average - price).

With q the position (negative: short), a its average price, and a fill of d (negative: sold) at price p:

- q = 0 or q and d of one sign (open, add):  q' = q + d,  a' = (|q| a + |d| p) / |q'|,  realised 0
- |d| ≤ |q| (reduce, close):  q' = q + d,  a' = a (0 when q' = 0),  realised |d| (p - a) sign(q)
- |d| > |q| (flip): closes |q| and opens the rest:  q' = q + d,  a' = p,  realised |q| (p - a) sign(q)

Quantities are in the base asset, prices and profits in the quote asset; profits are before fees. Sums and
products are exact; averages and profits are rounded half to even to 18 places, the scale of the tables. So
realised + unrealised P&L may differ from the money that came in by half a unit of the 18th place for each
fill and for each unit of quantity that an average was rounded for.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext

from tradingbot.core.amounts import ARITHMETIC, to_scale
from tradingbot.orders.models import Side

_ZERO = Decimal(0)


@dataclass(frozen=True)
class PositionState:
    """A signed quantity, and the average price that it was entered at (0 when there is none)."""

    quantity: Decimal = _ZERO
    average_price: Decimal = _ZERO


@dataclass(frozen=True)
class FillResult:
    """The position after a fill, and the profit (loss: negative) that the fill realised, before its fee."""

    position: PositionState
    realised_pnl: Decimal


def signed(side: Side, quantity: Decimal) -> Decimal:
    """Gives what a fill adds to a position."""
    return quantity if side == Side.BUY else ARITHMETIC.minus(quantity)


def apply_fill(position: PositionState, side: Side, quantity: Decimal, price: Decimal) -> FillResult:
    """Books one fill.

    Raises:
        ValueError: a quantity that is not positive, or a negative price.
    """
    if quantity <= 0 or price < 0:
        raise ValueError("a fill has a positive quantity and a price that is not negative")
    held, change = position.quantity, signed(side, quantity)
    with localcontext(ARITHMETIC):
        after = held + change
        if held == 0 or (held > 0) == (change > 0):
            cost = abs(held) * position.average_price + quantity * price
            return FillResult(PositionState(after, to_scale(cost / abs(after))), _ZERO)
        closed = min(abs(held), quantity)
        gained = closed * (price - position.average_price)
        realised = to_scale(gained if held > 0 else -gained)
        if after == 0:
            return FillResult(PositionState(), realised)
        average = position.average_price if quantity < abs(held) else price
        return FillResult(PositionState(after, average), realised)


def unrealised_pnl(position: PositionState, price: Decimal) -> Decimal:
    """Gives what closing the position at `price` would realise, before fees."""
    with localcontext(ARITHMETIC):
        return to_scale(position.quantity * (price - position.average_price))


def average_fill_price(filled: Decimal, average: Decimal, quantity: Decimal, price: Decimal) -> Decimal:
    """Gives the average price of an order of which `filled` was filled at `average`, after one more fill."""
    with localcontext(ARITHMETIC):
        return to_scale((filled * average + quantity * price) / (filled + quantity))
