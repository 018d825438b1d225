"""Who asks, and what they may do."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Scope(StrEnum):
    """`read` looks; `trade` changes strategies, orders and halts."""

    READ = "read"
    TRADE = "trade"


@dataclass(frozen=True)
class Principal:
    """A user, by an API key or, with a `session_id`, signed in."""

    user_id: UUID
    scopes: frozenset[Scope]
    session_id: UUID | None = None
    is_admin: bool = False
    api_key_id: UUID | None = None

    @property
    def described(self) -> str:
        """Who it is, as it is kept with what a person said."""
        return f"API key {self.api_key_id}" if self.api_key_id else "its owner"
