"""A plug that leaves home: a folder of safetensors, a configuration, and a card for people.

Nothing in it is code, and nothing of it names code but by names that must be installed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kbench.data.files import file_digest
from kbench.data.json_text import read_json
from kbench.errors import DataError
from kbench.spec import RunSpec

__all__ = ["CARD", "CONFIG", "MODEL", "PLUG", "PlugConfig", "read_config", "weights_of"]

CONFIG = "config.json"
PLUG = "plug.safetensors"
MODEL = "model.safetensors"
CARD = "README.md"
_EXPECTED = "what `kbench export plug` wrote"


class PlugConfig(BaseModel):
    """What ``config.json`` of a plug holds.

    Attributes:
        format: of this file.
        kbench: version that wrote it.
        revision: of the engine that trained it.
        result: id of the run.
        spec: of the run; data, backbone and knowledge base by their last name, for a path means
            nothing elsewhere.
        method_revision: of the method's code.
        choice: what a general plug chose on dev of the run's task; None where it chooses nothing.
        digests: of the backbone, the knowledge base and the data, by content.
        addresses: of the plug and the downstream model.
        frozen: SHA-256 of the downstream model's weights.
        files: SHA-256 of the files of weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    kbench: str
    revision: int
    result: str
    spec: RunSpec
    method_revision: str
    choice: Any = None
    digests: dict[str, str | None]
    addresses: dict[str, str | None]
    frozen: str
    files: dict[str, str] = Field(default_factory=dict)


def read_config(folder: Path) -> PlugConfig:
    """Reads the configuration of a plug.

    Raises:
        DataError: it is missing, or none.
    """
    path = folder / CONFIG
    value = read_json(path, _EXPECTED)
    try:
        return PlugConfig.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(path, f"{where}: {first['msg']}", _EXPECTED) from None


def weights_of(folder: Path, config: PlugConfig, name: str) -> dict[str, Any]:
    """Reads a file of weights, which must be the one that the configuration is of.

    Args:
        folder: of the plug.
        config: its configuration.
        name: :data:`PLUG` or :data:`MODEL`.

    Returns:
        tensors by name.

    Raises:
        DataError: it is missing, damaged or another one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path, stated = folder / name, config.files.get(name, "")
    try:
        found = file_digest(path)
        if found != stated:
            raise DataError(path, f"has SHA-256 {found[:12]}…", f"{stated[:12]}…, as in {CONFIG}")
        tensors: dict[str, Any] = load_file(path)
        return tensors
    except (OSError, SafetensorError) as cause:
        raise DataError(path, f"cannot be read ({cause})", _EXPECTED) from None
