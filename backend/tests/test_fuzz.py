"""Bodies that nobody would send on purpose: never a 500, and no secret in an answer or in the log."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import WEBHOOK_SECRET, Account, make_account
from tradingbot.app import create_app
from tradingbot.core.errors import UnprocessableError
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import hash_token
from tradingbot.webhooks.parsing import parse_alert

CORPUS = Path(__file__).with_name("corpus")
STRATEGY_SECRET = "Kp7Wd-only-for-this-strategy-Qz2Xv"
GENERATED = 400
GENERATED_AT_ONCE = 5
BROKEN = 10_000

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
FIELDS += ["timenow", "comment", "secret", "other", "qty", "reduceOnly", "type", "stopLoss", "leverage"]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.datetimes().map(str)
    | st.sampled_from([WEBHOOK_SECRET, STRATEGY_SECRET])
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


# Not measured: what is covered here is covered elsewhere, and measuring takes as long as the test.
@pytest.mark.no_cover
@given(bodies)
@settings(max_examples=1000)
def test_parsing_accepts_or_refuses(body: bytes) -> None:
    try:
        parsed = parse_alert(body)
    except UnprocessableError:
        return
    assert "secret" not in parsed.payload
    json.dumps(parsed.payload, default=str).encode()


class Sender:
    """Posts bodies to an application, and looks at every answer."""

    def __init__(self, app: FastAPI, account: Account) -> None:
        self._app = app
        self._path = account.webhook
        self._secrets = [secret.encode() for secret in (WEBHOOK_SECRET, STRATEGY_SECRET, account.token)]
        self.statuses: Counter[int] = Counter()

    async def send_all(self, all_of_them: Sequence[bytes]) -> None:
        """Posts them at once."""
        await asyncio.gather(*(self.send(body) for body in all_of_them))

    async def send(self, body: bytes) -> None:
        """Posts one; fails on a status that no sender should get, and on an answer that tells a secret."""
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return messages.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-length", str(len(body)).encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self._app(scope, receive, send)
        answer = b"".join(message.get("body", b"") for message in sent)
        status = sent[0]["status"]
        assert status in {200, 202, 403, 422}, (status, body)
        assert not any(secret in answer for secret in self._secrets), body
        self.statuses[status] += 1


def corpus() -> list[bytes]:
    """The files, with what differs from run to run put in."""
    replacements = {
        b"@NOW@": datetime.now(UTC).isoformat().encode(),
        b"@WEBHOOK_SECRET@": WEBHOOK_SECRET.encode(),
        b"@STRATEGY_SECRET@": STRATEGY_SECRET.encode(),
    }
    found = []
    for path in sorted(CORPUS.iterdir()):
        body = path.read_bytes()
        for name, value in replacements.items():
            body = body.replace(name, value)
        if path.suffix != ".md":
            found.append(body)
    return found


class Chance:
    """Numbers as if by chance, the same in every run."""

    def __init__(self) -> None:
        self._drawn = 0

    def below(self, limit: int) -> int:
        """A number from 0 to one less than `limit`."""
        self._drawn += 1
        return int.from_bytes(hashlib.sha256(str(self._drawn).encode()).digest()[:8], "big") % limit

    def of(self, some: Sequence[bytes]) -> bytes:
        """One of them."""
        return some[self.below(len(some))]


PIECES = [b'"', b"{", b"}", b"[", b",", b":", b"\\", b"\\u0000", b"\x00", b"\xff", b"-", b"1e999", b"null"]


def broken(originals: Sequence[bytes], count: int) -> Iterator[bytes]:
    """The originals cut, joined, with bytes changed, left out, and put in."""
    chance = Chance()
    for _ in range(count):
        body = bytearray(chance.of(originals))
        for _ in range(1 + chance.below(4)):
            place = chance.below(len(body) + 1)
            match chance.below(5):
                case 0:
                    del body[place : place + 1 + chance.below(8)]
                case 1:
                    body[place:place] = chance.of(PIECES)
                case 2:
                    body[place : place + 1] = bytes([chance.below(256)])
                case 3:
                    del body[place:]
                case _:
                    other = chance.of(originals)
                    body[place:] = other[chance.below(len(other) + 1) :]
        yield bytes(body)


@pytest.fixture
def account(settings: Settings) -> Account:
    made: Account = asyncio.run(make_account(settings, "fuzz@mail.test"))
    return made


@pytest.mark.no_cover
def test_ten_thousand_bodies(
    account: Account, settings: Settings, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with asyncio.Runner() as runner:
        runner.run(_set_secret(database_url, settings))
        app = create_app(settings)
        lifespan = app.router.lifespan_context(app)
        runner.run(_enter(lifespan))
        sender = Sender(app, account)
        originals = corpus()
        runner.run(sender.send_all(originals))
        remaining = list(broken(originals, BROKEN))
        for start in range(0, BROKEN, 100):
            runner.run(sender.send_all(remaining[start : start + 100]))

        @given(st.lists(bodies, min_size=GENERATED_AT_ONCE, max_size=GENERATED_AT_ONCE))
        @_configured
        def generated(some: list[bytes]) -> None:
            runner.run(sender.send_all(some))

        generated()
        runner.run(_leave(lifespan))
    assert sender.statuses[422] > 7000
    assert sender.statuses.total() > BROKEN
    assert set(sender.statuses) == {200, 202, 403, 422}
    log = capsys.readouterr().out
    # On a busy machine one may be slow, which is logged in other words.
    lines = log.count('"event":"request"') + log.count('"event":"slow request"')
    assert lines == sender.statuses.total()
    for secret in (WEBHOOK_SECRET, STRATEGY_SECRET, account.token):
        assert secret not in log


_configured = settings(
    max_examples=GENERATED,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


async def _set_secret(url: str, configuration: Settings) -> None:
    connection = await asyncpg.connect(url)
    key = configuration.secret_key.get_secret_value()
    await connection.execute("UPDATE strategies SET secret_hash = $1", hash_token(STRATEGY_SECRET, key))
    await connection.close()


async def _enter(manager: Any) -> None:
    await manager.__aenter__()


async def _leave(manager: Any) -> None:
    await manager.__aexit__(None, None, None)
