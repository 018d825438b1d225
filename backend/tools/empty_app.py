"""The least that a FastAPI application can do: what the health endpoint is compared with."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI(openapi_url=None)


@app.get("/empty")
async def empty() -> None:
    """Answer nothing."""
