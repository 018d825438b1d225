"""Halts as the API shows them."""

from datetime import datetime
from enum import StrEnum
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from tradingbot.core.fields import Reason, RequestBody
from tradingbot.risk.models import Halt


class Reach(StrEnum):
    """How far a halt reaches: one strategy, all of yours, or everybody's."""

    STRATEGY = "strategy"
    ALL = "all"
    EVERYBODY = "everybody"


class HaltIn(RequestBody):
    """Why you halt, and whether to get out of everything, too."""

    model_config = ConfigDict(json_schema_extra={"example": {"reason": "The exchange is under maintenance"}})

    reason: Reason | None = None
    flatten: bool = Field(
        default=False,
        description="Cancel all open orders and close all positions, for as long as the halt is on."
        " A halt that does so goes on with it when it is asked for again.",
    )


class HaltOut(BaseModel):
    """A kill switch that is on: nothing within its reach is opened or added to; exits pass.

    With `flatten` open orders are cancelled and positions closed.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "reach": "strategy",
                "strategy_id": "6f1c2a54-7d7e-4b0b-8a55-0d8f6f6c1d11",
                "reason": "The exchange is under maintenance",
                "flatten": False,
                "created_at": "2026-01-05T12:00:00Z",
            }
        },
    )

    reach: Reach
    strategy_id: UUID | None
    reason: str | None
    flatten: bool
    created_at: datetime

    @classmethod
    def of(cls, halt: Halt) -> Self:
        """Shows a stored halt."""
        reach = Reach.STRATEGY if halt.strategy_id else Reach.ALL if halt.user_id else Reach.EVERYBODY
        return cls(
            reach=reach,
            strategy_id=halt.strategy_id,
            reason=halt.reason,
            flatten=halt.flatten,
            created_at=halt.created_at,
        )


class HaltPage(BaseModel):
    """What keeps your strategies from trading, the newest first; `next_cursor` gets the older ones."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "items": [
                    {
                        "reach": "all",
                        "strategy_id": None,
                        "reason": "On holiday",
                        "flatten": False,
                        "created_at": "2026-01-05T12:00:00Z",
                    }
                ],
                "next_cursor": None,
            }
        },
    )

    items: list[HaltOut]
    next_cursor: str | None
