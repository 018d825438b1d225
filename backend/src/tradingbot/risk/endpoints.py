"""Endpoints under /risk."""

from fastapi import APIRouter

from tradingbot.risk import halts_endpoints

router = APIRouter(prefix="/risk", tags=["risk"])
router.include_router(halts_endpoints.router)
