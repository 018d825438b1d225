"""Models: what they answer, how they are switched, and what is refused."""

import asyncio
import hashlib
import json
import os
import pickle
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from tools import make_tiny_lstm

from tests.tiny_lstm import NAME, change_manifest, make_model
from tradingbot.cli.main import main
from tradingbot.inference import onnx_model
from tradingbot.inference.manifest import MAX_MANIFEST_BYTES, ModelError
from tradingbot.inference.models import PredictionStatus
from tradingbot.inference.onnx_model import load_model
from tradingbot.inference.registry import ModelRegistry, activate


async def prepare(models_dir: Path, version: str, seed: int = 7) -> dict[str, Any]:
    return await asyncio.to_thread(make_model, models_dir, version, seed)


async def test_answer_is_the_one_that_numpy_computes(tmp_path: Path) -> None:
    expected = await prepare(tmp_path, "1")
    activate(tmp_path, NAME, "1")
    answer = await ModelRegistry(tmp_path).predict(NAME, expected["rows"])
    assert answer.status == PredictionStatus.OK
    assert answer.probabilities is not None
    given = [float(answer.probabilities[label]) for label in ("sell", "hold", "buy")]
    assert given == pytest.approx(expected["output"], abs=1e-5)
    assert answer.outcome == ("sell", "hold", "buy")[given.index(max(given))]
    assert answer.version == "1"
    assert answer.digest == hashlib.sha256((tmp_path / NAME / "1" / "model.onnx").read_bytes()).hexdigest()


async def test_the_script_makes_the_same_model_as_ours(tmp_path: Path) -> None:
    ours = await prepare(tmp_path / "ours", "1")
    command = [sys.executable, make_tiny_lstm.__file__, str(tmp_path / "theirs"), "--version", "1"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    theirs = tmp_path / "theirs" / NAME / "1"
    assert json.loads((theirs / "expected.json").read_text()) == ours
    for name in ("model.onnx", "manifest.json"):
        assert (theirs / name).read_bytes() == (tmp_path / "ours" / NAME / "1" / name).read_bytes()


async def test_nobody_outside_is_told(tmp_path: Path) -> None:
    """onnxruntime keeps a database in the home folder for what it tells its makers."""
    await prepare(tmp_path, "1")
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from pathlib import Path; from tradingbot.inference.onnx_model import load_model\n"
        "load_model(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / NAME / "1")]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    environment = variables | {"HOME": str(home)}
    await asyncio.to_thread(subprocess.run, command, check=True, env=environment)
    assert list(home.iterdir()) == []


async def test_other_weights_answer_otherwise(tmp_path: Path) -> None:
    one, two = await prepare(tmp_path, "1"), await prepare(tmp_path, "2", seed=8)
    assert one["output"] != pytest.approx(two["output"], abs=1e-3)


async def test_active_is_switched_without_restart(tmp_path: Path) -> None:
    rows = (await prepare(tmp_path, "1"))["rows"]
    await prepare(tmp_path, "2", seed=8)
    registry = ModelRegistry(tmp_path)
    assert (await registry.predict(NAME, rows)).status == PredictionStatus.DISABLED
    for version in ("1", "2", "1"):
        activate(tmp_path, NAME, version)
        assert (await registry.predict(NAME, rows)).version == version
    (tmp_path / NAME / "active").unlink()
    answer = await registry.predict(NAME, rows)
    assert (answer.status, answer.outcome, answer.probabilities) == (PredictionStatus.DISABLED, None, None)


async def test_bad_model_keeps_the_old_one(tmp_path: Path) -> None:
    rows = (await prepare(tmp_path, "1"))["rows"]
    await prepare(tmp_path, "2", seed=8)
    model = tmp_path / NAME / "2" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    registry = ModelRegistry(tmp_path)
    activate(tmp_path, NAME, "1")
    assert (await registry.predict(NAME, rows)).version == "1"
    (tmp_path / NAME / "active").write_text("2\n")
    answer = await registry.predict(NAME, rows)
    assert (answer.status, answer.version) == (PredictionStatus.OK, "1")
    with pytest.raises(ModelError, match="SHA-256"):
        activate(tmp_path, NAME, "2")


async def test_bad_model_alone_gives_no_answer(tmp_path: Path) -> None:
    rows = (await prepare(tmp_path, "1"))["rows"]
    (tmp_path / NAME / "1" / "model.onnx").write_bytes(b"not a model")
    (tmp_path / NAME / "active").write_text("1\n")
    answer = await ModelRegistry(tmp_path).predict(NAME, rows)
    assert (answer.status, answer.outcome) == (PredictionStatus.FAILED, None)
    assert answer.reason is not None
    assert "SHA-256" in answer.reason


async def test_switching_while_predicting_never_fails(tmp_path: Path) -> None:
    rows = (await prepare(tmp_path, "1"))["rows"]
    await prepare(tmp_path, "2", seed=8)
    activate(tmp_path, NAME, "1")
    registry, changed = ModelRegistry(tmp_path), asyncio.Condition()
    latest, switching = "", True

    async def switch() -> None:
        nonlocal switching
        for number in range(20):
            version = str(number % 2 + 1)
            await asyncio.to_thread(activate, tmp_path, NAME, version)
            async with changed:
                while latest != version:
                    await changed.wait()
        switching = False

    async def ask() -> None:
        nonlocal latest
        while switching:
            answer = await registry.predict(NAME, rows)
            assert answer.status == PredictionStatus.OK
            async with changed:
                latest = str(answer.version)
                changed.notify_all()

    async with asyncio.timeout(60):
        await asyncio.gather(switch(), ask(), ask())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"version": "9"}, "that of"),
        ({"format": 2}, "format"),
        ({"window": 4}, "onnxruntime"),
        ({"window": 513}, "window"),
        ({"features": [{"name": f"f{number}"} for number in range(257)]}, "features"),
        ({"features": [{"name": "price"}, {"name": "volume"}]}, "onnxruntime"),
        ({"features": [{"name": "price", "scale": 0}]}, "scale"),
        ({"features": [{"name": "price"}, {"name": "price"}]}, "differ"),
        ({"classes": ["buy", "sell"]}, "shape"),
        ({"classes": ["up", "hold", "down"]}, "classes"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_manifest_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    make_model(tmp_path, "1")
    change_manifest(tmp_path, **changes)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / NAME / "1")


