"""A model that the role has put on the host is asked about each signal."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack.api import call
from tests.stack.host import COMPOSE, output_of, services, wait_until
from tests.stack.plays import ROOT, SITE, play
from tests.testbed import hosts

MODEL = ROOT / ".cache" / "models" / "tiny-lstm" / "1"


def expected() -> dict[str, Any]:
    """Return rows and the model's output for them, as numpy computed it when the model was made."""
    return dict(json.loads((MODEL / "expected.json").read_text()))


def predictions(https_url: str, backend_cli: Callable[..., dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Give the prediction for the last of the expected rows, sent as alerts of a strategy, as often as it is wanted."""
    user = f"modeller-{time.time_ns()}@example.com"
    options = ["--model-name", "tiny-lstm", "--model-mode", "annotate"]
    webhook = backend_cli("strategy", "create", "--user", user, "--name", "first", *options)["webhook_url"]
    headers = {"X-API-Key": backend_cli("api-key", "create", "--user", user, "--name", "first")["api_key"]}
    signal: dict[str, Any] = {}

    def is_traded() -> bool:
        shown = call("GET", f"{https_url}/api/v1/signals/{signal['id']}", headers=headers).json()
        signal.update(shown)
        return bool(signal["status"] == "ordered")

    while True:
        for (price,) in expected()["rows"]:
            alert = {"symbol": "BTCUSDT", "action": "buy", "quantity": "0.001", "price": price, "id": time.time_ns()}
            answer = call("POST", f"{https_url}/{webhook.split('/', 3)[3]}", json=alert)
            assert answer.status_code == 202
        signal.update(answer.json())
        wait_until(is_traded, 20, "the signal is traded")
        yield signal["prediction"]


def test_inference_answers_as_computed_apart(https_url: str, backend_cli: Callable[..., dict[str, str]]) -> None:
    prediction = next(predictions(https_url, backend_cli))
    manifest = json.loads((MODEL / "manifest.json").read_text())
    assert (prediction["model_version"], prediction["model_digest"]) == ("1", manifest["sha256"])
    given = [float(prediction["probabilities"][label]) for label in manifest["classes"]]
    assert given == pytest.approx(expected()["output"], abs=1e-5)


def test_inference_takes_another_version_without_a_restart(
    machine: hosts.Host, inventory: str, https_url: str, backend_cli: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    """The role puts it on the host and makes it the active one; then the same way back."""
    other = tmp_path / "other"
    shutil.copytree(MODEL, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"version": "2"}))
    models = [{"name": "tiny-lstm", "version": "2", "src": str(other), "active": True}]
    ask = predictions(https_url, backend_cli)
    assert next(ask)["model_version"] == "1"
    containers = {name: found["Id"] + found["State"]["StartedAt"] for name, found in services(machine).items()}
    try:
        done = play(inventory, SITE, "--tags", "backend", "--extra-vars", json.dumps({"backend_models": models}))
        assert done.code == 0, done.said
        assert next(ask)["model_version"] == "2"
    finally:
        done = play(inventory, SITE, "--tags", "backend")
    assert done.code == 0, done.said
    assert next(ask)["model_version"] == "1"
    assert {name: found["Id"] + found["State"]["StartedAt"] for name, found in services(machine).items()} == containers


def test_inference_models_are_read_only_in_the_container(machine: hosts.Host) -> None:
    listed = output_of(machine, f"{COMPOSE} exec -T worker tradingbot model list")
    assert "tiny-lstm  1        yes" in listed
    refused = output_of(
        machine, f"{COMPOSE} exec -T worker sh -c 'tradingbot model activate tiny-lstm 1 2>&1; echo $?'"
    )
    assert "cannot be written" in refused
    assert refused.endswith("1")
