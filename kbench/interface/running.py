"""`kbench run` as a function: the same words, the same addresses, the same results."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, Unpack

from kbench.errors import InputError, UsageError, nearest
from kbench.grid.plan import Cell, Events
from kbench.interface.asking import Asked, GridSource, Means, asked
from kbench.interface.reading import Runs
from kbench.interface.working import A100, Plan, planned, prepared
from kbench.store import Result, Status

__all__ = ["Words", "backbone_name", "plan", "run"]

_Names: TypeAlias = str | Path | Sequence[str | Path]
_Backbone: TypeAlias = str | Path | tuple[Any, Any]


class Words(TypedDict, total=False):
    """What a grid chooses, by the names of the command's options: names, comma lists or lists.

    A ``backbone`` may also be a model and its tokenizer in memory, as ``(model, tokenizer)``.
    ``options`` is as in a grid file, by kind, part and key. What is not given is as in the grid,
    or else as the command has it.
    """

    task: _Names
    method: _Names
    setting: _Names
    tuning: _Names
    backbone: _Backbone | Sequence[_Backbone]
    knowledge: _Names
    control: _Names
    seed: int | str | Sequence[int | str]
    limit: float | None
    data: str | Path | None
    linker: str | None
    dtype: str | None
    weights: str | None
    chat: bool | None
    options: Mapping[str, Mapping[str, Mapping[str, Any]]]


def run(
    grid: GridSource | None = None,
    *,
    demo: str | None = None,
    set: Sequence[str] = (),
    out: str | Path = "kbench-results",
    device: str = "auto",
    threads: int | None = None,
    jobs: int | None = None,
    evaluation_batch: int | None = None,
    deterministic: bool = True,
    compile: bool = False,
    locality: bool = False,
    spread: bool = False,
    executor: str = "local",
    option: Mapping[str, str] | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    track: Sequence[str] = (),
    fail_fast: bool = False,
    tell: Callable[[str], None] | None = None,
    **words: Unpack[Words],
) -> Runs:
    """Runs every method on every task; what is stored already is not run again.

    It takes the words of ``kbench run`` and leaves the same results, at the same addresses. A run
    that fails is a result too, with its reason; it does not raise.

    Args:
        grid: the path of a grid file, or what would stand in it.
        demo: an embedded grid, ``encoder`` or ``decoder``. Without it, a grid, a task and a
            method the first runs.
        set: options as ``KIND.PART.KEY=VALUE``.
        out: the folder of results.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        threads: CPU threads of each process.
        jobs: runs at once; more than one are in processes of their own, which begin with the
            program's main module: a script then needs ``if __name__ == "__main__":``.
        evaluation_batch: examples predicted at once.
        deterministic: whether the same work gives the same bits on a GPU.
        compile: whether frozen networks run as compiled code.
        locality: whether it is measured how far plugs move what the model says.
        spread: whether one backbone is parted among all GPUs.
        executor: who works: ``local`` or ``ray``.
        option: options of the executor.
        time_limit: seconds after which a run is stopped; it counts as failed.
        memory_limit: bytes above which a run is stopped, likewise.
        track: trackers that are told too, by name: ``tensorboard``, ``mlflow``, …
        fail_fast: whether to stop at the first run that fails.
        tell: called with a line when a run has ended, such as ``print``.
        words: what the grid chooses, see :class:`Words`.

    Returns:
        the results of these runs, also of those that were stored before.

    Raises:
        UsageError: something cannot be understood or done so.
        InputError: nothing of what was given could be used.
        ArtifactError: there is no place to write results to.

    Examples:
        >>> run(task="atlas-qa", methods="none")
        Traceback (most recent call last):
        kbench.errors.UsageError: no option 'methods'; did you mean method?
    """
    means = Means(
        out=Path(out),
        device=device,
        threads=threads,
        jobs=jobs,
        evaluation_batch=evaluation_batch,
        deterministic=deterministic,
        compile=compile,
        locality=locality,
        spread=spread,
        executor=executor,
        option=option or {},
        time_limit=time_limit,
        memory_limit=memory_limit,
        track=[track] if isinstance(track, str) else track,
    )
    todo = prepared(_asked(grid, words, set, demo), means)
    for note in todo.notes:
        warnings.warn(note, stacklevel=2)
    results = todo.run(Events(finished=_telling(tell)), fail_fast=fail_fast)
    kept = [result for result in results if result.status != Status.REFUSED]
    refused = [result for result in results if result.status == Status.REFUSED]
    if refused and not kept:
        raise InputError(refused[0].reason)
    for result in refused:
        warnings.warn(f"refused: {result.spec.label}: {result.reason}", stacklevel=2)
    return Runs(Path(out), kept)


def plan(
    grid: GridSource | None = None,
    *,
    demo: str | None = None,
    set: Sequence[str] = (),
    out: str | Path = "kbench-results",
    tflops: float = A100,
    **words: Unpack[Words],
) -> Plan:
    """Returns what :func:`run` would do, and about how many GPU hours that takes.

    Nothing is downloaded, trained or written, but for a model in memory, which is kept in the
    cache to have an address.

    Args:
        grid: as of :func:`run`.
        demo: likewise.
        set: likewise.
        out: likewise.
        tflops: peak of the GPU in TFLOP/s; that of an A100 in float32 if not given.
        words: likewise.

    Returns:
        the plan: its ``runs`` as a frame, its ``estimate``; ``print`` shows it.

    Raises:
        UsageError: something cannot be understood.
    """
    made = planned(_asked(grid, words, set, demo), Path(out), tflops)
    for note in made.notes:
        warnings.warn(note, stacklevel=2)
    return made


def _asked(
    grid: GridSource | None, words: Mapping[str, Any], settings: Sequence[str], demo: str | None
) -> Asked:
    for name in words:
        if name not in Words.__annotations__:
            raise UsageError(f"no option {name!r}{nearest(name, Words.__annotations__)}")
    given = {name: _typed(value) for name, value in words.items()}
    if "backbone" in words:
        given["backbone"] = _backbones(words["backbone"])
    settings = [settings] if isinstance(settings, str) else [*settings]
    return asked(grid, given, settings, demo)


def _typed(value: Any) -> Any:
    """A value as it would be typed: paths as text."""
    if isinstance(value, list | tuple):
        return [_typed(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _backbones(given: Any) -> Any:
    if isinstance(given, list | tuple) and not _is_pair(given):
        return [backbone_name(each) for each in given]
    return backbone_name(given)


def backbone_name(given: Any) -> str:
    """Returns the name of a backbone: of a model in memory the folder that it is kept in.

    Args:
        given: a name or path, or a model and its tokenizer.

    Raises:
        UsageError: it is a pair of something else.
    """
    if not _is_pair(given):
        return str(given)
    from kbench.model.in_memory import kept

    return str(kept(*given))


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and not any(isinstance(each, str | Path | tuple) for each in value)
    )


def _telling(
    tell: Callable[[str], None] | None,
) -> Callable[[Cell, Result], None] | None:
    if tell is None:
        return None

    def finished(cell: Cell, result: Result) -> None:
        score = f"  {100 * result.score.value:.1f}" if result.score else ""
        reason = f"  {result.reason}" if result.reason else ""
        tell(f"{result.status:<8}{result.spec.label}{score}{reason}")

    return finished
