"""Which market of an exchange a symbol means: see `tradingbot.core.symbols` for what is understood."""

from collections.abc import Iterable, Mapping
from typing import Any

from tradingbot.core.symbols import market_of
from tradingbot.exchanges.base import UnknownSymbolError
from tradingbot.exchanges.models import Market

# None: more than one market is meant.
Markets = Mapping[str, dict[str, Any] | None]
_PERPETUAL = ".P"


def index(markets: Iterable[dict[str, Any]], market: Market) -> dict[str, dict[str, Any] | None]:
    """Return ccxt's markets by what `market_of` makes of their names.

    Those are the spot ones, or the contracts that are settled in the quote asset. A name without a date means
    the perpetual contract.
    """
    found: dict[str, dict[str, Any] | None] = {}
    for entry in markets:
        if not _is_wanted(entry, market):
            continue
        for name in {market_of(entry["id"]), market_of(entry["symbol"])}:
            other = found.setdefault(name, entry)
            if other is not None and other["id"] != entry["id"]:
                found[name] = None
    return found


def find(symbol: str, markets: Markets, exchange: str, market: Market) -> dict[str, Any]:
    """Return the market that a symbol means; `markets` is from `index`.

    Raises:
        UnknownSymbolError: it means none, or more than one.
    """
    name = symbol.strip().upper()
    place, colon, rest = name.partition(":")
    # ccxt's way: what follows the colon is the asset that a contract is settled in.
    settle = rest.partition("-")[0] if colon and "/" in place else None
    if colon and settle is None and place != exchange.upper():
        raise UnknownSymbolError(f"{symbol} is a symbol of {place}, and the account is at {exchange}")
    key = market_of(symbol)
    entry = markets.get(key)
    if entry is None:
        reason = f"{symbol} means more than one {market} market of {exchange}"
        raise UnknownSymbolError(reason if key in markets else f"{exchange} has no {market} market {symbol}")
    if name.endswith(_PERPETUAL) and not entry["swap"]:
        raise UnknownSymbolError(f"{symbol} is a perpetual contract, and {entry['symbol']} is not")
    if settle is not None and settle != entry["settle"]:
        raise UnknownSymbolError(f"{symbol} is a contract that is settled in {settle}: {market} has none")
    return entry


def _is_wanted(entry: dict[str, Any], market: Market) -> bool:
    if market == Market.SPOT:
        return bool(entry["spot"])
    return bool(entry["linear"] and (entry["swap"] or entry["future"]))
