"""Makes a tiny LSTM in ONNX, for tests and the demo: `make_tiny_lstm.py FOLDER [--version V] [--seed N]`.

Its weights are random, so its advice is worth nothing. Beside the model lies `expected.json`: an input and
the output for it, computed with numpy from the equations and not by an ONNX runtime. The LSTM is the operator
of ONNX (https://onnx.ai/onnx/operators/onnx__LSTM.html): gates in the order input, output, forget, cell.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]

HIDDEN = 6
WINDOW = 3
CLASSES = ["sell", "hold", "buy"]
FEATURES = [{"name": "price", "mean": 64000.0, "scale": 1000.0}]


class Weights:
    """Random weights; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)

        def normal(*shape: int) -> Array:
            return generator.normal(0, 0.8, shape).astype(np.float32)

        self.input = normal(1, 4 * HIDDEN, len(FEATURES))
        self.recurrent = normal(1, 4 * HIDDEN, HIDDEN)
        self.bias = normal(1, 8 * HIDDEN)
        self.dense = normal(HIDDEN, len(CLASSES))
        self.dense_bias = normal(len(CLASSES))


def build(weights: Weights) -> bytes:
    """Gives the ONNX model: (1, window, features) -> (1, classes)."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r", "b"], ["", "last"], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["last", "axes"], ["state"]),
        helper.make_node("Gemm", ["state", "d", "c"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(weights.input, "w"),
        numpy_helper.from_array(weights.recurrent, "r"),
        numpy_helper.from_array(weights.bias, "b"),
        numpy_helper.from_array(weights.dense, "d"),
        numpy_helper.from_array(weights.dense_bias, "c"),
        numpy_helper.from_array(np.array([0], dtype=np.int64), "axes"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WINDOW, len(FEATURES)])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, len(CLASSES)])]
    graph = helper.make_graph(nodes, "tiny_lstm", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def expected(weights: Weights, rows: list[list[float]]) -> list[float]:
    """Computes the output for unscaled rows, step by step."""
    mean = np.array([feature["mean"] for feature in FEATURES])
    scale = np.array([feature["scale"] for feature in FEATURES])
    hidden, cell = np.zeros(HIDDEN), np.zeros(HIDDEN)
    bias = weights.bias[0, : 4 * HIDDEN] + weights.bias[0, 4 * HIDDEN :]
    for row in (np.array(rows) - mean) / scale:
        gates = weights.input[0] @ row + weights.recurrent[0] @ hidden + bias
        into, out, forget, candidate = np.split(gates, 4)
        cell = _sigmoid(forget) * cell + _sigmoid(into) * np.tanh(candidate)
        hidden = _sigmoid(out) * np.tanh(cell)
    logits = hidden @ weights.dense + weights.dense_bias
    powers = np.exp(logits - logits.max())
    return [float(value) for value in powers / powers.sum()]


def write(folder: Path, name: str, version: str, seed: int) -> None:
    """Writes model.onnx, manifest.json and expected.json."""
    weights = Weights(seed)
    content = build(weights)
    manifest = {
        "format": 1,
        "name": name,
        "version": version,
        "sha256": hashlib.sha256(content).hexdigest(),
        "features": FEATURES,
        "window": WINDOW,
        "classes": CLASSES,
    }
    rows = [[63200.0], [64100.5], [65300.25]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    _write_json(folder / "manifest.json", manifest)
    _write_json(folder / "expected.json", {"rows": rows, "output": expected(weights, rows)})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _sigmoid(value: Any) -> Any:
    return 1 / (1 + np.exp(-value))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Makes a tiny LSTM in ONNX, with its expected output.")
    parser.add_argument("folder", type=Path, help="the models folder: <folder>/<name>/<version> is written")
    parser.add_argument("--name", default="tiny-lstm")
    parser.add_argument("--version", default="1")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    folder = arguments.folder / arguments.name / arguments.version
    write(folder, arguments.name, arguments.version, arguments.seed)
    print(folder)


if __name__ == "__main__":
    main()
