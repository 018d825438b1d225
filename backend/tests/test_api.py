"""What holds for all endpoints: problem documents, request ids, CORS, documentation."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from tests.conftest import client_of
from tests.test_webhooks import assert_problem
from tradingbot import __version__
from tradingbot.app import create_app
from tradingbot.core.settings import Settings

NOBODYS = "00000000-0000-4000-8000-000000000000"


async def test_health_is_exact(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/health")
    assert (answer.status_code, answer.content) == (
        200,
        f'{{"status":"healthy","version":"{__version__}"}}'.encode(),
    )


async def test_ready(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/health/ready")
    assert answer.json() == {"status": "ready", "checks": {"postgresql": "ok", "redis": "ok", "schema": "ok"}}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/signals/", 404),
        ("DELETE", "/api/v1/signals", 405),
        ("GET", "/api/v1/webhooks/tradingview/tbw_x", 405),
        ("GET", "/api/v1/signals", 401),
        ("GET", "/api/v1/ws", 404),
    ],
)
async def test_errors_are_problem_documents(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    assert_problem(await client.request(method, path), status)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/strategies", "GET, POST"),
        ("POST", f"/api/v1/strategies/{NOBODYS}", "GET, PATCH, DELETE"),
        ("GET", f"/api/v1/strategies/{NOBODYS}/secret", "POST, DELETE"),
        ("POST", "/api/v1/risk/halts/all", "PUT, DELETE"),
        ("GET", "/api/v1/webhooks/tradingview/tbw_x", "POST"),
        ("DELETE", "/api/v1/health", "GET"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("TRACE", "/api/v1/signals", "GET"),
    ],
)
async def test_allow_names_all_methods_of_a_path(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    assert_problem(answer, 405)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/nowhere", "/api/v1/signals", "/api/v1/ws/"])
async def test_a_websocket_at_another_path_is_refused_with_a_problem_document(
    app: FastAPI, path: str
) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "extensions": {"websocket.http.response": {}},
    }
    await app(scope, receive, send)
    headers = [tuple(pair) for pair in sent[0]["headers"]]
    answer = httpx.Response(sent[0]["status"], headers=headers, content=sent[1]["body"])
    assert_problem(answer, 404)


async def test_an_unexpected_error_tells_nothing(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app(settings)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("postgresql://user:hunter22@db/x")

    async with client_of(app) as client:
        answer = await client.get("/broken")
    assert_problem(answer, 500)
    assert "hunter22" not in answer.text
    log = capsys.readouterr().out
    assert answer.headers["x-request-id"] in log
    assert "RuntimeError" in log
    assert "hunter22" not in log


async def test_request_id_of_the_proxy_is_kept_if_it_is_sane(client: httpx.AsyncClient) -> None:
    for given, kept in (("abcdef0123456789", True), ("x y", False), ("a" * 65, False)):
        answer = await client.get("/api/v1/health", headers={"X-Request-ID": given})
        assert (answer.headers["x-request-id"] == given) is kept


async def test_cors_allows_the_named_origin_only(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://app.mail.test")
    async with client_of(create_app()) as client:
        for origin, allowed in (("https://app.mail.test", True), ("https://evil.mail.test", False)):
            answer = await client.get("/api/v1/health", headers={"Origin": origin})
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed


async def test_cors_allows_what_clients_send(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://app.mail.test")
    async with client_of(create_app()) as client:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            headers = {
                "Origin": "https://app.mail.test",
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "authorization, content-type, x-api-key, x-request-id",
            }
            answer = await client.options("/api/v1/strategies", headers=headers)
            assert answer.status_code == 200, answer.text


async def test_openapi_is_valid_and_complete(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    validate(document)
    assert set(document["paths"]) >= {
        "/api/v1/health",
        "/api/v1/health/ready",
        "/api/v1/webhooks/tradingview/{token}",
        "/api/v1/signals",
    }
    receive = document["paths"]["/api/v1/webhooks/tradingview/{token}"]["post"]
    assert set(receive["responses"]) >= {"200", "202", "403", "404", "413", "422", "503"}


def has_example(schema: dict[str, Any], document: dict[str, Any]) -> bool:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return "example" in schema or any(has_example(one, document) for one in schema.get("anyOf", ()))


async def test_every_body_and_every_answer_has_an_example(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    without = [
        f"{method} {path} {status}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status, part in {"body": operation.get("requestBody", {}), **operation["responses"]}.items()
        for content in part.get("content", {}).values()
        if not has_example(content["schema"], document)
    ]
    assert without == []


async def test_examples_are_as_their_schemas_say(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    receive = document["paths"]["/api/v1/webhooks/tradingview/{token}"]["post"]
    schemas = document["components"]["schemas"] | {
        "Alert": receive["requestBody"]["content"]["application/json"]["schema"]
    }
    for name, schema in schemas.items():
        if "example" in schema:
            whole = schema | {"components": document["components"]}
            OAS31Validator(whole).validate(schema["example"])
            if name.endswith(("Out", "Detail", "Page", "Created")):
                assert set(schema["example"]) == set(schema["properties"]), name


async def test_every_reference_leads_somewhere(client: httpx.AsyncClient) -> None:
    text = (await client.get("/openapi.json")).text
    references = set(re.findall(r'"\$ref":"#/([^"]+)"', text))
    assert len(references) > 30
    for reference in references:
        found = json.loads(text)
        for name in reference.split("/"):
            found = found[name]


async def test_every_list_has_pages(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    lists = {}
    for path, operations in document["paths"].items():
        content = operations.get("get", {"responses": {}})["responses"].get("200", {}).get("content", {})
        for answer in content.values():
            schema = document["components"]["schemas"][answer["schema"]["$ref"].rpartition("/")[2]]
            if "items" in schema["properties"]:
                parameters = {parameter["name"] for parameter in operations["get"]["parameters"]}
                lists[path] = ({"limit", "cursor"} <= parameters, "next_cursor" in schema["properties"])
    # Events have a number to go on from.
    assert lists.pop("/api/v1/events") == (False, False)
    assert len(lists) >= 10
    assert set(lists.values()) == {(True, True)}


@pytest.mark.parametrize("declares", [True, False], ids=["with-its-length", "without"])
async def test_a_large_body_is_not_read_to_its_end(app: FastAPI, declares: bool) -> None:
    chunk, size, sent = b" " * 65536, 10 * 1024 * 1024, 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < size:
            sent += len(chunk)
            yield chunk

    headers = {"Content-Type": "application/json"} | ({"Content-Length": str(size)} if declares else {})
    async with client_of(app) as client:
        answer = await client.post("/api/v1/auth/login", content=body(), headers=headers)
    assert_problem(answer, 413)
    # The client sends the first chunk before it is asked for.
    assert sent <= len(chunk) if declares else sent < size / 10


async def test_docs_can_be_switched_off(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCS_ENABLED", "false")
    async with client_of(create_app()) as client:
        for path in ("/docs", "/docs/start.js", "/openapi.json", "/redoc"):
            assert (await client.get(path)).status_code == 404
