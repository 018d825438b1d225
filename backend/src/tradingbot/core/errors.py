"""What can go wrong, and the HTTP status that says so. Needs no web framework: commands use it too."""

from http import HTTPStatus
from typing import Any


class ProblemError(Exception):
    """An answer that is not a success; the subclasses say which."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **extensions: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.extensions = extensions


class UnauthorizedError(ProblemError):
    """No credentials, or not valid ones."""

    status = HTTPStatus.UNAUTHORIZED


class ForbiddenError(ProblemError):
    """Known, but not allowed."""

    status = HTTPStatus.FORBIDDEN


class NotFoundError(ProblemError):
    """There is no such thing, or not for you."""

    status = HTTPStatus.NOT_FOUND


class ConflictError(ProblemError):
    """It contradicts what there is already."""

    status = HTTPStatus.CONFLICT


class GoneError(ProblemError):
    """It is not kept any more."""

    status = HTTPStatus.GONE


class TooLargeError(ProblemError):
    """The body is larger than we read."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnprocessableError(ProblemError):
    """We understand the form and cannot use the content."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class TooManyRequestsError(ProblemError):
    """Tried too often; `retry_after` (seconds) later it may be tried again."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, detail: str, *, retry_after: int, **extensions: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)}, **extensions)


class UnavailableError(ProblemError):
    """Something that we need does not answer; the same request may succeed later."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, detail: str, *, retry_after: int = 5, **extensions: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)}, **extensions)
