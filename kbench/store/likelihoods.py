"""What a model said of candidates, in the file of its predictions.

The log-probabilities of an example are a list of float32 in the column ``said``, the numbers of
its candidates another in ``which`` where not all examples have all, and what is said of them after
nothing one in ``nothing`` where it differs from example to example. What is said of the candidates
once for all stands as JSON in the file's metadata: four bytes a candidate and example is all that
grows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kbench.data import SCORERS, Likelihoods
from kbench.data.json_text import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyarrow import Table
    from pyarrow.parquet import ParquetFile

__all__ = ["LIKELIHOODS", "likelihoods_of", "with_likelihoods"]

_KEY = b"kbench candidates"
_FILLED = 1 << 27
"""Places that lists of several lengths may take as one array, if they are not half full."""
LIKELIHOODS = _SAID, _WHICH, _NOTHING = "said", "which", "nothing"
"""Their columns."""


def with_likelihoods(table: Table, likelihoods: Likelihoods) -> Table:
    """Returns predictions with what was said of candidates beside them."""
    import numpy as np
    import pyarrow as pa

    of_each = _there(likelihoods)
    bounds = pa.array(np.concatenate([[0], np.cumsum(of_each.sum(1))]), pa.int32())
    columns = {_SAID: pa.array(likelihoods.said[of_each], pa.float32())}
    if likelihoods.which is not None:
        columns[_WHICH] = pa.array(likelihoods.which[of_each], pa.int32())
    of_all = likelihoods.nothing.ndim == 1
    if not of_all:
        columns[_NOTHING] = pa.array(likelihoods.nothing[of_each], pa.float32())
    for name, values in columns.items():
        table = table.append_column(name, pa.ListArray.from_arrays(bounds, values))
    about = {
        "names": list(likelihoods.names),
        "sizes": {name: list(sizes) for name, sizes in likelihoods.sizes.items()},
        "nothing": likelihoods.nothing.tolist() if of_all else None,
        "scorer": likelihoods.scorer,
        "thresholds": dict(likelihoods.thresholds),
        "fallback": likelihoods.fallback,
        **({"answers": list(likelihoods.answers)} if likelihoods.answers else {}),
    }
    text = json.dumps(about, ensure_ascii=True, allow_nan=False)
    return table.replace_schema_metadata({_KEY: text.encode("ascii")})


def _there(likelihoods: Likelihoods) -> NDArray[Any]:
    """Which candidates each example has. ``[examples, most]``, bool."""
    import numpy as np

    if likelihoods.which is None:
        return np.ones(likelihoods.said.shape, dtype=bool)
    there: NDArray[Any] = likelihoods.which >= 0
    return there


def likelihoods_of(file: ParquetFile) -> Likelihoods | None:
    """Returns what was said of candidates; None where none were scored.

    Raises:
        ValueError: it is no such thing as kbench writes.
        KeyError: a part of it is missing.
        TypeError: it is of another form.
        RecursionError: it is nested too deep.
    """
    import numpy as np

    written = (file.schema_arrow.metadata or {}).get(_KEY)
    if written is None:
        return None
    about = parse_json(written.decode("ascii"))
    names, counts = _about(about)
    there = file.schema_arrow.names
    wanted = [_SAID, *(name for name in (_WHICH, _NOTHING) if name in there)]
    table = file.read(columns=wanted)
    said, of_each = _likely(table, _SAID)
    if "answers" in about and not of_each.all():
        raise ValueError("questions without a candidate")
    which = None
    if _WHICH in wanted:
        flat, lengths = _lists(table, _WHICH, np.int32)
        if (lengths != of_each).any() or ((flat < 0) | (flat >= len(names))).any():
            raise ValueError("numbers of candidates that are none")
        which = _padded(flat, of_each, -1)
    elif (of_each != len(names)).any():
        raise ValueError("examples that have not all candidates")
    if _NOTHING in wanted:
        flat, lengths = _likely(table, _NOTHING)
        if (lengths != of_each).any():
            raise ValueError("candidates of another form")
        nothing = _padded(flat, of_each, 0)
    else:
        nothing = _floats(about["nothing"], len(names))
    return Likelihoods(
        names=names,
        sizes=counts,
        nothing=nothing,
        said=_padded(said, of_each, -np.inf),
        which=which,
        scorer=about["scorer"],
        thresholds=about["thresholds"],
        fallback=about["fallback"],
        answers=tuple(about.get("answers", ())),
    )


def _about(about: Any) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Checks what is said of the candidates; returns their names and sizes.

    Raises:
        ValueError: it is something else.
    """
    names, sizes, thresholds = about["names"], about["sizes"], about["thresholds"]
    right = (
        isinstance(about["scorer"], str)
        and isinstance(names, list)
        and names
        and all(isinstance(name, str) for name in names)
        and isinstance(sizes, dict)
        and {*sizes} in ({"mean", "char", "byte"}, set())
        and all(_are_sizes(own, len(names)) for own in sizes.values())
        and about["scorer"] in SCORERS
        and isinstance(about["fallback"], bool)
        and isinstance(thresholds, dict)
        and _are_thresholds(thresholds)
        and ("answers" not in about or _are_answers(about["answers"], len(names)))
    )
    if not right:
        raise ValueError("candidates of another form")
    return tuple(names), {name: tuple(own) for name, own in sizes.items()}


def _are_sizes(own: Any, number: int) -> bool:
    return (
        isinstance(own, list)
        and len(own) == number
        and all(type(size) is int and 0 < size < 2**31 for size in own)
    )


def _are_answers(own: Any, number: int) -> bool:
    return (
        isinstance(own, list)
        and len(own) == number
        and all(type(answer) is int and 0 <= answer < 2**31 for answer in own)
    )


def _are_thresholds(thresholds: Mapping[str, Any]) -> bool:
    finite = all(isinstance(v, float) and math.isfinite(v) for v in thresholds.values())
    return finite and ({*thresholds} == {*SCORERS} or not thresholds)


def _floats(values: Any, number: int) -> NDArray[Any]:
    import numpy as np

    with np.errstate(over="ignore"):
        found = np.array(values, dtype=np.float64).astype(np.float32)
    if found.shape != (number,) or not np.isfinite(found).all():
        raise ValueError("candidates of another form")
    return found


def _likely(table: Table, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Log-probabilities of candidates, and how many each example has."""
    import numpy as np

    values, lengths = _lists(table, name, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("log-probabilities that are not finite")
    return values, lengths


def _lists(table: Table, name: str, dtype: type) -> tuple[NDArray[Any], NDArray[Any]]:
    """The values of a column of lists, one behind the other, and the length of each list."""
    import pyarrow as pa

    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no chunk
        column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
    values = column.flatten()
    if column.null_count or values.null_count or values.type != pa.from_numpy_dtype(dtype):
        raise ValueError(f"a column {name} of another form")
    return values.to_numpy(), column.value_lengths().to_numpy()


def _padded(flat: NDArray[Any], lengths: NDArray[Any], filling: float) -> NDArray[Any]:
    """Lists of several lengths as one array. ``[lists, most]``.

    Raises:
        ValueError: one is so long that all would be as long for its sake.
    """
    import numpy as np

    most = int(lengths.max()) if len(lengths) else 0
    if len(lengths) * most > max(_FILLED, 2 * len(flat)):
        raise ValueError(f"{len(lengths):,} lists, one of them of {most:,} candidates")
    padded = np.full((len(lengths), most), filling, dtype=flat.dtype)
    padded[np.arange(most) < lengths[:, None]] = flat
    return padded
