"""The page at /docs in a browser, under the policy that nginx sends with it."""

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.conftest import client_of
from tests.serving import serving
from tradingbot.app import create_app
from tradingbot.core.settings import Settings

DEFAULTS = (Path(__file__).parents[2] / "roles" / "nginx" / "defaults" / "main.yml").read_text()
(POLICY,) = re.findall(r'^nginx_csp_docs: "(.+)"$', DEFAULTS, re.MULTILINE)
BROWSER_IMAGE = "tradingbot-testbed/chromium:local"


class Proxied:
    """An application as a proxy serves it: below a prefix unknown to it, with the policy of nginx."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        if scope["type"] == "http":
            inside = scope["path"].startswith(f"{self._prefix}/")
            scope["path"] = scope["path"].removeprefix(self._prefix) if inside else "/nothing-here"
        await self._app(scope, receive, send_with_policy)


class Shown(NamedTuple):
    """What a browser makes of a page."""

    dom: str
    complaints: list[str]
    """What stands in its console: what the policy does not allow, what could not be loaded, errors."""


@pytest.fixture(scope="module")
def browser() -> Iterator[list[str]]:
    """A headless Chromium: the program in TEST_BROWSER, else the test bed's image."""
    if given := os.environ.get("TEST_BROWSER"):
        yield [given]
        return
    name = f"tradingbot-backend-test-browser-{secrets.token_hex(4)}"
    yield ["docker", "run", "--rm", "--name", name, "--network", "host", BROWSER_IMAGE]
    # Gone with its process, unless that was given up.
    subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)


def show(browser: list[str], url: str) -> Shown:
    """Opens a page and waits until it has done all that it wants to do."""
    options = ["--no-sandbox", "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run([*browser, *options, url], check=True, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    # Swagger UI says so of every link to an operation with a `_` in its name, its own links too.
    return Shown(done.stdout, [line for line in said if "Deprecated: escaping deep link" not in line])


@pytest.mark.parametrize("prefix", ["", "/some/where"])
def test_page_works_under_the_policy_of_nginx(settings: Settings, browser: list[str], prefix: str) -> None:
    """No inline script and no other host: either would be a complaint of the browser."""
    with serving(Proxied(create_app(settings), prefix)) as address:
        document = httpx.get(f"{address}{prefix}/openapi.json").json()
        opened = document["paths"]["/api/v1/webhooks/tradingview/{token}"]["post"]
        shown = show(browser, f"{address}{prefix}/docs#/{opened['tags'][0]}/{opened['operationId']}")
    assert shown.complaints == []
    rows = re.findall(r'class="opblock opblock-(\w+)\b.*?data-path="([^"]+)"', shown.dom)
    paths = document["paths"]
    assert set(rows) == {(method, path) for path, operations in paths.items() for method in operations}
    assert opened["requestBody"]["description"] in shown.dom


def test_the_browser_complains_of_what_the_policy_forbids(browser: list[str]) -> None:
    """Else the page above would always be without a complaint."""
    page = "<script>document.title = 1</script><script src='https://elsewhere.test/x.js'></script>"
    app = Starlette(routes=[Route("/docs", lambda _request: HTMLResponse(page))])
    with serving(Proxied(app, "")) as address:
        complaints = show(browser, f"{address}/docs").complaints
    assert len(complaints) == 2
    assert all("Content Security Policy" in complaint for complaint in complaints)


async def test_files_have_their_types_and_are_not_sent_twice(settings: Settings) -> None:
    types = {
        "/docs": "text/html",
        "/docs/start.js": "javascript",
        "/docs/swagger-ui-bundle.js": "javascript",
        "/docs/swagger-ui.css": "text/css",
        "/docs/favicon-32x32.png": "image/png",
    }
    async with client_of(create_app(settings)) as client:
        for path, expected in types.items():
            answer = await client.get(path)
            assert answer.status_code == 200
            assert expected in answer.headers["Content-Type"]
            again = await client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
            assert (again.status_code, again.content) == (304, b"")
