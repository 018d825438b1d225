"""One market has many spellings: `BTCUSDT`, `btcusdt`, `BINANCE:BTCUSDT`, `BTC/USDT`, `BTC-USDT` …

Symbols are stored as their sender wrote them, and compared by the market that they mean. That is the name
without

- the exchange before it, as TradingView writes it (`BINANCE:BTCUSDT`): a strategy trades on one account,
- the mark of a perpetual contract (`BTCUSDT.P`), and the asset that ccxt says it is settled in
  (`BTC/USDT:USDT`): an account trades either spot or contracts,
- separators, and the case of its letters.

The date of a contract that has one stays (`BTC/USDT:USDT-260327` is `BTCUSDT260327`). Whether an account's
exchange has such a market is asked when a signal is decided: see `tradingbot.exchanges.symbols`.

PostgreSQL has the same function, of the same name, for what is stored (revision 0007).
"""

import re
from typing import Any

from pydantic import BaseModel, computed_field
from sqlalchemy import ColumnElement, String, func

_EXCHANGE = re.compile(r"^[^/:]*:")
_NO_PART = re.compile(r":[^-]*|\.P\Z|[/_ -]")
# As PostgreSQL's translate() does it: without the rules of any language.
_UPPER = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def market_of(symbol: str) -> str:
    """Return the market that a symbol means; never an empty text unless the symbol is one."""
    name = symbol.strip(" ").translate(_UPPER)
    return _NO_PART.sub("", _EXCHANGE.sub("", name)) or name


def market_in(column: Any) -> ColumnElement[str]:
    """Return the market that a column's symbol means, as PostgreSQL tells it."""
    return func.market_of(column, type_=String)


def in_market(column: Any, symbol: str) -> ColumnElement[bool]:
    """Return the condition that a column's symbol means the same market as `symbol`."""
    return market_in(column) == market_of(symbol)


class InMarket(BaseModel):
    """What has a symbol, shown with the `market` that it means."""

    symbol: str

    @computed_field
    def market(self) -> str:
        """The market: the same for all spellings of its symbol."""
        return market_of(self.symbol)
