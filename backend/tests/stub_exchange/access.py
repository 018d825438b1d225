"""Who asks, and whether they may: API key, HMAC-SHA256 signature, timestamp and recvWindow.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api/request-security
"""

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl

from aiohttp import web

from tests.stub_exchange.book import Account, Book, BookError

DEFAULT_WINDOW = 5000
MAX_WINDOW = 60_000


async def signed(
    request: web.Request, book: Book, accounts: Mapping[str, Account]
) -> tuple[Account, dict[str, str]]:
    """Gives the account of a signed request and its parameters."""
    query, body = request.query_string, await request.text()
    parameters = dict(parse_qsl(query, keep_blank_values=True)) | dict(
        parse_qsl(body, keep_blank_values=True)
    )
    key = request.headers.get("X-MBX-APIKEY")
    if not key:
        raise BookError(-2014, "API-key format invalid.", status=401)
    account = accounts.get(key)
    if account is None:
        raise BookError(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
    _check_signature(query, body, parameters.get("signature"), account.secret)
    _check_time(parameters, book.now())
    return account, parameters


def _check_signature(query: str, body: str, signature: str | None, secret: str) -> None:
    if not signature:
        raise BookError(-1102, "Mandatory parameter 'signature' was not sent, was empty/null, or malformed.")
    payload = "".join(part.partition("&signature=")[0] for part in (query, body))
    right = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(signature, right):
        raise BookError(-1022, "Signature for this request is not valid.")


def _check_time(parameters: Mapping[str, str], now: int) -> None:
    if "timestamp" not in parameters:
        raise BookError(-1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed.")
    sent, window = int(parameters["timestamp"]), int(parameters.get("recvWindow", DEFAULT_WINDOW))
    if window > MAX_WINDOW:
        raise BookError(-1131, "recvWindow must be less than 60000")
    if sent >= now + 1000:
        raise BookError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now - sent > window:
        raise BookError(-1021, "Timestamp for this request is outside of the recvWindow.")