class _Exploit:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def put_model(models_dir: Path, content: bytes) -> Path:
    """Replaces the bytes of version 1, with the digest that fits them."""
    make_model(models_dir, "1")
    folder = models_dir / NAME / "1"
    (folder / "model.onnx").write_bytes(content)
    change_manifest(models_dir, sha256=hashlib.sha256(content).hexdigest())
    return folder


def test_pickle_is_not_unpickled(tmp_path: Path) -> None:
    folder = put_model(tmp_path, pickle.dumps(_Exploit(tmp_path / "executed")))
    with pytest.raises(ModelError, match="onnxruntime"):
        load_model(folder)
    assert not (tmp_path / "executed").exists()


def constant_model(values: list[float]) -> bytes:
    """A model that answers `values`, whatever it is asked."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Mul", ["s", "zero"], ["z"]),
        helper.make_node("Add", ["v", "z"], ["y"]),
    ]
    constants = [as_tensor([values], "v"), as_tensor(0, "zero")]
    return model_of(nodes, constants)


def endless_model() -> bytes:
    """A model that goes on for some hundred years."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still_on"]), helper.make_node("Neg", ["a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 3]),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 3]),
        ],
    )
    nodes = [
        helper.make_node("Squeeze", ["x", "axes"], ["row"]),
        helper.make_node("Loop", ["times", "true", "row"], ["y"], body=body),
    ]
    constants = [
        numpy_helper.from_array(np.array([2], dtype=np.int64), "axes"),
        numpy_helper.from_array(np.array(2**60, dtype=np.int64), "times"),
        numpy_helper.from_array(np.array(True), "true"),
    ]
    return model_of(nodes, constants)


def as_tensor(values: Any, name: str, file: str | None = None) -> onnx.TensorProto:
    """A constant; with `file` its bytes are there and not in the model."""
    tensor = numpy_helper.from_array(np.array(values, dtype=np.float32), name)
    if file is not None:
        external_data_helper.set_external_data(tensor, file)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    return tensor


