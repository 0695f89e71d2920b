"""PyKEEN: the folder that `PipelineResult.save_to_directory` writes, and vectors beside it."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import numpy as np

from kbench.errors import DataError, first_line
from kbench.knowledge import Bundle, Entity, write_bundle
from kbench.knowledge.importing import (
    Importer,
    ImporterCard,
    Option,
    Options,
    Report,
    check_name,
    fields,
    read_rows,
)
from kbench_tasks.knowledge.cards import LICENCE, card_of, note_unread
from kbench_tasks.knowledge.graphs import collect, count_used
from kbench_tasks.knowledge.linked import LABELS, SENTENCES, Corpus, joined, read_labels
from kbench_tasks.knowledge.matrices import Matrix, add_vectors, count_vectors, load_matrix

__all__ = ["PyKEENImporter"]

_TRIPLES = "`head TAB relation TAB tail` by number, as PyKEEN's training_triples has them"
_LABELS = "`id TAB label`, as PyKEEN's training_triples has them"
_FILES = ("entity_embeddings.npy", "entity_embeddings.safetensors", "model_state.pt")
_TABLES = ("entity_to_id.tsv.gz", "relation_to_id.tsv.gz", "numeric_triples.tsv.gz")
_WEIGHT = re.compile(r"entity_representations\.\d+\._embeddings\.weight")
_EXPORT = (
    'entity_embeddings.npy beside it, written where you trust the file: m = torch.load("'
    'trained_model.pkl", weights_only=False); numpy.save("entity_embeddings.npy", '
    "m.entity_representations[0](None).detach().cpu().numpy())"
)


class PyKEENImporter(Importer):
    """The training triples of a PyKEEN result, and entity vectors from a file that runs no code.

    The trained model itself is a pickle and never opened. Vectors come from
    entity_embeddings.npy, from the only matrix in entity_embeddings.safetensors, or from the
    state of a model (`torch.save(model.state_dict(), "model_state.pt")`), by the numbers of the
    entities. Complex numbers become two each, a real and an imaginary one.
    """

    card = ImporterCard(
        title="PyKEEN result",
        layout="training_triples/{entity_to_id,relation_to_id,numeric_triples}.tsv.gz and, for "
        f"vectors, one of {', '.join(_FILES)}",
        source="https://github.com/pykeen/pykeen",
        licence="as stated by whoever gave you the triples",
    )
    options: ClassVar[Mapping[str, Option]] = {
        "vectors": Option(f"name of the file in SRC; default: the first of {', '.join(_FILES)}"),
        "name": Option("of the bundle; default: the name of SRC"),
        "licence": LICENCE,
        "labels": LABELS,
        "sentences": SENTENCES,
    }

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Reads triples, names and sentences, writes them, then adds the vectors, if any."""
        path = _vectors_path(source, options.text("vectors"))
        folder = source / "training_triples"
        note_unread(report, source, [folder.name, *([path.name] if path else [])], options)
        if folder.is_dir():
            note_unread(report, folder, _TABLES, options)
        numbers = _numbers(folder / "entity_to_id.tsv.gz", "entities", report)
        relations = _numbers(folder / "relation_to_id.tsv.gz", "relations", report)
        triples = collect(_triples(folder, numbers, relations, report), report)
        count_used("relations", relations, triples.relations, report)
        labels = read_labels(next(iter(options.paths("labels")), None), numbers, report)
        matrix = Matrix(_vectors(path, numbers), numbers, _origin(path)) if path else None
        corpus = Corpus(options.paths("sentences"), report)

        def parts() -> Iterator[Entity]:
            yield from (Entity(name, labels.get(name, "")) for name in numbers)
            yield from corpus.named(numbers)

        def card() -> dict[str, Any]:
            about = {
                "name": options.text("name") or source.resolve().name,
                "splits": "the training triples",
                "files": [folder.name, *([path.name] if path else [])],
            }
            return card_of(self, options, report, about)

        bundle = write_bundle(
            target, card, parts(), triples.spelled(), None, corpus.sentences(), join=joined
        )
        if matrix:
            bundle = add_vectors(bundle, matrix)
            count_vectors(bundle, report)
        return bundle


