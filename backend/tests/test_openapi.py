"""Every operation of the OpenAPI document: whether the input is as documented or not, the answer is."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import asyncpg
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as configured
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction, load_all_checks
from schemathesis.core.failures import Failure
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.conftest import Account, make_account
from tests.serving import serving
from tests.signed_in import sign_in
from tests.stub_exchange import stub_process
from tradingbot.app import create_app
from tradingbot.core.settings import Settings

EXAMPLES = {GenerationMode.POSITIVE: 12, GenerationMode.NEGATIVE: 8}
CHECKS: list[CheckFunction] = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EMAIL = "trader@mail.test"


class Actor(NamedTuple):
    """Who sends, and what is theirs: values for parameters in paths, by name."""

    headers: dict[str, str]
    own: dict[str, str]


@pytest.fixture
def settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings that lead to the stub of an exchange."""
    with stub_process() as exchange:
        monkeypatch.setenv("EXCHANGE_BASE_URL", exchange.url)
        yield Settings()


@pytest.fixture
def trader(settings: Settings) -> Account:
    made: Account = asyncio.run(make_account(settings, EMAIL))
    return made


async def rows_of(settings: Settings, account: Account) -> dict[str, str]:
    """Makes one row of each kind, and gives their ids by the names that paths have for them."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    statements = {
        "account_id": "INSERT INTO exchange_accounts (user_id, name, exchange, mode)"
        " SELECT id, 'openapi', 'paper', 'paper' FROM users RETURNING id",
        "strategy_id": "SELECT id FROM strategies",
        "signal_id": "INSERT INTO signals"
        " (user_id, strategy_id, dedup_key, symbol, action, received_at, payload)"
        " SELECT user_id, id, 'id:openapi', 'BTCUSDT', 'buy', now(), '{}' FROM strategies RETURNING id",
        "order_id": "INSERT INTO orders"
        " (user_id, strategy_id, exchange_account_id, signal_id, client_order_id, symbol, side, quantity)"
        " SELECT signals.user_id, strategy_id, exchange_accounts.id, signals.id, 'tbx', symbol, 'buy', 1"
        " FROM signals, exchange_accounts LIMIT 1 RETURNING id",
        "position_id": "INSERT INTO positions (user_id, strategy_id, symbol, quantity, average_price)"
        " SELECT user_id, strategy_id, symbol, 1, 2 FROM orders RETURNING id",
    }
    own = {name: str(await connection.fetchval(statement)) for name, statement in statements.items()}
    await connection.close()
    return own | {"token": account.token}


# Not measured: what is covered here is covered elsewhere, and measuring takes as long as the test.
@pytest.mark.no_cover
@pytest.mark.parametrize("credentials", ["session", "api-key"])
def test_answers_are_as_documented(settings: Settings, trader: Account, credentials: str) -> None:
    load_all_checks()
    own = asyncio.run(rows_of(settings, trader))
    failures: dict[str, str] = {}
    statuses: Counter[int] = Counter()
    with serving(create_app(settings)) as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        found: list[Any] = list(schema.get_all_operations())
        operations = [one.ok() for one in found]
        assert len(operations) > 40
        for operation in operations:
            headers = trader.headers
            if credentials == "session":
                headers = asyncio.run(sign_in(settings, EMAIL, is_admin=True))
            for mode, examples in EXAMPLES.items():
                try:
                    _try(operation, mode, examples, Actor(headers, own), statuses)
                except (Failure, BaseExceptionGroup) as error:
                    failures[f"{operation.label} ({mode.value})"] = str(error)
    assert not failures, "\n\n".join(f"{name}: {text}" for name, text in failures.items())
    assert statuses[200] > 100
    assert statuses[422] > 100
    assert statuses[503] == 0


def _try(operation: Any, mode: GenerationMode, examples: int, actor: Actor, statuses: Counter[int]) -> None:
    @given(operation.as_strategy(generation_mode=mode))
    @configured(
        max_examples=examples,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        # A header that is none never reaches the application.
        case.headers.clear()
        if mode is GenerationMode.POSITIVE:
            for name in case.path_parameters or {}:
                case.path_parameters[name] = actor.own.get(name, case.path_parameters[name])
        response = case.call(headers=actor.headers)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    with contextlib.suppress(Unsatisfiable):  # there is no wrong input to an operation without any
        check()
