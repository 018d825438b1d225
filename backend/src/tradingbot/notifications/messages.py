"""The words of notifications: short, and nothing that only its owner should see."""

from decimal import Decimal

from tradingbot.core.amounts import plain
from tradingbot.notifications.targets import Message


def fill(
    strategy: str, symbol: str, side: str, quantity: Decimal, price: Decimal, realised_pnl: Decimal | None
) -> Message:
    """An order was filled, or a part of it. `price` and `realised_pnl` are in the quote asset."""
    title = f"{symbol}: {'bought' if side == 'buy' else 'sold'} {plain(quantity)} at {plain(price)}"
    lines = [f"Strategy {strategy}"]
    if realised_pnl:
        lines.append(f"Realised P&L {realised_pnl.normalize():+f}")
    return Message("fill", title, "\n".join(lines))


def refusal(strategy: str, symbol: str, rule: str, reason: str) -> Message:
    """A signal was not traded."""
    return Message("refusal", f"{symbol}: refused ({rule})", f"Strategy {strategy}\n{reason}")


def failure(strategy: str, symbol: str, what: str, reason: str) -> Message:
    """Something needs a look: an order was rejected, its outcome is not known, or positions differ."""
    return Message("failure", f"{symbol}: {what}", f"Strategy {strategy}\n{reason}")
