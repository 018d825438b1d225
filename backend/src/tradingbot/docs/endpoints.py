"""GET /docs and what the page loads. Its links are relative: any prefix that a proxy takes away will do."""

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

_OURS = Path(__file__).parent
_SWAGGER_UI = ("favicon-32x32.png", "swagger-ui-bundle.js", "swagger-ui.css")
# Answers 304 to who has the file.
_STATIC = StaticFiles()


def add_docs(app: FastAPI) -> None:
    """Adds the page. FastAPI's own has an inline script, and takes Swagger UI from a foreign host."""
    swagger_ui = Path(str(files("fastapi_swagger"))) / "resources"
    _serve(app, "/docs", _OURS / "page.html")
    for file in (_OURS / "start.js", *(swagger_ui / name for name in _SWAGGER_UI)):
        _serve(app, f"/docs/{file.name}", file)


def _serve(app: FastAPI, path: str, file: Path) -> None:
    status = file.stat()

    async def answer(request: Request) -> Response:
        return _STATIC.file_response(file, status, request.scope)

    app.add_route(path, answer, include_in_schema=False)
