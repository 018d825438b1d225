"""What a failed call to Binance means: whether the request was carried out, was not, or nobody knows.

Sources, below https://developers.binance.com/docs: binance-spot-api-docs/rest-api/general-api-information for
HTTP's codes, binance-spot-api-docs/errors and derivatives/usds-margined-futures/error-code for Binance's.

Only what is certain counts as not sent or refused:

| what happened | meaning |
|---|---|
| no connection: name not found, refused, TLS | not sent |
| ccxt refused it before sending | refused |
| time-out, connection lost, answer cut off | unknown |
| HTTP 5xx, 408; codes -1000, -1001, -1006, -1007 and others of -10xx | unknown |
| a client order id that is in use | unknown: perhaps it is this order's |
| HTTP 429, 418, 403; codes -1003, -1015; the clock: -1021, -5028 | not sent |
| HTTP 401; wrong key, signature or permission: -1002, -1022, -1099, -2008, -2014, -2015 | credentials |
| no such order: -2011, -2013 | not found |
| any other code of Binance with HTTP 4xx; HTTP 451 | refused |
| anything else, such as a proxy's 404 | unknown |
"""

import json
import socket
from dataclasses import dataclass
from enum import Enum, auto

from tradingbot.core.redaction import redact
from tradingbot.exchanges.base import (
    CredentialsError,
    ExchangeError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
)
from tradingbot.exchanges.ccxt_client import Answer

_CREDENTIALS = frozenset({-1002, -1022, -1099, -2008, -2014, -2015})
_RATE = frozenset({-1003, -1015})
CLOCK = frozenset({-1021, -5028})
_NOT_FOUND = frozenset({-2011, -2013})
_DUPLICATE = frozenset({-4116})
_DUPLICATE_TEXT = "Duplicate order sent"
# Of the codes on server and network, those that are about the request.
_REFUSED_GENERAL = frozenset({-1013, -1014, -1016, -1020})
_LONGEST = 300
# Seconds to stay away if the exchange does not say.
_RATE_LIMIT_SECONDS = 30.0
_BAN_SECONDS = 120.0
_CLOCK_SECONDS = 1.0
_MAX_SECONDS = 3600.0


class Meaning(Enum):
    """What became of the request."""

    REFUSED = auto()
    NOT_SENT = auto()
    RATE_LIMITED = auto()
    CLOCK = auto()
    UNKNOWN = auto()
    CREDENTIALS = auto()
    NOT_FOUND = auto()


@dataclass(frozen=True)
class Failure:
    """A failed call; `message` holds neither an address nor a credential."""

    meaning: Meaning
    message: str
    retry_after: float = 1.0

    def of_order(self) -> ExchangeError:
        """Gives the error that says this of an order that was to be placed."""
        match self.meaning:
            case Meaning.REFUSED | Meaning.NOT_FOUND:
                return RejectedError(self.message)
            case Meaning.UNKNOWN:
                return OutcomeUnknownError(self.message)
            case _:
                return self.of_question()

    def of_question(self) -> ExchangeError:
        """Gives the error that says this of a request that may be repeated."""
        if self.meaning == Meaning.CREDENTIALS:
            return CredentialsError(self.message)
        return NotSentError(self.message, self.retry_after)


def understand(error: BaseException, answer: Answer) -> Failure:
    """Tells what an error of ccxt, and the answer that led to it, mean."""
    if answer.status is None:
        return _without_answer(error)
    code, text = _code_and_text(answer.body)
    message = f"{code} {text}" if code is not None else f"HTTP {answer.status}"
    message = redact(message)[:_LONGEST]
    if answer.status in (418, 429) or code in _RATE:
        return Failure(Meaning.RATE_LIMITED, message, _seconds(answer))
    if answer.status < 400:
        return Failure(Meaning.UNKNOWN, f"the answer was not understood: {type(error).__name__}")
    if answer.status == 408 or answer.status >= 500:
        return Failure(Meaning.UNKNOWN, message)
    if code is not None:
        return Failure(_meaning_of_code(code, text), message, _CLOCK_SECONDS)
    meaning = {
        401: Meaning.CREDENTIALS,
        # Its firewall, before anything is looked at.
        403: Meaning.RATE_LIMITED,
        451: Meaning.REFUSED,
    }.get(answer.status, Meaning.UNKNOWN)
    return Failure(meaning, message, _seconds(answer))


def _without_answer(error: BaseException) -> Failure:
    import aiohttp
    from ccxt.base import errors

    cause = error.__cause__
    if isinstance(cause, aiohttp.ClientConnectorError | socket.gaierror):
        return Failure(Meaning.NOT_SENT, f"no connection: {type(cause).__name__}")
    if isinstance(error, errors.ExchangeError) and cause is None:
        # ccxt's own checks; its messages name the market and the limit.
        return Failure(Meaning.REFUSED, redact(str(error))[:_LONGEST])
    if isinstance(error, TimeoutError | errors.RequestTimeout):
        return Failure(Meaning.UNKNOWN, "no answer in time")
    return Failure(Meaning.UNKNOWN, f"no answer: {type(cause or error).__name__}")


def _meaning_of_code(code: int, text: str) -> Meaning:
    if code in _CREDENTIALS:
        return Meaning.CREDENTIALS
    if code in CLOCK:
        return Meaning.CLOCK
    if code in _NOT_FOUND:
        return Meaning.NOT_FOUND
    if code in _DUPLICATE or _DUPLICATE_TEXT in text:
        return Meaning.UNKNOWN
    if -1100 < code <= -1000 and code not in _REFUSED_GENERAL:
        return Meaning.UNKNOWN
    return Meaning.REFUSED


def _code_and_text(body: str) -> tuple[int | None, str]:
    try:
        answer = json.loads(body)
        return int(answer["code"]), str(answer.get("msg", ""))
    except (ValueError, TypeError, KeyError):
        return None, ""


def _seconds(answer: Answer) -> float:
    default = _BAN_SECONDS if answer.status == 418 else _RATE_LIMIT_SECONDS
    given = (answer.retry_after or "").strip()
    return min(float(given), _MAX_SECONDS) if given.isdecimal() else default
