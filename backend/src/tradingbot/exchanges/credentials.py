"""What an exchange knows us by: sealed where it is stored, opened only to be used."""

from dataclasses import dataclass, field

from tradingbot.core.crypto import Envelopes
from tradingbot.core.errors import UnprocessableError
from tradingbot.exchanges.models import ExchangeAccount
from tradingbot.exchanges.schemas import AccountChanges, AccountIn

# Column of each envelope, and the name of its field in the associated data.
ENVELOPES = {"key_envelope": "key", "secret_envelope": "secret", "passphrase_envelope": "passphrase"}
_HINT_LENGTH = 4
# Of a shorter key, four characters would tell too much.
_MIN_LENGTH_FOR_HINT = 16


class NoCredentialsError(UnprocessableError):
    """The account has no credentials: it is a paper account."""


@dataclass(frozen=True)
class Credentials:
    """What an exchange knows us by; never shown."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    passphrase: str | None = field(default=None, repr=False)


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


def given_credentials(given: AccountIn | AccountChanges) -> Credentials | None:
    """Gives what the client sent, None if that is nothing."""
    if given.key is None or given.secret is None:
        return None
    passphrase = given.passphrase.get_secret_value() if given.passphrase else None
    return Credentials(given.key.get_secret_value(), given.secret.get_secret_value(), passphrase)
