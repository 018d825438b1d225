"""`manifest.json`: what a model takes, what it answers, and the digest of its bytes."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MAX_MANIFEST_BYTES = 256 * 1024
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,63}$")


class ModelError(Exception):
    """A model that cannot be used; the message says why."""


class ModelClass(StrEnum):
    """What a model can say: the side it would take, or none."""

    BUY = "buy"
    SELL = "sell"
    HOLD = "hold"


class Feature(BaseModel):
    """A number of each alert, and its scaling: the model sees `(value - mean) / scale`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    # `price`, `quantity` or `position_size` of the alert, or a name in its object `features`.
    name: Annotated[str, Field(pattern=NAME.pattern)]
    mean: float = 0.0
    scale: Annotated[float, Field(gt=0)] = 1.0


class Manifest(BaseModel):
    """`window` alerts of a strategy's symbol, the oldest first, are the rows of the input.

    Input: float32 of shape (1, window, features). Output: float32 of shape (1, classes), probabilities.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    name: Annotated[str, Field(pattern=NAME.pattern)]
    version: Annotated[str, Field(pattern=NAME.pattern)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    features: Annotated[list[Feature], Field(min_length=1, max_length=256)]
    window: Annotated[int, Field(ge=1, le=512)]
    classes: Annotated[list[ModelClass], Field(min_length=2, max_length=3)]

    @model_validator(mode="after")
    def names_differ(self) -> Self:
        names = [feature.name for feature in self.features]
        if len(set(names)) < len(names) or len(set(self.classes)) < len(self.classes):
            raise ValueError("features and classes must differ from each other")
        return self


def read_manifest(folder: Path) -> Manifest:
    """Reads `manifest.json` of a version's folder, `<name>/<version>`.

    Raises:
        ModelError: missing, too large, not valid, or of another name or version than the folder's.
    """
    content = read_bounded(folder / "manifest.json", MAX_MANIFEST_BYTES)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ModelError(f"manifest.json: {place}: {first['msg']}") from None
    if (manifest.name, manifest.version) != (folder.parent.name, folder.name):
        raise ModelError(f"manifest.json is that of {manifest.name} {manifest.version}")
    return manifest


def read_bounded(path: Path, limit: int) -> bytes:
    """Reads a file of at most `limit` bytes.

    Raises:
        ModelError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ModelError(f"{path.name}: {error.strerror}") from None
    if len(content) > limit:
        raise ModelError(f"{path.name} is larger than {limit} bytes")
    return content
