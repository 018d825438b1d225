"""API keys as the API takes and shows them. Times are UTC."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from tradingbot.auth.principal import Scope
from tradingbot.core.fields import Name, PlainInt, RequestBody

MAX_DAYS = 3650
_KEY: JsonDict = {
    "id": "9b1d4d3e-60a9-4a0b-8d0a-3f5f6c9b2f10",
    "name": "laptop",
    "prefix": "tbk_3q2xLr8a",
    "scopes": ["read"],
    "created_at": "2026-01-05T12:00:00Z",
    "expires_at": "2026-04-05T12:00:00Z",
    "last_used_at": None,
}


def _once(scopes: Any) -> Any:
    if isinstance(scopes, list):
        names = [scope for scope in scopes if isinstance(scope, str)]
        if len(set(names)) < len(names):
            raise ValueError("names a scope twice")
    return scopes


class ApiKeyIn(RequestBody):
    """A key to be made; without `expires_in_days` it is good until it is revoked."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "laptop", "scopes": ["read"], "expires_in_days": 90}}
    )

    name: Name
    scopes: Annotated[frozenset[Scope], Field(min_length=1), BeforeValidator(_once)] = frozenset({Scope.READ})
    expires_in_days: Annotated[PlainInt, Field(ge=1, le=MAX_DAYS)] | None = None


class ApiKeyOut(BaseModel):
    """A key, without itself: `prefix` is its beginning. `last_used_at` is true to a minute."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _KEY})

    id: UUID
    name: str
    prefix: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewApiKeyOut(ApiKeyOut):
    """A key that was just made; `key` is shown here and never again."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": {**_KEY, "key": "tbk_…"}})

    key: str


class ApiKeyPage(BaseModel):
    """Keys that are not revoked, the newest first; `next_cursor` gets the older ones, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [_KEY], "next_cursor": None}})

    items: list[ApiKeyOut]
    next_cursor: str | None
