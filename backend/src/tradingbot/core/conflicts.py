"""Rows that contradict others: what PostgreSQL refuses becomes an answer."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import IntegrityError

from tradingbot.core.errors import ConflictError


@contextmanager
def conflict(constraint: str, detail: str) -> Iterator[None]:
    """Turns a violation of the named constraint into a 409; the transaction is lost with it.

    Raises:
        ConflictError: saying `detail`.
    """
    try:
        yield
    except IntegrityError as error:
        if f'"{constraint}"' not in str(error.orig):
            raise
        raise ConflictError(detail) from None
