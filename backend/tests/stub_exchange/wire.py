"""How Binance writes things: https://developers.binance.com/docs/binance-spot-api-docs/rest-api and
https://developers.binance.com/docs/derivatives/usds-margined-futures."""

from decimal import Decimal
from typing import Any

from tests.stub_exchange.book import FUTURE, OPEN, SPOT, Account, Book, Booked, Execution, Symbol

Json = dict[str, Any]


def text(value: Decimal) -> str:
    """Writes a decimal as Binance does: eight digits at least behind the point, no exponent."""
    written = f"{value:f}"
    whole, _, digits = written.partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(8, '0')}"


def exchange_info(book: Book, market: str) -> Json:
    """Answer of GET exchangeInfo."""
    describe = _spot_symbol if market == SPOT else _future_symbol
    return {
        "timezone": "UTC",
        "serverTime": book.now(),
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}
        ],
        "exchangeFilters": [],
        "symbols": [describe(symbol) for symbol in book.symbols if symbol.market == market],
    }


def _filters(symbol: Symbol) -> list[Json]:
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": text(symbol.tick),
            "maxPrice": "1000000.00000000",
            "tickSize": text(symbol.tick),
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": text(symbol.minimum),
            "maxQty": text(symbol.maximum),
            "stepSize": text(symbol.step),
        },
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": "0.00000000" if symbol.market == SPOT else text(symbol.minimum),
            "maxQty": text(symbol.market_maximum),
            "stepSize": text(symbol.market_step),
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
    ]


def _spot_symbol(symbol: Symbol) -> Json:
    notional = {
        "filterType": "NOTIONAL",
        "minNotional": text(symbol.min_notional),
        "applyMinToMarket": True,
        "maxNotional": "9000000.00000000",
        "applyMaxToMarket": False,
        "avgPriceMins": 5,
    }
    return {
        "symbol": symbol.id,
        "status": symbol.status,
        "baseAsset": symbol.base,
        "baseAssetPrecision": 8,
        "quoteAsset": symbol.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [*_filters(symbol), notional],
        "permissions": [],
        "permissionSets": [["SPOT"]],
    }


def _future_symbol(symbol: Symbol) -> Json:
    return {
        "symbol": symbol.id,
        "pair": f"{symbol.base}{symbol.quote}",
        "contractType": symbol.contract,
        "deliveryDate": symbol.delivery,
        "onboardDate": 1569398400000,
        "status": symbol.status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": symbol.base,
        "quoteAsset": symbol.quote,
        "marginAsset": symbol.quote,
        "pricePrecision": 2,
        "quantityPrecision": 3,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "filters": [
            *_filters(symbol),
            {"filterType": "MIN_NOTIONAL", "notional": f"{symbol.min_notional:f}"},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }


def order(booked: Booked, *, with_fills: bool = False) -> Json:
    """An order as POST (RESULT or FULL), GET and DELETE answer it."""
    return _spot_order(booked, with_fills) if booked.symbol.market == SPOT else _future_order(booked)


def _spot_order(booked: Booked, with_fills: bool) -> Json:
    answer: Json = {
        "symbol": booked.symbol.id,
        "orderId": booked.id,
        "orderListId": -1,
        "clientOrderId": booked.client_order_id,
        "price": text(booked.price),
        "origQty": text(booked.quantity),
        "executedQty": text(booked.executed),
        "origQuoteOrderQty": "0.00000000",
        "cummulativeQuoteQty": text(booked.cost),
        "status": booked.status,
        "timeInForce": "GTC",
        "type": booked.type,
        "side": booked.side,
        "workingTime": booked.time,
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }
    if not with_fills:
        return answer | {"time": booked.time, "updateTime": booked.time, "isWorking": True}
    fills = [
        {
            "price": text(trade.price),
            "qty": text(trade.quantity),
            "commission": text(trade.commission),
            "commissionAsset": trade.commission_asset,
            "tradeId": trade.id,
        }
        for trade in booked.executions
    ]
    at = booked.executions[-1].time if booked.executions else booked.time
    return answer | {"transactTime": at, "fills": fills}


def _future_order(booked: Booked) -> Json:
    average = booked.cost / booked.executed if booked.executed else Decimal(0)
    return {
        "orderId": booked.id,
        "symbol": booked.symbol.id,
        "status": booked.status,
        "clientOrderId": booked.client_order_id,
        "price": f"{booked.price:f}",
        "avgPrice": f"{average:.5f}",
        "origQty": f"{booked.quantity:f}",
        "executedQty": f"{booked.executed:f}",
        "cumQty": f"{booked.executed:f}",
        "cumQuote": f"{booked.cost:.5f}",
        "timeInForce": "GTC",
        "type": booked.type,
        "reduceOnly": booked.reduce_only,
        "closePosition": False,
        "side": booked.side,
        "positionSide": "BOTH",
        "stopPrice": "0",
        "workingType": "CONTRACT_PRICE",
        "priceProtect": False,
        "origType": booked.type,
        "selfTradePreventionMode": "EXPIRE_MAKER",
        "time": booked.time,
        "updateTime": booked.time,
    }


def trade(booked: Booked, execution: Execution) -> Json:
    """A trade as myTrades and userTrades list it."""
    common: Json = {
        "symbol": booked.symbol.id,
        "id": execution.id,
        "orderId": booked.id,
        "price": text(execution.price),
        "qty": text(execution.quantity),
        "quoteQty": text(execution.quantity * execution.price),
        "commission": text(execution.commission),
        "commissionAsset": execution.commission_asset,
        "time": execution.time,
    }
    buyer = booked.side == "BUY"
    if booked.symbol.market == SPOT:
        return common | {"orderListId": -1, "isBuyer": buyer, "isMaker": False, "isBestMatch": True}
    return common | {
        "side": booked.side,
        "buyer": buyer,
        "maker": False,
        "positionSide": "BOTH",
        "realizedPnl": text(execution.realised),
    }


def spot_account(book: Book, account: Account) -> Json:
    """Answer of GET /api/v3/account."""
    return {
        "makerCommission": 10,
        "takerCommission": 10,
        "canTrade": account.may_trade,
        "canWithdraw": True,
        "canDeposit": True,
        "updateTime": book.now(),
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": text(amount), "locked": "0.00000000"}
            for asset, amount in account.balances.items()
        ],
        "permissions": ["SPOT"],
    }


