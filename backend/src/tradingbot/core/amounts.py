"""Money and quantities: exact decimals, as columns and in the API."""

from decimal import Decimal
from typing import Annotated

from pydantic import PlainSerializer
from sqlalchemy import Numeric

PRECISION = 38
SCALE = 18
AMOUNT = Numeric(PRECISION, SCALE)


def plain(value: Decimal) -> str:
    """Writes a decimal without exponent and without zeros at its end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# An amount in an answer: a decimal string, so that no client rounds it to a float.
Amount = Annotated[Decimal, PlainSerializer(plain, return_type=str)]
