"""Many results in few files: a Parquet file a task, a row a run, of which its folder is made again.

A folder of results has two small files a run, in which ids, gold labels and links of a task stand
again and again. Packed, they stand beside each other in columns, where they cost next to nothing,
and numbers are stored by their bytes: some tenth of the room. A row holds ``result.json`` as it is,
byte for byte, and each column of ``predictions.parquet`` as a list; that file is made of them again
by the code that wrote it, and has the same bytes where the same version of pyarrow writes it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kbench.data.files import atomic_folder, cache_home, canonical_digest, file_digest
from kbench.errors import ArtifactError, DataError, first_line
from kbench.store.pages import Budget, check_budget
from kbench.store.result import Result, read_result, write_table

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "check_unmixed",
    "check_unpacked",
    "is_packed",
    "pack",
    "packs",
    "results_folder",
    "unpack",
]

_MARK = b"kbench packed"
_FORMAT = b"1"
_CANDIDATES = b"kbench candidates"
_RESULT, _PREDICTIONS = "result.json", "predictions.parquet"
_ID = re.compile(r"[0-9a-f]{32}")
_PLAIN = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
_EXPECTED = "results that `kbench leaderboard pack` wrote"
_LARGEST = 4 << 20
"""Bytes of one ``result.json``."""
_BUDGET = Budget(bytes=2 << 30, rows=40_000, values=400_000_000)
"""What one file may unpack to: some 20 times those of a thousand runs over a thousand examples."""
_AT_ONCE = 32
"""Runs that are unpacked at a time."""
_TEXT = ("label", "prediction")
"""Columns that are texts, or lists of such, from run to run; here always lists."""
_COLUMNS: Mapping[str, str] = {
    "id": "text",
    "label": "texts",
    "prediction": "texts",
    "score": "float",
    "linked": "bool",
    "degree": "int",
    "stratum": "text",
    "relation": "text",
    "injected": "texts",
    "in_context": "bool",
    "said": "floats",
    "which": "ints",
    "nothing": "floats",
}
"""Columns of predictions in the order in which they are written; what an example has in each."""
_LEVEL = 19
"""Of zstd: from here on it looks back 8 MB, over some hundred runs."""
_PAGE = 32 << 20


def packs(folder: Path) -> list[Path]:
    """Returns the files of packed results in a folder; none of a folder of results or of a run."""
    if not folder.is_dir() or (folder / _RESULT).exists():
        return []
    found = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    return [path for path in found if path.is_file() and not path.is_symlink()]


def is_packed(folder: Path) -> bool:
    """Whether a folder holds packed results."""
    return bool(packs(folder))


def pack(folder: Path, target: Path) -> list[Path]:
    """Packs a folder of results, those of runs that failed or were skipped too.

    Args:
        folder: of results, a folder each.
        target: the folder of the packed ones; files of the same tasks are replaced.

    Returns:
        the files, one a task.

    Raises:
        DataError: a result cannot be read.
        ArtifactError: nothing can be written there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from kbench.store.folder import written

    by_task: dict[str, list[tuple[tuple[object, ...], Path]]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if _ID.fullmatch(path.name) and path.is_dir():
            result = read_result(path / _RESULT)
            by_task[result.spec.task].append((_order(result), path))
    made = []
    target.mkdir(parents=True, exist_ok=True)
    for task, several in sorted(by_task.items()):
        rows = [_row(path) for _, path in sorted(several)]
        table = pa.Table.from_pylist([], schema=_schema())
        table = pa.concat_tables([table, *rows])
        about = {_MARK: _FORMAT, b"pyarrow": pa.__version__.encode()}
        table = table.combine_chunks().replace_schema_metadata(about)
        path = target / f"{_file_name(task)}.parquet"
        scratch = target / f".{path.name}.tmp"
        with written(path, "give another --out"):
            try:
                pq.write_table(table, scratch, **_writing())
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
        made.append(path)
    return made


def _order(result: Result) -> tuple[object, ...]:
    """Runs that say like things stand side by side."""
    spec = result.spec
    fields = (spec.backbone, spec.tuning, str(spec.control), spec.method, str(spec.setting))
    return (*fields, spec.seed, result.id)


def _file_name(task: str) -> str:
    """The name of a task's file; what is no plain name has a sign that those lack, and a digest."""
    if _PLAIN.fullmatch(task):
        return task
    plain = re.sub(r"[^a-z0-9]+", "-", task.lower()).strip("-")[:60] or "task"
    return f"{plain}.{canonical_digest(task)[:12]}"


def _writing() -> dict[str, Any]:
    """How a packed table is written: texts by dictionaries, numbers by their bytes."""
    names = {name: kind for name, kind in _COLUMNS.items() if kind in ("float", "floats")}
    paths = {
        name: f"{name}.list.element" + (".list.element" if kind == "floats" else "")
        for name, kind in names.items()
    }
    one = ".list.element"
    texts = [name + one for name, kind in _COLUMNS.items() if kind in ("text", "int")]
    texts += [name + one + one for name, kind in _COLUMNS.items() if kind in ("texts", "ints")]
    return {
        "compression": "zstd",
        "compression_level": _LEVEL,
        "use_dictionary": [*texts, "candidates"],
        "column_encoding": dict.fromkeys(paths.values(), "BYTE_STREAM_SPLIT"),
        "data_page_size": _PAGE,
        "dictionary_pagesize_limit": _PAGE,
        "write_statistics": False,
        "row_group_size": _BUDGET.rows,
    }


def _kinds() -> dict[str, pa.DataType]:
    import pyarrow as pa

    one = {"text": pa.string(), "float": pa.float32(), "int": pa.int32(), "bool": pa.bool_()}
    return one | {f"{name}s": pa.list_(one[name]) for name in ("text", "float", "int")}


def _schema() -> pa.Schema:
    """A row a run: its id, its ``result.json``, and of its predictions a list a column.

    ``texts`` names the columns whose values are one text, not several; ``candidates`` is what is
    said of candidates once for all. All but the first two are null where a run has none.
    """
    import pyarrow as pa

    kinds = _kinds()
    fields = [("run", pa.string()), ("result", pa.binary()), ("texts", pa.string())]
    fields += [("candidates", pa.string())]
    return pa.schema(fields + [(name, pa.list_(kinds[kind])) for name, kind in _COLUMNS.items()])


def _row(folder: Path) -> pa.Table:
    """A run as a table of one row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    cells: dict[str, Any] = {name: pa.nulls(1, schema.field(name).type) for name in schema.names}
    cells["run"] = pa.array([folder.name])
    cells["result"] = pa.array([(folder / _RESULT).read_bytes()], pa.binary())
    if (folder / _PREDICTIONS).is_file():
        try:
            with pq.ParquetFile(folder / _PREDICTIONS) as file:
                table = file.read()
            texts = [name for name in _TEXT if pa.types.is_string(table.schema.field(name).type)]
            cells["texts"] = pa.array([",".join(texts)])
            about = (table.schema.metadata or {}).get(_CANDIDATES)
            cells["candidates"] = pa.array([about and about.decode("ascii")], pa.string())
            for name in table.schema.names:
                cells[name] = _listed(_combined(table.column(name)), schema.field(name).type)
            cells["result"] = pa.array([_restated_as_made(folder, cells)], pa.binary())
        except (pa.ArrowException, KeyError, ValueError) as cause:
            problem = f"cannot be packed ({first_line(cause)})"
            raise DataError(folder / _PREDICTIONS, problem, "predictions of a run") from None
    return pa.table(cells, schema=schema)


def _restated_as_made(folder: Path, cells: Mapping[str, Any]) -> bytes:
    """The ``result.json`` of a run whose predictions will be written as they are written here.

    The same bytes; but where another version of pyarrow wrote the predictions it states the digest
    of what will be made of them.
    """
    result = (folder / _RESULT).read_bytes()
    table = _predictions(cells, 0)
    assert table is not None
    with TemporaryDirectory(prefix="kbench-") as scratch:
        again = Path(scratch) / _PREDICTIONS
        write_table(table, again)
        digest = file_digest(again)
    if digest != file_digest(folder / _PREDICTIONS):
        result = _restated(result, digest)
        if digest.encode() not in result:
            raise ValueError(f"{_RESULT} does not state their digest as kbench writes it")
    return result


def _combined(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    found = column.combine_chunks()
    if isinstance(found, pa.ChunkedArray):  # of no chunk, or of one
        found = pa.concat_arrays(found.chunks) if found.chunks else pa.array([], column.type)
    return found


def _listed(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column of predictions as one list; a text where lists are expected as a list of one."""
    import pyarrow as pa

    if pa.types.is_list(kind.value_type) and pa.types.is_string(column.type):
        bounds = pa.array(range(len(column) + 1), pa.int32())
        column = pa.ListArray.from_arrays(bounds, column)
    column = column.cast(kind.value_type)
    return pa.ListArray.from_arrays(pa.array([0, len(column)], pa.int32()), column).cast(kind)


def unpack(
    source: Path, target: Path, wanted: Callable[[Mapping[str, Any]], bool] | None = None
) -> int:
    """Makes the folder of each packed run again.

    Where another version of pyarrow packed them, predictions are the same and the bytes of their
    file are not: then ``result.json`` states the digest of the file that is made here.

    Args:
        source: a folder of packed results, or one of its files.
        target: a folder that is there.
        wanted: whether a run is, by the value of its ``result.json``; all are if not given.

    Returns:
        how many runs were unpacked.

    Raises:
        DataError: a file is damaged, is none of packed results, has a run twice, or would unpack
            to too much.
    """
    count = 0
    for path in packs(source) if source.is_dir() else [source]:
        for key, result, table, as_stated in _rows(path, wanted):
            folder = target / key
            if folder.exists():
                raise DataError(path, f"holds run {key} twice", "each run once")
            folder.mkdir()
            if table is not None:
                write_table(table, folder / _PREDICTIONS)
                if not as_stated:
                    result = _restated(result, file_digest(folder / _PREDICTIONS))
            (folder / _RESULT).write_bytes(result)
            count += 1
    return count


def _rows(
    path: Path, wanted: Callable[[Mapping[str, Any]], bool] | None
) -> Iterator[tuple[str, bytes, pa.Table | None, bool]]:
    """Yields id, ``result.json`` and predictions of each run, and whether bytes are as packed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_budget(path, _BUDGET)
        _check_results(path)
        with pq.ParquetFile(path) as file:
            about = file.schema_arrow.metadata or {}
            if about.get(_MARK) != _FORMAT:
                raise ValueError("it is a table of something else, or of another version")
            if not file.schema_arrow.remove_metadata().equals(_schema()):
                raise ValueError("its columns are others")
            same = about.get(b"pyarrow") == pa.__version__.encode()
            for batch in file.iter_batches(batch_size=_AT_ONCE):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                for at in range(batch.num_rows):
                    key, result = columns["run"][at].as_py(), columns["result"][at].as_py()
                    if not (isinstance(key, str) and _ID.fullmatch(key)) or result is None:
                        raise ValueError("a row is of no run")
                    if wanted is None or wanted(loads(result)):
                        yield key, result, _predictions(columns, at), same
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as cause:
        raise DataError(path, f"cannot be read ({first_line(cause)})", _EXPECTED) from None


def _check_results(path: Path) -> None:
    """Refuses a ``result.json`` that is too large, before the rows are made.

    Raises:
        ValueError: there is one.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, read_dictionary=["result"]) as file:
        for batch in file.iter_batches(batch_size=_AT_ONCE, columns=["result"]):
            several = batch.column(0)
            longest = pc.max(pc.binary_length(getattr(several, "dictionary", several))).as_py()
            if longest is not None and longest > _LARGEST:
                raise ValueError(f"a {_RESULT} has {longest:,} bytes, more than {_LARGEST:,}")