def _vectors_path(source: Path, name: str | None) -> Path | None:
    """Returns the file of vectors, None where there are none at all."""
    if name:
        return source / name
    for usual in _FILES:
        if (source / usual).exists():
            return source / usual
    pickled = source / "trained_model.pkl"
    if pickled.exists():
        raise DataError(pickled, "is a pickle, which can run any code and is never read", _EXPORT)
    return None


def _numbers(path: Path, kind: str, report: Report) -> dict[str, int]:
    """Returns the number of each name."""
    numbers: dict[str, int] = {}
    taken: set[int] = set()
    for _, (at, name) in read_rows(path, kind, _numbered, report, _LABELS, header=1):
        if at in taken or name in numbers:
            report.drop(kind, "seen before")
            continue
        numbers[name] = at
        taken.add(at)
        report.kept[kind] += 1
    if not numbers:
        raise DataError(path, "holds no row", _LABELS)
    return numbers


def _numbered(line: str) -> tuple[int, str]:
    try:
        [row] = csv.reader([line], delimiter="\t", strict=True)  # pandas quotes like this
    except csv.Error as cause:
        raise ValueError(f"has quotes that do not fit ({cause})") from None
    if len(row) != 2:
        raise ValueError(f"has {len(row)} fields where id label belong")
    return _index(row[0]), check_name("label", row[1])


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"has {text!r} where a number belongs")
    return int(text)


def _triples(
    folder: Path, entities: Mapping[str, int], relations: Mapping[str, int], report: Report
) -> Iterator[tuple[str, str, str]]:
    """Yields the training triples by name."""
    entity = {at: name for name, at in entities.items()}
    relation = {at: name for name, at in relations.items()}

    def parse(line: str) -> tuple[str, str, str]:
        head, kind, tail = map(_index, fields(line, ["head", "relation", "tail"]))
        if head not in entity or kind not in relation or tail not in entity:
            raise ValueError(f"has a number without a name ({head}, {kind}, {tail})")
        return entity[head], relation[kind], entity[tail]

    path = folder / "numeric_triples.tsv.gz"
    for _, triple in read_rows(path, "triples", parse, report, _TRIPLES, header=1):
        yield triple


def _origin(path: Path) -> dict[str, str]:
    return {"format": "pykeen", "file": path.name}


def _vectors(path: Path, numbers: Mapping[str, int]) -> Any:
    """Returns vectors by the numbers of the entities. ``[entities, dimension]``."""
    readers = {".npy": _from_npy, ".safetensors": _from_safetensors}
    values = readers.get(path.suffix, _from_state)(path)
    if values.ndim != 2 or values.dtype.kind not in "fc":
        problem = f"holds {values.dtype} of the shape {list(values.shape)}"
        raise DataError(path, problem, "[entities, dimension] of floating-point or complex numbers")
    if len(values) <= max(numbers.values()):
        problem = f"holds {len(values)} rows for entities numbered to {max(numbers.values())}"
        raise DataError(path, problem, "one row for each number in entity_to_id.tsv.gz")
    if values.dtype.kind == "c":
        values = np.ascontiguousarray(values).view(values.real.dtype)
    return values


def _from_npy(path: Path) -> Any:
    return load_matrix(path, kinds="fc")


def _from_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    expected = "one matrix [entities, dimension] as safetensors"
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if len(names) != 1:
                raise DataError(path, f"holds {len(names)} tensors", expected)
            return file.get_tensor(names[0])
    except FileNotFoundError:
        raise DataError(path, "is missing", expected) from None
    except (OSError, SafetensorError, TypeError) as cause:
        raise DataError(path, f"cannot be read ({first_line(cause)})", expected) from None


def _from_state(path: Path) -> Any:
    """Returns the entity embeddings of the state of a model, side by side if there are several."""
    import torch

    try:
        with warnings.catch_warnings():
            # torch says so, and then fails, for what `model.save_state` of PyKEEN writes.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(path, "is missing", _EXPORT) from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, UnpicklingError):
        # Not what torch says: it advises to run the code.
        raise DataError(path, "is no state that can be read safely", _EXPORT) from None
    embeddings = [
        value
        for name, value in (state.items() if isinstance(state, Mapping) else ())
        if _WEIGHT.fullmatch(str(name)) and isinstance(value, torch.Tensor) and value.ndim == 2
    ]
    if not embeddings or len({len(value) for value in embeddings}) > 1:
        raise DataError(path, "has no embeddings of entities alone", _EXPORT)
    return torch.cat(embeddings, dim=1).float().numpy()
