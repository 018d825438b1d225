"""Endpoints under /positions."""

from fastapi import APIRouter

router = APIRouter(prefix="/positions", tags=["positions"])
