"""Access tokens: short-lived JWTs (RFC 7519) signed with HS256 under a key that is made for them alone."""

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import jwt

from tradingbot.core.models import utc_now
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import derive_key

_ALGORITHM = "HS256"
_ISSUER = "tradingbot"
_AUDIENCE = "tradingbot-api"
_REQUIRED = ["iss", "aud", "sub", "sid", "iat", "exp"]
# The clock may be set back a little between two requests.
_LEEWAY = timedelta(seconds=5)


class Claims(NamedTuple):
    """Whose token it is, and which session it ends with."""

    user_id: UUID
    session_id: UUID


def issue(settings: Settings, claims: Claims, now: datetime | None = None) -> str:
    """Makes a token that is good for ACCESS_TOKEN_SECONDS."""
    now = now or utc_now()
    payload = {
        "iss": _ISSUER,
        "aud": _AUDIENCE,
        "sub": str(claims.user_id),
        "sid": str(claims.session_id),
        "iat": now,
        "exp": now + timedelta(seconds=settings.access_token_seconds),
    }
    return jwt.encode(payload, _key(settings), _ALGORITHM)


def read(settings: Settings, token: str) -> Claims | None:
    """Gives what a token says; None if it is not one of ours, or is over."""
    try:
        payload = jwt.decode(
            token,
            _key(settings),
            [_ALGORITHM],
            issuer=_ISSUER,
            audience=_AUDIENCE,
            leeway=_LEEWAY,
            options={"require": _REQUIRED},
        )
        return Claims(UUID(payload["sub"]), UUID(payload["sid"]))
    except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError):
        return None


def _key(settings: Settings) -> bytes:
    return derive_key(settings.secret_key.get_secret_value(), "access token")
