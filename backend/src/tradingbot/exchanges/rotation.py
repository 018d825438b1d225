"""Rotation of ENCRYPTION_KEY: finds the envelopes under another key, and seals their content again."""

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from tradingbot.core.crypto import EnvelopeError, Envelopes
from tradingbot.core.database import Database
from tradingbot.exchanges import repository
from tradingbot.exchanges.credentials import ENVELOPES
from tradingbot.exchanges.models import ExchangeAccount

BATCH = 100


class Counts(NamedTuple):
    """How many envelopes there are of each kind."""

    current: int = 0
    old: int = 0
    re_encrypted: int = 0
    unreadable: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Adds up."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


async def count(database: Database, envelopes: Envelopes, progress: Callable[[int], None]) -> Counts:
    """Opens every envelope and writes nothing."""
    return await _all(database, envelopes, progress, write=False)


async def re_encrypt(database: Database, envelopes: Envelopes, progress: Callable[[int], None]) -> Counts:
    """Puts every envelope that opens under the current key.

    `BATCH` accounts at a time, each time in one transaction: what is done is done, and another call has only
    the rest to do. What does not open stays as it is.
    """
    return await _all(database, envelopes, progress, write=True)


async def _all(
    database: Database, envelopes: Envelopes, progress: Callable[[int], None], *, write: bool
) -> Counts:
    counts, seen, after = Counts(), 0, UUID(int=0)
    while True:
        async with database.transaction() as session:
            accounts = await repository.with_credentials(session, after, BATCH, lock=write)
            for account in accounts:
                counts = counts.plus(_account(account, envelopes, write=write))
        if not accounts:
            return counts
        seen, after = seen + len(accounts), accounts[-1].id
        progress(seen)


def _account(account: ExchangeAccount, envelopes: Envelopes, *, write: bool) -> Counts:
    counts = Counts()
    for column, field in ENVELOPES.items():
        envelope = getattr(account, column)
        if envelope is None:
            continue
        place = {"user_id": account.user_id, "row_id": account.id}
        try:
            text = envelopes.open(envelope, field=field, **place)
        except EnvelopeError:
            counts = counts.plus(Counts(unreadable=1))
            continue
        if envelopes.is_current(envelope):
            counts = counts.plus(Counts(current=1))
        elif write:
            setattr(account, column, envelopes.seal(text, field=field, **place))
            counts = counts.plus(Counts(re_encrypted=1))
        else:
            counts = counts.plus(Counts(old=1))
    return counts
