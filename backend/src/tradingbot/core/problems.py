"""Errors as `application/problem+json` (RFC 9457), whatever raised them."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from tradingbot.core.errors import ProblemError

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
PROBLEM_MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """The body of every error answer; of input that is not valid, `errors` says more."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Unprocessable Entity",
                "status": 422,
                "detail": "The request is not valid.",
                "request_id": "0e2d1c7a9b8f4d6fa1c3b5e7d9f01234",
                "errors": [{"field": "body.name", "message": "Field required"}],
            }
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    request_id: str | None = None


def problem_response(
    status: int, detail: str | None = None, *, headers: dict[str, str] | None = None, **extensions: Any
) -> JSONResponse:
    """Makes the answer for an error; extensions become further members of the document."""
    title = HTTPStatus(status).phrase
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": int(status)}
    if detail and detail != title:
        body["detail"] = detail
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if request_id:
        body["request_id"] = request_id
    return JSONResponse(body | extensions, status, headers, PROBLEM_MEDIA_TYPE)


def validation_details(errors: Any) -> list[dict[str, str]]:
    """Says where and why input was refused, without repeating the input: it may hold a secret."""
    return [
        {
            "field": ".".join(str(part) for part in error["loc"]),
            "message": error["msg"].removeprefix("Value error, "),
        }
        for error in errors
    ]


def problem_from(error: ProblemError) -> JSONResponse:
    """Turns a raised problem into its answer."""
    return problem_response(error.status, error.detail, headers=error.headers, **error.extensions)


def install_error_handlers(app: FastAPI) -> None:
    """Makes every error of `app` a problem document."""

    @app.exception_handler(ProblemError)
    async def on_problem(_request: Request, error: ProblemError) -> JSONResponse:
        return problem_from(error)

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": ", ".join(_allowed(request))}
        return problem_response(error.status_code, str(error.detail), headers=headers)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(_request: Request, error: RequestValidationError) -> JSONResponse:
        errors = validation_details(error.errors())
        return problem_response(422, "The request is not valid.", errors=errors)

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        return problem_response(400, "The request ended before its body did.")


def _allowed(request: Request) -> list[str]:
    """Return the methods of all routes at the request's path: Starlette names those of the first one."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] == Match.FULL
            for route in request.app.routes
        )
    ]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Gives the `responses=` of an endpoint for these error statuses."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }
