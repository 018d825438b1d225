"""Types of fields that requests have in common."""

import re
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from tradingbot.core.amounts import PRECISION, SCALE, to_scale

# Each way to read a text has one beginning only: a long one that is none is known at once.
_PLAIN = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LARGEST = Decimal(10) ** (PRECISION - SCALE)


class RequestBody(BaseModel):
    """A JSON object of a client: a member that we do not know is refused, as it may be a misspelt limit."""

    model_config = ConfigDict(extra="forbid")


class Changes(RequestBody):
    """The body of a PATCH: only what is named changes; null clears what may be empty.

    Members in `required` can be left out, but not be null.
    """

    required: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="after")
    def keeps_what_is_required(self) -> Self:
        for name in sorted(self.required & self.model_fields_set):
            if getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self

    def named(self) -> dict[str, Any]:
        """Gives the members that the client named."""
        return self.model_dump(exclude_unset=True)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must have printable characters only")
    return text


def no_boolean(value: Any) -> Any:
    """Refuses true and false, which Python takes for numbers."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def plain_number(value: Any) -> Any:
    """Refuse what Python takes for a number, too: true, 1_000, and digits of other scripts."""
    if isinstance(value, str) and not _PLAIN.fullmatch(value.strip()):
        raise ValueError("must be a number in the digits 0 to 9, without other signs")
    return no_boolean(value)


def stored(value: Decimal) -> Decimal:
    """Rounds an amount to what is stored; refuses one that is too large for that."""
    # Compared before it is rounded, which needs a bounded number of digits, and after, as it may have grown.
    if not -_LARGEST < value < _LARGEST or not -_LARGEST < (rounded := to_scale(value)) < _LARGEST:
        raise ValueError(f"must be smaller than 1e{PRECISION - SCALE}")
    return rounded


def _positive(value: Decimal) -> Decimal:
    if value <= 0:
        raise ValueError(f"must be at least 1e-{SCALE}")
    return value


def _not_negative(value: Decimal) -> Decimal:
    if value < 0:
        raise ValueError("must be at least 0")
    return value


def _fraction(value: Decimal) -> Decimal:
    if not 0 <= value < 1:
        raise ValueError("must be at least 0 and less than 1")
    return value


def _line(longest: int) -> Any:
    return StringConstraints(strip_whitespace=True, min_length=1, max_length=longest)


def _number(string_pattern: str, **limits: float) -> WithJsonSchema:
    text = {"type": "string", "pattern": string_pattern}
    return WithJsonSchema({"anyOf": [{"type": "number", **limits}, text]}, mode="validation")


Name = Annotated[str, _line(100), AfterValidator(_printable)]
# As the sender of alerts writes it.
Symbol = Annotated[str, _line(64), AfterValidator(_printable)]
Reason = Annotated[str, _line(500), AfterValidator(_printable)]
# Amounts are numbers or, without loss, decimal strings; they are rounded to what is stored.
_Stored = Annotated[
    Decimal, Field(allow_inf_nan=False), BeforeValidator(plain_number), AfterValidator(stored)
]
PositiveAmount = Annotated[
    _Stored,
    AfterValidator(_positive),
    _number(r"^(?=.*[1-9])\d{1,20}(\.\d{1,18})?$", minimum=10.0**-SCALE, exclusiveMaximum=float(_LARGEST)),
]
NotNegativeAmount = Annotated[
    _Stored,
    AfterValidator(_not_negative),
    _number(r"^\d{1,20}(\.\d{1,18})?$", minimum=0, exclusiveMaximum=float(_LARGEST)),
]
# With a minus where it is short.
SignedAmount = Annotated[
    _Stored,
    _number(
        r"^-?\d{1,20}(\.\d{1,18})?$",
        exclusiveMinimum=-float(_LARGEST),
        exclusiveMaximum=float(_LARGEST),
    ),
]
# A whole number, or one as text.
PlainInt = Annotated[int, BeforeValidator(plain_number)]
# A part of a whole: 0.001 is 0.1 %.
Fraction = Annotated[
    _Stored, AfterValidator(_fraction), _number(r"^0(\.\d{1,18})?$", minimum=0, maximum=0.999999)
]
