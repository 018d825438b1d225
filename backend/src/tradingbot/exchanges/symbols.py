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
    wanted = [entry for entry in markets if _is_wanted(entry, market)]
    found: dict[str, dict[str, Any] | None] = {}
    # The exchange's own names first: no new market takes the name of one that is traded.
    for part in ("id", "symbol"):
        named: dict[str, dict[str, Any] | None] = {}
        for entry in wanted:
            name = market_of(entry[part])
            named[name] = None if name in named else entry
        found = named | found
    return found


def find(symbol: str, markets: Markets, exchange: str, market: Market) -> dict[str, Any]:
    """Return the market that a symbol means; `markets` is from `index`.

    Raises:
        UnknownSymbolError: it means none, or more than one.
    """
    name = symbol.strip().upper()
    place, colon, rest = name.partition(":")
    if colon and "/" not in place:
        if place != exchange.upper():
            raise UnknownSymbolError(f"{symbol} is a symbol of {place}, and the account is at {exchange}")
        name = rest
    # ccxt's way: what follows the colon is the asset that a contract is settled in.
    settle = name.partition(":")[2].partition("-")[0] or None
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
