"""Money and quantities: exact decimals, as columns and in the API."""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Annotated

from pydantic import PlainSerializer
from sqlalchemy import Numeric

PRECISION = 38
SCALE = 18
AMOUNT = Numeric(PRECISION, SCALE)
# Holds the exact product of two amounts and some sums of them, so that only `to_scale` rounds.
ARITHMETIC = Context(prec=4 * PRECISION, rounding=ROUND_HALF_EVEN)
_UNIT = Decimal(1).scaleb(-SCALE)


def to_scale(value: Decimal, rounding: str = ROUND_HALF_EVEN) -> Decimal:
    """Rounds to the 18 decimal places that are stored; gives zero without a sign.

    Raises:
        decimal.InvalidOperation: more digits than any sum or product of amounts can have.
    """
    return ARITHMETIC.add(value.quantize(_UNIT, rounding=rounding, context=ARITHMETIC), Decimal(0))


def plain(value: Decimal) -> str:
    """Writes a decimal without exponent and without zeros at its end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# An amount in an answer: a decimal string, so that no client rounds it to a float.
Amount = Annotated[Decimal, PlainSerializer(plain, return_type=str)]
