"""What an alert asks for is done or refused by name; a label never costs the trade."""

from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.conftest import Account
from tests.test_webhooks import assert_problem, signals_of
from tradingbot.core import strict_json
from tradingbot.core.errors import UnprocessableError
from tradingbot.webhooks.deduplication import dedup_key
from tradingbot.webhooks.parsing import ParsedAlert, parse_alert

D = Decimal
BUY: dict[str, Any] = {"symbol": "BTCUSDT", "action": "buy", "quantity": "0.5"}
EXITS: list[dict[str, Any]] = [
    {"symbol": "BTCUSDT", "action": "close"},
    {"symbol": "BTCUSDT", "market_position": "flat"},
    {"symbol": "BTCUSDT", "action": "sell", "market_position": "flat", "quantity": 1},
    {"symbol": "BTCUSDT", "action": "sell", "quantity": 1, "reduce_only": True},
]


def parsed(alert: dict[str, Any]) -> ParsedAlert:
    return parse_alert(strict_json.dumps(alert).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "limit"),
        ("type", "Stop Limit"),
        ("type", "TAKE_PROFIT_MARKET"),
        ("order_type", "limit"),
        ("orderType", "anything"),
        ("order-type", 7),
        ("limitPrice", 50000),
        ("stop_price", "49000"),
        ("stopLoss", "1%"),
        ("stop_loss", {"price": 49000}),
        ("sl", 49000),
        ("takeProfit", [1, 2]),
        ("TP", "51000"),
        ("trailing_stop", True),
        ("leverage", 10),
        ("leverage", "10x"),
        ("marginMode", "isolated"),
        ("stopLoss", "sNaN"),
        ("takeProfit", "Infinity"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(UnprocessableError) as refused:
        parsed(BUY | {field: value})
    (error,) = refused.value.extensions["errors"]
    assert error["field"] == field
    assert str(value) not in error["message"]
    for alert in EXITS:
        done = parsed(alert | {field: value})
        assert [note.split(":")[0] for note in done.notes] == [field]


def test_an_answer_names_twenty_fields_at_most() -> None:
    spellings = {f"s{'_' * number}l": 5 for number in range(3000)}
    with pytest.raises(UnprocessableError) as refused:
        parsed(BUY | spellings)
    assert len(refused.value.extensions["errors"]) == 20
    assert len(parsed(EXITS[0] | {"s" + "_" * 9000 + "l": 5}).notes[0]) < 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "market"),
        ("type", "Market"),
        ("type", "entry"),
        ("type", {"limit": 1}),
        ("orderType", "MARKET"),
        ("stopLoss", None),
        ("stopLoss", 0),
        ("stopLoss", "0.00"),
        ("takeProfit", ""),
        ("takeProfit", "NaN"),
        ("takeProfit", "na"),
        ("trailingStop", False),
        ("trailingStop", "false"),
        ("leverage", 1),
        ("leverage", "1"),
        ("message", "limit"),
        ("tps", 3),
    ],
)
def test_what_says_nothing_of_the_kind_is_taken(field: str, value: Any) -> None:
    assert parsed(BUY | {field: value}).notes == ()


@pytest.mark.parametrize(
    ("fields", "quantity"),
    [
        ({"quantity": None, "contracts": "0.001"}, "0.001"),
        ({"qty": None, "contracts": 2}, "2"),
        ({"qty": "3", "contracts": None}, "3"),
        ({"quantity": " +1.5e1 "}, "15"),
        ({"quantity": ".5"}, "0.5"),
        ({"quantity": None}, None),
    ],
)
def test_the_first_name_that_is_not_null_counts(fields: dict[str, Any], quantity: str | None) -> None:
    alert = {"symbol": None, "ticker": "BTCUSDT", "action": "buy"} | fields
    read = parsed(alert).alert
    assert (read.symbol, read.quantity) == ("BTCUSDT", None if quantity is None else D(quantity))
    assert parsed(alert).payload == strict_json.parse(strict_json.dumps(alert).encode())