def _predictions(columns: Mapping[str, pa.Array], at: int) -> pa.Table | None:
    """The table of ``predictions.parquet`` of a row, as it was written; None where it has none."""
    import pyarrow as pa

    if not columns["id"][at].is_valid:
        return None
    texts = str(columns["texts"][at].as_py() or "").split(",")
    made: dict[str, pa.Array] = {}
    for name in _COLUMNS:
        if (cell := columns[name][at]).is_valid:
            values = cell.values
            if name in texts and name in _TEXT:
                if values.null_count or len(values.flatten()) != len(values):
                    raise ValueError(f"column {name} has no text of each example")
                values = values.flatten()
            elif isinstance(values, pa.ListArray):
                # What is inside a list is called otherwise where it is read than where it is made.
                values = pa.ListArray.from_arrays(values.offsets, values.values)
            made[name] = values
    table = pa.table(made)
    candidates = columns["candidates"][at].as_py()
    if candidates is not None:
        return table.replace_schema_metadata({_CANDIDATES: candidates.encode("ascii")})
    return table


def _restated(result: bytes, digest: str) -> bytes:
    """A ``result.json`` that states another digest of its predictions, and is the same else."""
    stated = re.compile(rb'("predictions": ")[0-9a-f]{64}(")')
    return stated.sub(rb"\g<1>%s\2" % digest.encode(), result, count=1)


