"""Models in one GGUF file, through transformers' own reader: dequantised where they are quantised.

The reader takes seconds to go through the lists of tokens that such a file begins with, and so what
it says of a file is remembered while that stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench.data.files import identity, is_file
from kbench.errors import KbenchError, UsageError, first_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

__all__ = ["config_of", "is_gguf", "located", "numbers_in", "quietly", "tokenizer_of"]

_HELD = 8


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file which is there."""
    return path.suffix.lower() == ".gguf" and is_file(path)


def located(path: Path) -> dict[str, Any]:
    """Returns what ``from_pretrained`` is told to read a model: of a folder, or of one file.

    Args:
        path: a folder in the Hugging Face format, or a GGUF file.
    """
    if not is_gguf(path):
        return {"pretrained_model_name_or_path": path}
    return {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}


def config_of(path: Path) -> PretrainedConfig:
    """Returns the configuration of a GGUF file.

    Args:
        path: the file.

    Raises:
        UsageError: the package that reads such files is not installed.
        KbenchError: the file is none of GGUF, or of an architecture that transformers' reader of
            GGUF does not know.
    """
    return deepcopy(_read("AutoConfig", path))


def tokenizer_of(path: Path) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of a GGUF file.

    Args:
        path: the file.

    Raises:
        UsageError: the package that reads such files is not installed.
        KbenchError: transformers' reader of GGUF does not know it.
    """
    return deepcopy(_read("AutoTokenizer", path))


def numbers_in(path: Path) -> int:
    """Returns how many numbers the weights in a GGUF file have.

    Args:
        path: the file.

    Raises:
        UsageError: the package that reads such files is not installed.
        KbenchError: the file is none of GGUF.
    """
    _check_installed(path)
    from gguf import GGUFReader

    try:
        return sum(int(tensor.n_elements) for tensor in GGUFReader(path).tensors)
    except Exception as cause:  # whatever the file of a stranger makes the reader raise
        raise KbenchError(f"{path}: cannot be read as GGUF ({first_line(cause)})") from cause


def _read(kind: str, path: Path) -> Any:
    _check_installed(path)
    return _known(kind, path.resolve(), tuple(identity(path)))


def _check_installed(path: Path) -> None:
    if find_spec("gguf") is None:
        raise UsageError(
            f"{path}: GGUF files are read by the package gguf, which is not installed; "
            "pip install knowledge-bench[gguf]"
        )


@lru_cache(maxsize=_HELD)
def _known(kind: str, path: Path, _: tuple[str | int, ...]) -> Any:
    import transformers

    try:
        read = getattr(transformers, kind).from_pretrained
        return read(**located(path), trust_remote_code=False, local_files_only=True)
    except Exception as cause:  # whatever the file of a stranger makes the reader raise
        raise KbenchError(f"{path}: cannot be read as GGUF ({first_line(cause)})") from cause


@contextmanager
def quietly() -> Iterator[None]:
    """Keeps the reader from drawing a bar of its own, which transformers' switch does not stop."""
    from transformers import modeling_gguf_pytorch_utils as reader

    drawn = reader.tqdm
    reader.tqdm = partial(drawn, disable=True)
    try:
        yield
    finally:
        reader.tqdm = drawn
