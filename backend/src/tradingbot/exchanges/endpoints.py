"""Endpoints under /exchange-accounts."""

from fastapi import APIRouter

router = APIRouter(prefix="/exchange-accounts", tags=["exchange accounts"])
