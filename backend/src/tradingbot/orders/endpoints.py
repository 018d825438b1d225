"""Endpoints under /orders."""

from fastapi import APIRouter

router = APIRouter(prefix="/orders", tags=["orders"])
