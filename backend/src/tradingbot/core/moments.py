"""Moments that come from outside: aware, in UTC, and such that PostgreSQL can store them."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime


def to_utc(value: datetime) -> datetime:
    """Gives the same moment in UTC; one without a zone is in UTC already.

    Raises:
        ValueError: in UTC it would be before the year 1 or after 9999.
    """
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


# In a query; the zone has to be told.
Moment = Annotated[AwareDatetime, AfterValidator(to_utc)]
