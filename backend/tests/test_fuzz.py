"""Bodies that nobody would send on purpose: never a 500."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Account, client_of, make_account
from tradingbot.app import create_app
from tradingbot.core.errors import UnprocessableError
from tradingbot.core.settings import Settings
from tradingbot.webhooks.parsing import parse_alert

FIELDS = [
    "symbol",
    "ticker",
    "action",
    "market_position",
    "position_size",
    "quantity",
    "price",
    "id",
    "order_id",
]
FIELDS += ["timenow", "comment", "secret", "other"]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.datetimes().map(str)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)
likely = st.sampled_from(
    ["buy", "SELL", "close", "long", "flat", "A", "1e5", "-0", "1e-30", "0001-01-01T00:00:00+14:00"]
)
alerts = st.dictionaries(st.sampled_from(FIELDS), values | likely)
valid = st.fixed_dictionaries({"symbol": st.text(min_size=1, max_size=64), "action": st.just("buy")})
bodies = st.binary() | alerts.map(lambda value: json.dumps(value).encode())
bodies |= st.tuples(valid, alerts).map(lambda pair: json.dumps(pair[1] | pair[0]).encode())


@given(bodies)
@settings(max_examples=1000, deadline=None)
def test_parsing_accepts_or_refuses(body: bytes) -> None:
    try:
        parsed = parse_alert(body)
    except UnprocessableError:
        return
    assert "secret" not in parsed.payload
    json.dumps(parsed.payload, default=str).encode()


@pytest.fixture
def account_and_settings(settings: Settings) -> tuple[Account, Settings]:
    return asyncio.run(make_account(settings, "fuzz@mail.test")), settings


def test_intake_never_fails(account_and_settings: tuple[Account, Settings]) -> None:
    account, configuration = account_and_settings
    allowed = {200, 202, 403, 413, 422}
    with asyncio.Runner() as runner:
        app = create_app(configuration)
        lifespan = app.router.lifespan_context(app)
        runner.run(_enter(lifespan))
        client = client_of(app)

        @given(bodies)
        @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        def post(body: bytes) -> None:
            answer = runner.run(_post(client, account.webhook, body))
            assert answer in allowed

        post()
        runner.run(_leave(lifespan))


async def _enter(manager: Any) -> None:
    await manager.__aenter__()


async def _leave(manager: Any) -> None:
    await manager.__aexit__(None, None, None)


async def _post(client: Any, path: str, body: bytes) -> int:
    return int((await client.post(path, content=body)).status_code)
