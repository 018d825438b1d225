"""Rotation of ENCRYPTION_KEY: everything moves to the new key, once, and nothing is lost on the way."""

import asyncio
import json
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.conftest import ENCRYPTION_KEY
from tests.forked import run
from tests.test_crypto import OLD_KEY
from tradingbot.core.crypto import EnvelopeError, Envelopes
from tradingbot.core.database import Database
from tradingbot.core.settings import Settings
from tradingbot.exchanges import repository, rotation
from tradingbot.exchanges.credentials import Credentials, credentials_of, seal_credentials
from tradingbot.exchanges.models import ExchangeAccount, Market, Mode
from tradingbot.users import service as users

ACCOUNTS = 2 * rotation.BATCH + 30
OLD, NEW = Envelopes(OLD_KEY), Envelopes(ENCRYPTION_KEY)
BOTH = Envelopes(ENCRYPTION_KEY, OLD_KEY)
# Each account has a key and a secret, every tenth a passphrase too.
ENVELOPES = 2 * ACCOUNTS + ACCOUNTS // 10


class StopError(Exception):
    """Stands for whatever ends a run."""


def credentials(number: int) -> Credentials:
    passphrase = f"passphrase-{number}" if number % 10 == 0 else None
    return Credentials(f"key-{number}", f"secret-{number}", passphrase)


@pytest.fixture
async def accounts(settings: Settings) -> dict[UUID, int]:
    """Accounts under the old key, and a paper one."""
    numbers = {uuid4(): number for number in range(ACCOUNTS)}
    database = Database(settings)
    async with database.transaction() as session:
        user = await users.get_or_create(session, "trader@mail.test")
        common = {"user_id": user.id, "market": Market.SPOT}
        for identifier, number in numbers.items():
            account = ExchangeAccount(
                id=identifier, name=f"a{number}", exchange="binance", mode=Mode.TESTNET, **common
            )
            seal_credentials(account, credentials(number), OLD)
            session.add(account)
        session.add(ExchangeAccount(name="paper", exchange="paper", mode=Mode.PAPER, **common))
    await database.close()
    return numbers


async def stored(settings: Settings) -> list[ExchangeAccount]:
    database = Database(settings)
    async with database.transaction() as session:
        rows = await repository.with_credentials(session, UUID(int=0), 2 * ACCOUNTS, lock=False)
    await database.close()
    return list(rows)


async def all_open(settings: Settings, accounts: dict[UUID, int], envelopes: Envelopes) -> None:
    rows = await stored(settings)
    assert {row.id for row in rows} == accounts.keys()
    for row in rows:
        assert credentials_of(row, envelopes) == credentials(accounts[row.id])


def counts(*arguments: str, code: int = 0, **variables: str) -> dict[str, int]:
    done = run("encryption-key", *arguments, "--json", **variables)
    assert done.returncode == code, done.stderr
    for secret in ("secret-", "key-", "passphrase-", OLD_KEY, ENCRYPTION_KEY):
        assert secret not in done.stdout + done.stderr
    return {name: count for name, count in json.loads(done.stdout).items() if count}


async def test_everything_moves_to_the_new_key(settings: Settings, accounts: dict[UUID, int]) -> None:
    assert counts("status", ENCRYPTION_KEY_OLD=OLD_KEY) == {"old": ENVELOPES}
    assert counts("re-encrypt", "--dry-run", ENCRYPTION_KEY_OLD=OLD_KEY) == {"old": ENVELOPES}
    await all_open(settings, accounts, OLD)
    assert counts("re-encrypt", ENCRYPTION_KEY_OLD=OLD_KEY) == {"re_encrypted": ENVELOPES}
    await all_open(settings, accounts, NEW)
    with pytest.raises(EnvelopeError):
        credentials_of((await stored(settings))[0], OLD)
    # The old key is gone, and nothing is left to do.
    before = {row.key_envelope for row in await stored(settings)}
    assert counts("re-encrypt") == {"current": ENVELOPES}
    assert {row.key_envelope for row in await stored(settings)} == before


async def test_an_interrupted_run_goes_on_where_it_was(settings: Settings, accounts: dict[UUID, int]) -> None:
    database = Database(settings)

    def interrupt(seen: int) -> None:
        if seen > rotation.BATCH:
            raise StopError

    with pytest.raises(StopError):
        await rotation.re_encrypt(database, BOTH, interrupt)
    await database.close()
    await all_open(settings, accounts, BOTH)
    rest = counts("re-encrypt", ENCRYPTION_KEY_OLD=OLD_KEY)
    assert 0 < rest["current"] < ENVELOPES
    assert rest["current"] + rest["re_encrypted"] == ENVELOPES
    await all_open(settings, accounts, NEW)


async def test_two_runs_at_once(settings: Settings, accounts: dict[UUID, int]) -> None:
    database = Database(settings)
    both = [rotation.re_encrypt(database, BOTH, lambda _seen: None) for _ in range(2)]
    first, second = await asyncio.gather(*both)
    await database.close()
    assert first.re_encrypted + second.re_encrypted == ENVELOPES
    await all_open(settings, accounts, NEW)


async def test_what_does_not_open_is_counted_and_left_as_it_is(
    settings: Settings, accounts: dict[UUID, int], database_url: str
) -> None:
    assert counts("status", code=1) == {"unreadable": ENVELOPES}
    assert counts("re-encrypt", code=1) == {"unreadable": ENVELOPES}
    await all_open(settings, accounts, OLD)
    # One envelope in the place of another.
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE exchange_accounts SET secret_envelope = key_envelope WHERE name = 'a7'")
    await connection.close()
    done = run("encryption-key", "re-encrypt", ENCRYPTION_KEY_OLD=OLD_KEY)
    assert done.returncode == 1
    assert [line.split(maxsplit=1) for line in done.stdout.splitlines()] == [
        ["0", "under ENCRYPTION_KEY"],
        ["0", "under ENCRYPTION_KEY_OLD"],
        [str(ENVELOPES - 1), "re-encrypted now"],
        ["1", "unreadable: under another key, or damaged"],
    ]
    assert f"{ACCOUNTS} accounts" in done.stderr


def test_nothing_to_do(environment: dict[str, str]) -> None:
    assert counts("status") == {}
    assert "Nothing needs ENCRYPTION_KEY_OLD" in run("encryption-key", "re-encrypt").stderr
