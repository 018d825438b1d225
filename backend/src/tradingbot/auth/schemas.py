"""What the endpoints under /auth take and give. Times are UTC."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic.config import JsonDict

from tradingbot.auth.principal import Scope
from tradingbot.core.fields import RequestBody
from tradingbot.users.service import MAX_EMAIL, MAX_PASSWORD, MIN_PASSWORD, normalise_email

_EMAIL = "trader@example.org"
_ID = "6a2f41a3-c54c-4e8b-9a51-0d3b1f5f0f11"

Email = Annotated[str, Field(max_length=MAX_EMAIL), AfterValidator(normalise_email)]
GivenPassword = Annotated[SecretStr, Field(min_length=1, max_length=MAX_PASSWORD)]
NewPassword = Annotated[SecretStr, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]


_SIGN_IN: JsonDict = {"email": _EMAIL, "password": "four words in a row"}
_BEARER: Literal["Bearer"] = "Bearer"
_REGISTERED = "If the address was free, the account exists now: sign in."
_SESSION: JsonDict = {
    "id": _ID,
    "created_at": "2026-01-05T12:00:00Z",
    "last_used_at": "2026-01-05T12:15:00Z",
    "expires_at": "2026-02-04T12:00:00Z",
    "address": "192.0.2.7",
    "user_agent": "Mozilla/5.0",
    "current": True,
}


def _example(example: JsonDict) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": example})


class RegisterIn(RequestBody):
    """Somebody who wants an account."""

    model_config = _example(_SIGN_IN)

    email: Email
    password: NewPassword


class RegisterOut(BaseModel):
    """The same whether or not the address was free: strangers do not learn who has an account."""

    model_config = _example({"detail": _REGISTERED})

    detail: str = _REGISTERED


class LoginIn(RequestBody):
    """Who signs in."""

    model_config = _example(_SIGN_IN)

    email: Email
    password: GivenPassword


class RefreshIn(RequestBody):
    """The refresh token that is to be exchanged."""

    model_config = _example({"refresh_token": "tbr_…"})

    refresh_token: Annotated[SecretStr, Field(max_length=200)]


class PasswordIn(RequestBody):
    """The password now, and the one from now on."""

    model_config = _example(
        {"current_password": "four words in a row", "new_password": "five other words in a row"}
    )

    current_password: GivenPassword
    new_password: NewPassword


class TokensOut(BaseModel):
    """Access for `expires_in` seconds, and the token that gets the next ones, while the session lasts."""

    model_config = _example(
        {
            "access_token": "eyJ…",
            "token_type": "Bearer",
            "expires_in": 900,
            "refresh_token": "tbr_…",
            "session_id": _ID,
            "session_expires_at": "2026-02-04T12:00:00Z",
        }
    )

    access_token: str
    token_type: Literal["Bearer"] = _BEARER
    expires_in: int
    refresh_token: str
    session_id: UUID
    session_expires_at: datetime


class MeOut(BaseModel):
    """Who asks; `session_id` is null for an API key."""

    model_config = _example(
        {
            "id": "0b9f6c3e-0f0e-4a86-9c0f-2a1f7a3f5b1d",
            "email": _EMAIL,
            "is_admin": False,
            "created_at": "2026-01-05T12:00:00Z",
            "scopes": ["read", "trade"],
            "session_id": _ID,
        }
    )

    id: UUID
    email: str
    is_admin: bool
    created_at: datetime
    scopes: list[Scope]
    session_id: UUID | None


class SessionOut(BaseModel):
    """A signed-in device; `address` and `user_agent` are those of its last sign-in or refresh."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _SESSION})

    id: UUID
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime
    address: str | None
    user_agent: str | None
    current: bool = False


class SessionPage(BaseModel):
    """Live sessions, the newest first; `next_cursor` gets the older ones, null at the end."""

    model_config = _example({"items": [_SESSION], "next_cursor": None})

    items: list[SessionOut]
    next_cursor: str | None
