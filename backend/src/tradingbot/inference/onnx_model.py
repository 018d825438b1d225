"""A model in ONNX, run by onnxruntime, which is imported when the first model is loaded."""

import functools
import hashlib
import importlib.util
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tradingbot.inference.manifest import Manifest, ModelError, read_bounded, read_manifest

MAX_MODEL_BYTES = 256 * 1024 * 1024
_SUM_TOLERANCE = 1e-3
# Seconds until an answer is given up: a signal waits for it, and so does every other that has a model.
LONGEST_RUN = 5.0
# Where data of a model that is not in its own bytes is looked for. Without this it is the working directory.
_NOWHERE = "/dev/null/nowhere"


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
            ModelError: the rows or the answer have another shape than the manifest's, or are not finite; or
                there was no answer in time.
        """
        import numpy

        features = self.manifest.features
        values = numpy.asarray(rows, dtype=numpy.float64)
        if values.shape != (self.manifest.window, len(features)):
            raise ModelError(f"the input has the shape {values.shape}")
        mean = numpy.asarray([feature.mean for feature in features])
        scale = numpy.asarray([feature.scale for feature in features])
        with numpy.errstate(all="ignore"):  # what overflows is not finite
            scaled = ((values - mean) / scale).astype(numpy.float32)[numpy.newaxis]
        if not numpy.isfinite(scaled).all():
            raise ModelError("a feature is not a finite number")
        return self._probabilities(numpy.asarray(self._run(scaled)))

    def _run(self, values: Any) -> Any:
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.log_severity_level = 4
        limit = threading.Timer(LONGEST_RUN, setattr, (options, "terminate", True))
        limit.start()
        try:
            return self._session.run([self._output], {self._input: values}, options)[0]
        except _runtime_errors() as error:
            if options.terminate:
                raise ModelError(f"no answer within {LONGEST_RUN:g} s") from None
            raise ModelError(f"onnxruntime: {_first_line(error)}") from None
        finally:
            limit.cancel()

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
    # It would report its use to its makers, and keep a database for that in the home folder.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Small models gain nothing from more threads, and the worker has other work for its processors.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
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


@functools.cache
def _runtime_errors() -> tuple[type[Exception], ...]:
    """Its errors have no base in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
