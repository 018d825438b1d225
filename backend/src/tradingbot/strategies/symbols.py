"""Symbols are kept exactly as the sender writes them, and compared without regard to case."""

from collections.abc import Iterable


def allows(symbols: Iterable[str], symbol: str) -> bool:
    """Tells whether `symbol` is one of `symbols`; none of them means any."""
    names = {name.casefold() for name in symbols}
    return not names or symbol.casefold() in names


def without_repetition(symbols: Iterable[str]) -> list[str]:
    """Keeps the first spelling of each symbol."""
    first: dict[str, str] = {}
    for symbol in symbols:
        first.setdefault(symbol.casefold(), symbol)
    return list(first.values())