def test_who_says_two_things_is_told_which_counts() -> None:
    read = parsed(BUY | {"qty": 1, "contracts": "0.5"})
    assert read.alert.quantity == D("0.5")
    assert read.notes == ("qty: quantity is taken",)


@pytest.mark.parametrize(
    ("label", "stored", "note"),
    [
        ("", None, "left out"),
        ("  ", None, "left out"),
        (True, None, "left out"),
        ([1], None, "left out"),
        ({}, None, "left out"),
        (5, "5", None),
        (Decimal("1.50"), "1.50", None),
        (" Long ", "Long", None),
        (None, None, None),
    ],
)
async def test_a_label_never_costs_the_trade(
    client: httpx.AsyncClient, account: Account, label: Any, stored: str | None, note: str | None
) -> None:
    for field in ("order_id", "comment", "id"):
        body = strict_json.dumps(BUY | {"price": 1, "other": field}).removesuffix("}")
        text = str(label) if isinstance(label, Decimal) else strict_json.dumps(label)
        answer = await client.post(account.webhook, content=f'{body},"{field}":{text}}}')
        assert answer.status_code == 202, answer.text
        notes = answer.json().get("notes", [])
        assert [found.split(":")[0] for found in notes] == ([field] if note else [])
        assert all(note in found for found in notes if note)
    shown = await signals_of(client, account)
    assert [signal["comment"] for signal in shown] == [None, stored, None]
    assert [signal["order_id"] for signal in shown] == [None, None, stored]


async def test_what_is_too_long_is_cut_and_still_tells_alerts_apart(
    client: httpx.AsyncClient, account: Account
) -> None:
    long = {"order_id": "x" * 200, "comment": "y" * 2000, "id": None}
    for end in "ab":
        answer = await client.post(account.webhook, json=BUY | long | {"order_id": "x" * 200 + end})
        assert answer.status_code == 202
        assert answer.json()["notes"] == [
            "order_id: cut to 128 characters",
            "comment: cut to 1000 characters",
        ]
    shown = await signals_of(client, account)
    assert [(signal["order_id"], signal["comment"]) for signal in shown] == [("x" * 128, "y" * 1000)] * 2
    ids = {
        (await client.post(account.webhook, json=BUY | {"id": "z" * 300 + end})).json()["id"] for end in "ab"
    }
    assert len(ids) == 2


def test_an_order_and_its_time_tell_alerts_apart_by_all_of_the_label() -> None:
    orders = [BUY | {"order_id": "x" * 200 + end, "timenow": "2026-01-05T12:00:00Z"} for end in "ab"]
    first, second = (dedup_key(read.alert, read.payload) for read in map(parsed, orders))
    assert first != second
    assert first.startswith("order:")


async def test_the_sender_is_told_in_the_answer(client: httpx.AsyncClient, account: Account) -> None:
    body = assert_problem(await client.post(account.webhook, json=BUY | {"stopLoss": 5}), 422)
    (error,) = body["errors"]
    assert error["field"] == "stopLoss"
    assert "send an alert that closes" in error["message"]
    assert await signals_of(client, account) == []
    answer = await client.post(account.webhook, json=EXITS[0] | {"stopLoss": 5})
    assert answer.status_code == 202
    assert answer.json()["notes"] == [f"stopLoss: {error['message']}"]
    plain = await client.post(account.webhook, json=BUY)
    assert set(plain.json()) == {"id", "status"}


async def test_reduce_only_is_stored_and_shown(client: httpx.AsyncClient, account: Account) -> None:
    for number, (field, value) in enumerate(
        (("reduce_only", True), ("reduceOnly", "true"), ("reduce_only", 0))
    ):
        alert = BUY | {"id": number, field: value}
        assert (await client.post(account.webhook, json=alert)).status_code == 202
    shown = await signals_of(client, account)
    assert [signal["reduce_only"] for signal in shown] == [False, True, True]
