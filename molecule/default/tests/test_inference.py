"""A model that the role has put on the host is asked about each signal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from stack import COMPOSE, ROOT, call, output_of, wait_until

from tests.testbed import hosts

MODEL = ROOT / ".cache" / "models" / "tiny-lstm" / "1"


def test_inference_answers_as_computed_apart(https_url: str, backend_cli: Callable[..., dict[str, str]]) -> None:
    expected = json.loads((MODEL / "expected.json").read_text())
    user = f"modeller-{time.time_ns()}@example.com"
    options = ["--model-name", "tiny-lstm", "--model-mode", "annotate"]
    webhook = backend_cli("strategy", "create", "--user", user, "--name", "first", *options)["webhook_url"]
    headers = {"X-API-Key": backend_cli("api-key", "create", "--user", user, "--name", "first")["api_key"]}
    for (price,) in expected["rows"]:
        alert = {"symbol": "BTCUSDT", "action": "buy", "quantity": "0.1", "price": price, "id": time.time_ns()}
        answer = call("POST", f"{https_url}/{webhook.split('/', 3)[3]}", json=alert)
        assert answer.status_code == 202
    last = f"{https_url}/api/v1/signals/{answer.json()['id']}"
    wait_until(lambda: call("GET", last, headers=headers).json()["status"] == "ordered", 20, "the signal is traded")
    prediction = call("GET", last, headers=headers).json()["prediction"]
    manifest = json.loads((MODEL / "manifest.json").read_text())
    assert (prediction["model_version"], prediction["model_digest"]) == ("1", manifest["sha256"])
    given = [float(prediction["probabilities"][label]) for label in manifest["classes"]]
    assert given == pytest.approx(expected["output"], abs=1e-5)


def test_inference_models_are_read_only_in_the_container(machine: hosts.Host) -> None:
    listed = output_of(machine, f"{COMPOSE} exec -T worker tradingbot model list")
    assert "tiny-lstm  1        yes" in listed
    refused = output_of(
        machine, f"{COMPOSE} exec -T worker sh -c 'tradingbot model activate tiny-lstm 1 2>&1; echo $?'"
    )
    assert "cannot be written" in refused
    assert refused.endswith("1")
