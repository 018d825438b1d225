"""JSON from strangers: exact numbers, bounded in size and depth, and fit for PostgreSQL."""

import json
from decimal import Decimal
from typing import Any, NoReturn

MAX_DEPTH = 32
MAX_DIGITS = 64

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str, allow_nan=False)


class InvalidJSONError(ValueError):
    """The bytes are not JSON that we take; the message says why without quoting them."""


def parse(body: bytes) -> Any:
    """Parses RFC 8259 JSON in UTF-8; numbers with a fraction or exponent become `Decimal`.

    Raises:
        InvalidJSONError: not JSON, not UTF-8, NaN or Infinity, a number of more than 64 digits, a key that an
            object has twice, nested deeper than 32, or text with NUL or half a surrogate pair.
    """
    try:
        text = body.decode("utf-8-sig")
        value = json.loads(
            text,
            parse_float=_decimal,
            parse_int=_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
    except InvalidJSONError:
        raise
    except UnicodeDecodeError:
        raise InvalidJSONError("The body is not UTF-8.") from None
    except RecursionError:
        raise InvalidJSONError(f"The JSON is nested deeper than {MAX_DEPTH}.") from None
    except json.JSONDecodeError as error:
        raise InvalidJSONError(
            f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from None
    _check(value, MAX_DEPTH)
    return value


def dumps(value: Any) -> str:
    """Writes JSON, the same text for the same value; decimals become strings, so that they stay exact."""
    return _ENCODER.encode(value)


def _decimal(text: str) -> Decimal:
    if len(text) > MAX_DIGITS:
        raise InvalidJSONError(f"A number has more than {MAX_DIGITS} digits.")
    value = Decimal(text)
    if not value.is_finite() or abs(value.adjusted()) > MAX_DIGITS:
        raise InvalidJSONError("A number is too large or too small.")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise InvalidJSONError(f"A number has more than {MAX_DIGITS} digits.")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # RFC 8259, section 4: which of them counts is for each reader to choose, so it is not told.
        raise InvalidJSONError("An object has the same key twice.")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJSONError(f"{name} is not a number in JSON.")


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise InvalidJSONError("Text contains the character NUL.")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidJSONError("Text contains half a surrogate pair.")
    elif isinstance(value, dict | list):
        if depth == 0:
            raise InvalidJSONError(f"The JSON is nested deeper than {MAX_DEPTH}.")
        for item in value:
            _check(item, depth - 1)
        if isinstance(value, dict):
            for item in value.values():
                _check(item, depth - 1)