def model_of(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> bytes:
    """A model that takes a window of 3 with one feature, and gives three classes."""
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


WEIGHTS = [[0.2, 0.3, 0.5]]


@pytest.mark.parametrize("place", ["initializer", "node"])
@pytest.mark.parametrize("file", ["weights.bin", "./weights.bin", "../w/weights.bin", "{folder}/weights.bin"])
def test_weights_outside_of_the_hashed_bytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, file: str
) -> None:
    working = tmp_path / "w"
    working.mkdir()
    monkeypatch.chdir(working)
    weights = as_tensor(WEIGHTS, "v", file.format(folder=working))
    nodes = [
        helper.make_node("Squeeze", ["x", "axes"], ["row"]),
        helper.make_node("Mul", ["row", "zero"], ["zeros"]),
        helper.make_node("Sub", ["zeros", "v"], ["less"]),
        helper.make_node("Neg", ["less"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.array([2], dtype=np.int64), "axes"), as_tensor(0, "zero")]
    if place == "node":
        nodes.insert(0, helper.make_node("Constant", [], ["v"], value=weights))
    else:
        constants.append(weights)
    folder = put_model(tmp_path, model_of(nodes, constants))
    for directory in (folder, working, tmp_path):
        (directory / "weights.bin").write_bytes(np.array(WEIGHTS, dtype=np.float32).tobytes())
    with pytest.raises(ModelError, match="External data path"):
        load_model(folder)


def test_a_model_that_never_answers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "LONGEST_RUN", 0.2)
    with pytest.raises(ModelError, match=r"no answer within 0\.2 s"):
        load_model(put_model(tmp_path, endless_model()))


def test_files_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(tmp_path, "1")
    folder = tmp_path / NAME / "1"
    size = (folder / "model.onnx").stat().st_size
    monkeypatch.setattr(onnx_model, "MAX_MODEL_BYTES", size)
    load_model(folder)
    monkeypatch.setattr(onnx_model, "MAX_MODEL_BYTES", size - 1)
    with pytest.raises(ModelError, match="onnx is larger"):
        load_model(folder)
    (folder / "manifest.json").write_bytes(b" " * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(ModelError, match="json is larger"):
        load_model(folder)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [2.0, -1.0, 0.0], [float("nan"), 0.5, 0.5]])
def test_output_that_is_no_probability_is_refused(tmp_path: Path, values: list[float]) -> None:
    with pytest.raises(ModelError, match="probabilities"):
        load_model(put_model(tmp_path, constant_model(values)))


async def test_constant_model_answers(tmp_path: Path) -> None:
    await asyncio.to_thread(put_model, tmp_path, constant_model([0.2, 0.3, 0.5]))
    activate(tmp_path, NAME, "1")
    answer = await ModelRegistry(tmp_path).predict(NAME, [[1.0], [2.0], [3.0]])
    assert answer.outcome == "buy"
    assert answer.probabilities == {"sell": Decimal("0.2"), "hold": Decimal("0.3"), "buy": Decimal("0.5")}


@pytest.mark.parametrize(
    "rows", [[[1.0]], [[1.0], [float("nan")], [2.0]], [[1.0], [float("inf")], [2.0]], [[1.0], [1e300], [2.0]]]
)
async def test_rows_that_do_not_fit(tmp_path: Path, rows: list[list[float]]) -> None:
    await prepare(tmp_path, "1")
    activate(tmp_path, NAME, "1")
    answer = await ModelRegistry(tmp_path).predict(NAME, rows)
    assert (answer.status, answer.outcome, answer.version) == (PredictionStatus.FAILED, None, "1")


@pytest.mark.parametrize("name", ["../tiny-lstm", "..", "a/b", "", "-x"])
async def test_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    await prepare(tmp_path, "1")
    activate(tmp_path, NAME, "1")
    assert (await ModelRegistry(tmp_path / "x").predict(name, [])).status == PredictionStatus.DISABLED
    with pytest.raises(ModelError):
        activate(tmp_path, name, "1")


@pytest.mark.parametrize("pointer", ["../../etc", "", "1 2", "x" * 300])
async def test_pointer_that_names_no_version(tmp_path: Path, pointer: str) -> None:
    await prepare(tmp_path, "1")
    (tmp_path / NAME / "active").write_text(pointer)
    assert (await ModelRegistry(tmp_path).predict(NAME, [])).status == PredictionStatus.FAILED


def test_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELS_DIR", str(tmp_path))
    assert main(["model", "list"]) == 0
    assert "no models" in capsys.readouterr().out
    make_model(tmp_path, "1")
    make_model(tmp_path, "2", seed=8)
    assert main(["model", "activate", NAME, "2"]) == 0
    assert main(["model", "verify", NAME, "1"]) == 0
    capsys.readouterr()
    assert main(["model", "list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(line[1], line[2] == "yes") for line in lines] == [("1", False), ("2", True)]
    change_manifest(tmp_path, window=0)
    assert main(["model", "list"]) == 1
    assert main(["model", "verify", NAME, "1"]) == 1
    assert "window" in capsys.readouterr().err
    assert main(["model", "activate", NAME, "9"]) == 1
