"""What the health endpoints answer."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Health(BaseModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "healthy", "version": "0.3.0"}})

    status: Literal["healthy"] = "healthy"
    version: str


class Readiness(BaseModel):
    """What is needed answers; `degraded` is a process that does without Redis."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"status": "ready", "checks": {"postgresql": "ok", "redis": "ok", "schema": "ok"}}
        }
    )

    status: Literal["ready", "degraded"] = "ready"
    checks: dict[str, str]
