"""Exchange accounts: whose they are, what they may be used for, and their credentials."""

from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.crypto import Envelopes
from tradingbot.core.errors import UnprocessableError
from tradingbot.core.settings import TradingSettings
from tradingbot.exchanges import repository
from tradingbot.exchanges.models import ExchangeAccount, Mode

_HINT_LENGTH = 4
# Of a shorter key, four characters would tell too much.
_MIN_LENGTH_FOR_HINT = 16


class LiveForbiddenError(UnprocessableError):
    """The account trades real money, and BINANCE_TESTNET forbids that."""


class NoCredentialsError(UnprocessableError):
    """The account has no credentials: it is a paper account."""


class HasMode(Protocol):
    """What a mode can be read from."""

    @property
    def mode(self) -> str: ...


@dataclass(frozen=True)
class Credentials:
    """What an exchange knows us by; never shown."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    passphrase: str | None = field(default=None, repr=False)


def check_mode(account: HasMode, settings: TradingSettings) -> None:
    """Refuses real money while BINANCE_TESTNET is on: when an account is made, and again before each order.

    Raises:
        LiveForbiddenError: the account is a live one.
    """
    if settings.binance_testnet and account.mode == Mode.LIVE:
        raise LiveForbiddenError(
            "Live accounts are refused while BINANCE_TESTNET is on; BINANCE_TESTNET=false allows real money."
        )


def credentials_of(account: ExchangeAccount, envelopes: Envelopes) -> Credentials:
    """Opens the account's envelopes.

    Raises:
        NoCredentialsError: it has none.
        EnvelopeError: they do not open.
    """
    if account.key_envelope is None or account.secret_envelope is None:
        raise NoCredentialsError("The account has no credentials.")

    def opened(envelope: str, name: str) -> str:
        return envelopes.open(envelope, user_id=account.user_id, row_id=account.id, field=name)

    passphrase = account.passphrase_envelope
    return Credentials(
        key=opened(account.key_envelope, "key"),
        secret=opened(account.secret_envelope, "secret"),
        passphrase=None if passphrase is None else opened(passphrase, "passphrase"),
    )


def seal_credentials(account: ExchangeAccount, credentials: Credentials, envelopes: Envelopes) -> None:
    """Puts the credentials into the account, which has its id already: the envelopes are bound to it."""

    def sealed(text: str, name: str) -> str:
        return envelopes.seal(text, user_id=account.user_id, row_id=account.id, field=name)

    account.key_envelope = sealed(credentials.key, "key")
    account.secret_envelope = sealed(credentials.secret, "secret")
    passphrase = credentials.passphrase
    account.passphrase_envelope = None if passphrase is None else sealed(passphrase, "passphrase")
    long_enough = len(credentials.key) >= _MIN_LENGTH_FOR_HINT
    account.key_hint = credentials.key[-_HINT_LENGTH:] if long_enough else None


async def default_account(session: AsyncSession, user_id: UUID) -> ExchangeAccount:
    """Gives the user's default account, making it if there is none: a paper one.

    Strategies without an account trade on it.
    """
    for name in ("Paper", f"Paper {uuid4().hex[:8]}"):
        account = await repository.find_default(session, user_id)
        if account is not None:
            return account
        await repository.insert_default(session, user_id, name)
    account = await repository.find_default(session, user_id)
    if account is None:
        raise RuntimeError("the default account was made and cannot be seen")
    return account
