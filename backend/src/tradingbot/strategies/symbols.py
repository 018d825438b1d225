"""The symbols that a strategy may trade: kept as its owner writes them, compared by market."""

from collections.abc import Iterable

from tradingbot.core.symbols import market_of


def allows(symbols: Iterable[str], symbol: str) -> bool:
    """Return whether `symbol` is in the market of one of `symbols`; none of them means any."""
    markets = {market_of(name) for name in symbols}
    return not markets or market_of(symbol) in markets


def without_repetition(symbols: Iterable[str]) -> list[str]:
    """Return the first spelling of each market."""
    first: dict[str, str] = {}
    for symbol in symbols:
        first.setdefault(market_of(symbol), symbol)
    return list(first.values())