def results_folder(folder: Path) -> Path:
    """Returns a folder of results as it is; of packed ones the folder of what they unpack to.

    That lies in the cache, by the content of the packed files: it is made once.

    Raises:
        DataError: as of :func:`unpack`; or it holds packed results and folders of runs.
    """
    files = packs(folder)
    if not files:
        return folder
    check_unmixed(folder)
    key = canonical_digest([[path.name, file_digest(path)] for path in files])[:32]
    target = cache_home() / "unpacked" / key
    if not target.is_dir():
        with atomic_folder(target) as scratch:
            unpack(folder, scratch)
    return target


def check_unpacked(folder: Path) -> None:
    """Refuses a folder of packed results where single runs are to be written or removed.

    Raises:
        ArtifactError: it is one.
    """
    if is_packed(folder):
        raise ArtifactError(
            f"{folder} holds packed results; expected a folder of runs: give another --out "
            "(`kbench leaderboard pack RUNS --out` adds runs to packed ones)"
        )


def check_unmixed(folder: Path) -> None:
    """Refuses a folder of packed results that holds folders of runs too; any other is fine.

    Raises:
        DataError: it does; whoever read the ones would not see the others.
    """
    if is_packed(folder) and any(_ID.fullmatch(path.name) for path in folder.iterdir()):
        raise DataError(
            folder,
            "holds packed results and folders of runs",
            f"one of them: `kbench leaderboard pack RUNS --out {folder}` adds runs to packed ones",
        )
