"""The symbols that a strategy may trade: kept as its owner writes them, compared by market."""

from collections.abc import Iterable

from tradingbot.core.symbols import market_of


def allows(symbols: Iterable[str], symbol: str) -> bool:
    """Return whether `symbol` is in the market of one of `symbols`; none of them means any."""
    markets = {market_of(name) for name in symbols}
    return not markets or market_of(symbol) in markets


def overlap(one: Iterable[str], other: Iterable[str]) -> str | None:
    """Return a market that is in both, in words; None if there is none. No symbols mean any market."""
    first, second = ({market_of(name) for name in names} for names in (one, other))
    if first and second:
        return min(first & second, default=None)
    return min(first | second, default="any market")


def without_repetition(symbols: Iterable[str]) -> list[str]:
    """Return the first spelling of each market."""
    first: dict[str, str] = {}
    for symbol in symbols:
        first.setdefault(market_of(symbol), symbol)
    return list(first.values())
