"""Endpoints under /strategies."""

from fastapi import APIRouter

router = APIRouter(prefix="/strategies", tags=["strategies"])
