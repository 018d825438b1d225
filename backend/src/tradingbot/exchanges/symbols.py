"""Symbols as senders of alerts write them, and the markets of an exchange that they mean.

TradingView writes `BINANCE:BTCUSDT`, and `BINANCE:BTCUSDT.P` for a perpetual contract; ccxt writes `BTC/USDT`
and `BTC/USDT:USDT`. All of these are understood, with or without the exchange's name before them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tradingbot.exchanges.base import RejectedError
from tradingbot.exchanges.models import Market

Markets = Mapping[str, dict[str, Any]]
_PERPETUAL = ".P"


class UnknownSymbolError(RejectedError):
    """The account's exchange has no such market."""


def index(markets: Iterable[dict[str, Any]], market: Market) -> dict[str, dict[str, Any]]:
    """Gives what each name means among ccxt's markets.

    Those are the spot ones, or the contracts that are settled in the quote asset. A name without a date means
    the perpetual contract.
    """
    names: dict[str, dict[str, Any]] = {}
    wanted = [entry for entry in markets if _is_wanted(entry, market)]
    for entry in wanted:
        names[entry["id"].upper()] = names[entry["symbol"].upper()] = entry
    for entry in wanted:
        if entry["spot"] or entry["swap"]:
            for separator in ("", "/", "-", "_"):
                names.setdefault(f"{entry['base']}{separator}{entry['quote']}".upper(), entry)
    return names


def find(symbol: str, markets: Markets, exchange: str, market: Market) -> dict[str, Any]:
    """Gives the market that a symbol means; `markets` is from `index`.

    Raises:
        UnknownSymbolError: it means none.
    """
    name = _without_exchange(symbol.strip().upper(), exchange)
    if name.endswith(_PERPETUAL):
        if market != Market.FUTURE:
            raise UnknownSymbolError(f"{symbol} is a perpetual contract, and the account trades {market}")
        name = name.removesuffix(_PERPETUAL)
        entry = markets.get(name)
        if entry is not None and not entry["swap"]:
            entry = None
    else:
        entry = markets.get(name)
    if entry is None:
        raise UnknownSymbolError(f"{exchange} has no {market} market {symbol}")
    return entry


def _is_wanted(entry: dict[str, Any], market: Market) -> bool:
    if market == Market.SPOT:
        return bool(entry["spot"])
    return bool(entry["linear"] and (entry["swap"] or entry["future"]))


def _without_exchange(name: str, exchange: str) -> str:
    place, colon, rest = name.partition(":")
    if not colon or "/" in place:
        return name
    if place != exchange.upper():
        raise UnknownSymbolError(f"{name} is a symbol of {place}, and the account is at {exchange}")
    return rest
