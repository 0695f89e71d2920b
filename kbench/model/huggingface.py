"""Any encoder or decoder in the Hugging Face format: a local folder or a hub id."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

from kbench.data.files import (
    canonical_digest,
    file_digest,
    identity,
    is_folder,
    load_json,
    read_front_matter,
)
from kbench.errors import AbsentError, KbenchError, UsageError, first_line
from kbench.model.backbone import Backbone, BackboneSize
from kbench.model.checkpoint import Checkpoint, is_causal, read
from kbench.model.decoder import Decoder
from kbench.model.encoder import Encoder
from kbench.model.gguf import config_of, is_gguf, numbers_in, quietly, tokenizer_of
from kbench.model.language_model import LanguageModel
from kbench.model.placing import settle_places, told
from kbench.model.trial import try_out
from kbench.spec import Held

__all__ = ["HuggingFaceBackbone", "folder_digest", "folder_size", "load_folder", "read_config"]

_TRIED: dict[object, float] = {}
"""What was found where networks were tried, by folder and state of its files."""
_TEMPLATE = "chat_template.jinja"
"""Read only where a chat is asked for, whose address has it: not among what digests a model."""
_READ = ("*.safetensors", "*.json", "vocab.txt", "merges.txt", "*.model")


_NAMING = {"config.json": "transformers_weights", "tokenizer_config.json": "fast_tokenizer_files"}
"""What beside an index of weights may name a file that is read, and under which key."""


@final
class HuggingFaceBackbone(Backbone):
    """A local folder or GGUF file, or a hub id with an optional revision (``name@revision``).

    Only safetensors and GGUF are read and no code of the repository is run.

    Args:
        name: folder, GGUF file or hub id.
        download: whether what is not on disk may be downloaded.
    """

    def __init__(self, name: str, download: bool = True) -> None:
        self.name = name
        self._download = download

    @cached_property
    def path(self) -> Path:
        """The folder or file on disk; downloads a hub id at its pinned revision if need be."""
        local = self._local
        if local is not None:
            return local
        from huggingface_hub import snapshot_download

        repository, _, revision = self.name.partition("@")
        try:
            return Path(
                snapshot_download(
                    repository,
                    revision=revision or None,
                    allow_patterns=[*_READ, _TEMPLATE],
                    local_files_only=not self._download,
                )
            )
        except Exception as cause:  # the hub client raises many kinds, network errors among them
            if not self._download:
                raise AbsentError(f"backbone {self.name} is not downloaded yet") from None
            raise UsageError(
                f"backbone {self.name!r} is no registered name, no folder here, and the hub did "
                f"not give it ({first_line(cause)}); expected one of `kbench ls backbones`, a "
                "folder with config.json and model.safetensors, a .gguf file, or a hub id"
            ) from None

    @cached_property
    def digest(self) -> str:
        return folder_digest(self.path)

    @cached_property
    def left_to_right(self) -> bool:  # type: ignore[override]
        """Whether the model is one of those that are filled as decoders."""
        return is_causal(str(read_config(self.path).get("model_type")))

    @property
    def _local(self) -> Path | None:
        """What the name is on this machine, if it is the name of something here."""
        local = Path(self.name).expanduser()
        return local if is_folder(local) or is_gguf(local) else None

    def config(self) -> dict[str, Any] | None:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        if self._local is not None:
            return read_config(self._local)
        repository, _, revision = self.name.partition("@")
        try:
            cached = try_to_load_from_cache(repository, "config.json", revision=revision or None)
        except HFValidationError:
            return None
        return read_config(Path(cached).parent) if isinstance(cached, str) else None

    @property
    def licence(self) -> str:  # type: ignore[override]
        """What the card beside it says; empty where there is none on disk."""
        said = read_front_matter(self.path / "README.md").get("license")
        return said if isinstance(said, str) else ""

    def size(self) -> BackboneSize:
        return folder_size(self.path)

    def chat_template(self) -> str | None:
        if is_gguf(self.path):
            said = tokenizer_of(self.path).chat_template
        elif (file := self.path / _TEMPLATE).exists():
            said = file.read_text(encoding="utf-8")
        elif (about := self.path / "tokenizer_config.json").exists():
            said = load_json(about).get("chat_template")
        else:
            said = None
        # Of several that have names, the one that is used where none is asked for.
        several = said if isinstance(said, list) else []
        named = {str(one.get("name")): one.get("template") for one in several}
        return named.get("default") if several else said or None

    def load(self) -> LanguageModel:
        return load_folder(self.path)

    def load_held(
        self, weights: Held, device: str = "cpu", *, spread: bool = False
    ) -> LanguageModel:
        """Loads each weight straight into the precision that it is held in, and to its place.

        Raises:
            KbenchError: see :meth:`load`; or there is no GPU for it, or a package is missing.
        """
        how = told(weights, device, spread=spread)
        return load_folder(self.path, weights=weights, how=how)


def read_config(path: Path) -> dict[str, Any]:
    """Returns the configuration of a model in a folder, or in a GGUF file.

    Raises:
        OSError: there is none, or it cannot be read.
        KbenchError: it is no JSON object.
    """
    if is_gguf(path):
        return dict(config_of(path).to_dict())
    file, expected = path / "config.json", "the configuration of a model"
    try:
        config = load_json(file)
    except ValueError as cause:
        problem = f"cannot be read ({first_line(cause)})"
        raise KbenchError(f"{file}: {problem}; expected {expected}") from None
    if not isinstance(config, dict):
        raise KbenchError(f"{file}: is no JSON object; expected {expected}")
    return config


def _files(path: Path) -> list[Path]:
    if is_gguf(path):
        return [path]
    return sorted({file for pattern in _READ for file in path.glob(pattern)})


def folder_digest(folder: Path) -> str:
    """SHA-256 over the files of a model that are read. See :attr:`Backbone.digest`."""
    if is_gguf(folder):  # by its content, whatever it is called
        return canonical_digest({"gguf": file_digest(folder)})
    files = _files(folder)
    _check_named(folder, {path.name for path in files})
    if not any(path.suffix == ".safetensors" for path in files):
        raise KbenchError(
            f"{folder}: no .safetensors file; expected a model folder saved with "
            "save_pretrained (pickled weights are not loaded)"
        )
    return canonical_digest({path.name: file_digest(path) for path in files})


def folder_size(folder: Path) -> BackboneSize:
    """Returns how large a model in a folder or a GGUF file is, from the heads of its files.

    Args:
        folder: a model in the Hugging Face format, or a GGUF file.

    Raises:
        KbenchError: there are no weights, or they cannot be read.
    """
    if is_gguf(folder):
        return BackboneSize(numbers_in(folder), folder.stat().st_size)
    from safetensors import SafetensorError, safe_open

    files = _weights(folder)
    numbers = 0
    try:
        for file in files:
            with safe_open(file, framework="np") as weights:
                numbers += sum(math.prod(weights.get_slice(k).get_shape()) for k in weights.keys())  # noqa: SIM118
        return BackboneSize(numbers, sum(file.stat().st_size for file in files))
    except (OSError, SafetensorError) as cause:
        raise KbenchError(f"{folder}: its weights cannot be read ({first_line(cause)})") from cause


def _weights(folder: Path) -> list[Path]:
    """The files that a model's weights are read from: those of an index, if there is one.

    Raises:
        KbenchError: there are none.
    """
    index = folder / "model.safetensors.index.json"
    named = _names_in(index) if index.is_file() else ["model.safetensors"]
    files = [path for path in _files(folder) if path.name in named]
    if not files:
        raise KbenchError(f"{folder}: no .safetensors file; expected a model folder saved with "
                          "save_pretrained")  # fmt: skip
    return files


def _check_named(folder: Path, known: Collection[str]) -> None:
    """Refuses a folder whose files name others that are read and are not among those hashed.

    Raises:
        KbenchError: an index of weights, or the list of tokenizers, leads elsewhere.
    """
    for path in sorted(folder.glob("*.json")):
        for named in _names_in(path):
            if named not in known:
                raise KbenchError(
                    f"{path}: names {str(named)[:80]!r}, which is no file of the folder that is "
                    "read; expected weights and tokenizers that lie beside it"
                )


def _names_in(path: Path) -> Sequence[object]:
    """Returns the files that a file of a model has transformers read."""
    weights = path.name.endswith(".safetensors.index.json")
    if not weights and path.name not in _NAMING:
        return []
    try:
        said = load_json(path)
    except (OSError, ValueError):
        return []  # told where it is read
    told = said.get("weight_map" if weights else _NAMING[path.name]) if type(said) is dict else None
    if isinstance(told, dict):
        return sorted({*map(str, told.values())})
    return told if isinstance(told, list) else [] if told is None else [told]


def load_folder(
    folder: Path,
    segments: int | None = None,
    weights: Held = "float32",
    how: Mapping[str, Any] | None = None,
) -> LanguageModel:
    """Loads an encoder, with the heads that its weights have, or a causal language model.

    What it can do is tried on a few short texts, once a process for the files as they are.

    Args:
        folder: a model in the Hugging Face format, or a GGUF file.
        segments: how many segments it was trained with, if fewer than it has.
        weights: how they are held.
        how: what ``from_pretrained`` is told of it (:func:`kbench.model.placing.told`).

    Raises:
        KbenchError: the folder is no model, its weights do not fit, it has no fast tokenizer, or
            it does not do what kbench asks of a language model.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), quietly():
            warnings.simplefilter("ignore")
            read_config(folder)
            _check_named(folder, {path.name for path in _files(folder)})
            tokenizer = _tokenizer(folder)
            # Where there are no files, transformers makes a tokenizer that knows no word.
            if not tokenizer.is_fast or len(tokenizer) <= len(tokenizer.all_special_tokens):
                raise KbenchError(f"{folder}: has no fast tokenizer; expected a tokenizer.json")
            checkpoint = read(folder, how or told(weights))
            lm = _wrapped(checkpoint, tokenizer, segments).eval()
            lm.settled = settle_places(lm.network)
    except (KbenchError, KeyboardInterrupt):
        raise
    except BaseException as cause:  # whatever a stranger's files make it raise, and Rust panic
        # Which of the files it is stands in an error of the system alone.
        file = getattr(cause, "filename", None) or folder
        problem = f"cannot be loaded as a language model ({first_line(cause)})"
        raise KbenchError(f"{file}: {problem}") from cause
    lm.rounding = _rounding(folder, lm, weights)
    return lm


def _tokenizer(path: Path) -> Any:
    import transformers

    if is_gguf(path):
        return tokenizer_of(path)
    return transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)


def _wrapped(checkpoint: Checkpoint, tokenizer: Any, segments: int | None) -> LanguageModel:
    network, unread = checkpoint.network, checkpoint.unread
    if checkpoint.left_to_right:
        return Decoder(network, tokenizer, unread=unread)
    return Encoder(network, tokenizer, pooler=checkpoint.pooler, segments=segments, unread=unread)


def _rounding(folder: Path, lm: LanguageModel, weights: Held) -> float:
    """What :func:`try_out` says of a network, which is tried where its files are new."""
    state = (weights, *(tuple(identity(path.resolve())) for path in _files(folder)))
    if state not in _TRIED:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _TRIED[state] = try_out(lm)
        except KbenchError as problem:
            raise KbenchError(f"{folder}: {problem}") from problem.__cause__
    return _TRIED[state]