def future_account(book: Book, account: Account) -> Json:
    """Answer of GET /fapi/v3/account."""
    profit = sum((_profit(book, account, name) for name in account.positions), Decimal(0))
    asset = {
        "asset": "USDT",
        "walletBalance": text(account.wallet),
        "unrealizedProfit": text(profit),
        "marginBalance": text(account.wallet + profit),
        "maintMargin": "0.00000000",
        "initialMargin": "0.00000000",
        "availableBalance": text(account.wallet),
        "maxWithdrawAmount": text(account.wallet),
        "updateTime": book.now(),
    }
    return {
        "totalInitialMargin": "0.00000000",
        "totalMaintMargin": "0.00000000",
        "totalWalletBalance": text(account.wallet),
        "totalUnrealizedProfit": text(profit),
        "totalMarginBalance": text(account.wallet + profit),
        "availableBalance": text(account.wallet),
        "maxWithdrawAmount": text(account.wallet),
        "assets": [asset],
        "positions": position_risk(book, account, None),
    }


def position_risk(book: Book, account: Account, name: str | None) -> list[Json]:
    """Answer of GET /fapi/v3/positionRisk: like Binance's third version, only symbols with a position."""
    return [
        {
            "symbol": symbol,
            "positionSide": "BOTH",
            "positionAmt": f"{amount:f}",
            "entryPrice": text(account.entry_prices[symbol]),
            "breakEvenPrice": text(account.entry_prices[symbol]),
            "markPrice": text(book.prices[symbol]),
            "unRealizedProfit": text(_profit(book, account, symbol)),
            "liquidationPrice": "0",
            "isolatedMargin": "0",
            "notional": text(amount * book.prices[symbol]),
            "marginAsset": "USDT",
            "updateTime": book.now(),
        }
        for symbol, amount in account.positions.items()
        if amount and name in (None, symbol)
    ]


def _profit(book: Book, account: Account, name: str) -> Decimal:
    return account.positions[name] * (book.prices[name] - account.entry_prices[name])


def ticker(book: Book, symbol: Symbol) -> Json:
    """Answer of GET ticker/24hr for one symbol."""
    price = text(book.prices[symbol.id])
    answer = {
        "symbol": symbol.id,
        "priceChange": "0",
        "priceChangePercent": "0",
        "weightedAvgPrice": price,
        "lastPrice": price,
        "lastQty": "1",
        "openPrice": price,
        "highPrice": price,
        "lowPrice": price,
        "volume": "1000",
        "quoteVolume": "1000",
        "openTime": book.now() - 86_400_000,
        "closeTime": book.now(),
        "firstId": 1,
        "lastId": 2,
        "count": 2,
    }
    if symbol.market == FUTURE:
        return answer
    return answer | {
        "prevClosePrice": price,
        "bidPrice": price,
        "bidQty": "1",
        "askPrice": price,
        "askQty": "1",
    }


def restrictions(account: Account) -> Json:
    """Answer of GET /sapi/v1/account/apiRestrictions."""
    return {
        "ipRestrict": False,
        "createTime": 1698645219000,
        "enableReading": True,
        "enableWithdrawals": account.may_withdraw,
        "enableInternalTransfer": False,
        "enableMargin": False,
        "enableFutures": account.may_trade,
        "permitsUniversalTransfer": False,
        "enableVanillaOptions": False,
        "enableFixApiTrade": False,
        "enableFixReadOnly": False,
        "enableSpotAndMarginTrading": account.may_trade,
        "enablePortfolioMarginTrading": False,
    }


def summary(booked: Booked) -> Json:
    """An order as the control endpoints list it."""
    return {
        "id": booked.id,
        "client_order_id": booked.client_order_id,
        "market": booked.symbol.market,
        "symbol": booked.symbol.id,
        "side": booked.side,
        "quantity": f"{booked.quantity:f}",
        "executed": f"{booked.executed:f}",
        "status": booked.status,
        "open": booked.status in OPEN,
        "reduce_only": booked.reduce_only,
    }
