"""What the health endpoints answer."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The process answers."""

    status: Literal["healthy"] = "healthy"


class Readiness(BaseModel):
    """Everything that is needed answers."""

    status: Literal["ready"] = "ready"
    checks: dict[str, Literal["ok"]]
