"""Endpoints under /risk."""

from fastapi import APIRouter

router = APIRouter(prefix="/risk", tags=["risk"])
