"""The models in MODELS_DIR: which version is active, and that version loaded.

    <name>/<version>/model.onnx, manifest.json
    <name>/active                the active version, a line of text

`active` is replaced by renaming another file over it, so a reader sees the old version or the new one.
"""

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import structlog

from tradingbot.inference.manifest import NAME, Manifest, ModelError, read_bounded
from tradingbot.inference.models import PredictionStatus
from tradingbot.inference.onnx_model import OnnxModel, load_model

log = structlog.stdlib.get_logger("tradingbot.inference")

_POINTER = "active"
_MAX_POINTER_BYTES = 256


@dataclass(frozen=True)
class Answer:
    """What came of asking a model. `outcome` and `probabilities` are there only when it answered."""

    status: PredictionStatus
    model_name: str
    version: str | None = None
    digest: str | None = None
    outcome: str | None = None
    probabilities: Mapping[str, Decimal] | None = None
    reason: str | None = None


@dataclass
class _Slot:
    """A name: the stamp of the pointer that was looked at last, and what is loaded."""

    stamp: tuple[int, int, int] | None = None
    model: OnnxModel | None = None
    reason: str | None = None


class ModelRegistry:
    """Loads models when they are first asked for, and again when `active` changes.

    A version that cannot be loaded leaves the one before in place, and is not tried again before `active`
    changes. Loading and running are in threads: the worker's other tasks go on.
    """

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._slots: dict[str, _Slot] = {}
        self._lock = asyncio.Lock()

    async def manifest(self, name: str) -> Manifest | None:
        """Gives the manifest of the version in use; None if there is none."""
        async with self._lock:
            model = (await asyncio.to_thread(self._refresh, name)).model
        return model.manifest if model else None

    async def predict(self, name: str, rows: Sequence[Sequence[float]]) -> Answer:
        """Asks the active version; `rows` are `window` rows of features, the oldest first. Never raises."""
        async with self._lock:
            return await asyncio.to_thread(self._predict, name, rows)

    def _predict(self, name: str, rows: Sequence[Sequence[float]]) -> Answer:
        slot = self._refresh(name)
        if slot.model is None:
            status = PredictionStatus.FAILED if slot.stamp else PredictionStatus.DISABLED
            return Answer(status, name, reason=slot.reason)
        manifest = slot.model.manifest
        try:
            values = slot.model.predict(rows)
        except ModelError as error:
            return failed(manifest, str(error))
        classes = dict(zip(manifest.classes, values, strict=True))
        return Answer(
            PredictionStatus.OK,
            name,
            manifest.version,
            manifest.sha256,
            max(classes, key=lambda label: classes[label]),
            {label: Decimal(f"{value:.6f}") for label, value in classes.items()},
        )

    def _refresh(self, name: str) -> _Slot:
        slot = self._slots.setdefault(name, _Slot())
        stamp = self._stamp(name)
        if stamp == slot.stamp:
            if stamp is None:
                slot.reason = f"there is no active version of {name}"
            return slot
        slot.stamp = stamp
        if stamp is None:
            slot.model, slot.reason = None, f"there is no active version of {name}"
            log.info("model disabled", model=name)
            return slot
        try:
            model = load_model(self._models_dir / name / read_active(self._models_dir, name))
        except ModelError as error:
            slot.reason = str(error)
            kept = slot.model.manifest.version if slot.model else None
            log.error("model not loaded", model=name, problem=slot.reason, kept=kept)
        else:
            slot.model, slot.reason = model, None
            log.info("model loaded", model=name, version=model.manifest.version, sha256=model.manifest.sha256)
        return slot

    def _stamp(self, name: str) -> tuple[int, int, int] | None:
        if not NAME.match(name):
            return None
        try:
            status = (self._models_dir / name / _POINTER).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def failed(manifest: Manifest, reason: str) -> Answer:
    """The answer of a version that could not answer."""
    return Answer(
        PredictionStatus.FAILED, manifest.name, manifest.version, manifest.sha256, reason=reason[:500]
    )


def read_active(models_dir: Path, name: str) -> str:
    """Gives the active version of a model.

    Raises:
        ModelError: there is none, or what stands there cannot be one.
    """
    content = read_bounded(models_dir / name / _POINTER, _MAX_POINTER_BYTES)
    version = content.decode("ascii", "replace").strip()
    if not NAME.match(version):
        raise ModelError(f"{_POINTER} does not hold the name of a version")
    return version


def activate(models_dir: Path, name: str, version: str) -> None:
    """Makes a version the active one, after loading it.

    Raises:
        ModelError: it cannot be loaded, or the pointer cannot be written.
    """
    if not NAME.match(name) or not NAME.match(version):
        raise ModelError("a name has letters, digits, dots, dashes and underscores")
    load_model(models_dir / name / version)
    folder = models_dir / name
    try:
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".active.")
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{version}\n")
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).replace(folder / _POINTER)
    except OSError as error:
        raise ModelError(
            f"{folder / _POINTER} cannot be written: {error.strerror}; where models are mounted read-only,"
            " write the version into that file on the host"
        ) from None
