"""A model in ONNX, run by onnxruntime, which is imported when the first model is loaded."""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tradingbot.inference.manifest import Manifest, ModelError, read_bounded, read_manifest

MAX_MODEL_BYTES = 256 * 1024 * 1024
_SUM_TOLERANCE = 1e-3


class OnnxModel:
    """A loaded model: its bytes had the digest of its manifest, and it answered a first input of zeros."""

    def __init__(self, manifest: Manifest, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        if digest != manifest.sha256:
            raise ModelError(f"model.onnx has the SHA-256 {digest}, its manifest says {manifest.sha256}")
        self.manifest = manifest
        self._session = _start(content)
        self._input, self._output = _ends(self._session, manifest)
        width = len(manifest.features)
        self.predict([[0.0] * width] * manifest.window)

    def predict(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """Gives the probability of each class; `rows` are unscaled, the oldest first.

        Raises:
            ModelError: the rows or the answer have another shape than the manifest's, or are not finite.
        """
        import numpy

        features = self.manifest.features
        values = numpy.asarray(rows, dtype=numpy.float64)
        if values.shape != (self.manifest.window, len(features)):
            raise ModelError(f"the input has the shape {values.shape}")
        mean = numpy.asarray([feature.mean for feature in features])
        scale = numpy.asarray([feature.scale for feature in features])
        scaled = ((values - mean) / scale).astype(numpy.float32)[numpy.newaxis]
        if not numpy.isfinite(scaled).all():
            raise ModelError("a feature is not a finite number")
        try:
            answer = numpy.asarray(self._session.run([self._output], {self._input: scaled})[0])
        except _runtime_errors() as error:
            raise ModelError(f"onnxruntime: {_first_line(error)}") from None
        return self._probabilities(answer)

    def _probabilities(self, answer: Any) -> list[float]:
        if answer.shape != (1, len(self.manifest.classes)):
            raise ModelError(
                f"the output has the shape {answer.shape}, not (1, {len(self.manifest.classes)})"
            )
        probabilities = [float(value) for value in answer[0]]
        in_range = all(-_SUM_TOLERANCE <= value <= 1 + _SUM_TOLERANCE for value in probabilities)
        if not in_range or abs(sum(probabilities) - 1) > _SUM_TOLERANCE:
            raise ModelError("the output is not a list of probabilities")
        return probabilities


def load_model(folder: Path) -> OnnxModel:
    """Loads `<folder>/model.onnx`: the bytes that are hashed are the bytes that are loaded.

    Raises:
        ModelError: naming what is wrong with it.
    """
    manifest = read_manifest(folder)
    return OnnxModel(manifest, read_bounded(folder / "model.onnx", MAX_MODEL_BYTES))


def _start(content: bytes) -> Any:
    if importlib.util.find_spec("onnxruntime") is None:
        raise ModelError("onnxruntime is not installed: build the image with the extra `inference`")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Small models gain nothing from more threads, and the worker has other work for its processors.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except _runtime_errors() as error:
        raise ModelError(f"onnxruntime: {_first_line(error)}") from None


def _ends(session: Any, manifest: Manifest) -> tuple[str, str]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(f"{len(inputs)} inputs and {len(outputs)} outputs; one of each is needed")
    if inputs[0].type != "tensor(float)" or outputs[0].type != "tensor(float)":
        raise ModelError("input and output must be float32")
    return inputs[0].name, outputs[0].name


def _runtime_errors() -> tuple[type[Exception], ...]:
    """Its errors have no base in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "RuntimeException",
    )
    return (*(getattr(state, name) for name in names), RuntimeError, ValueError)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
