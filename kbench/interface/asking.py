"""What is asked for, by a call or by the command: grids, and where and how they are run.

Both say it by the same words, which lead to the same addresses, because they are read here alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

from kbench.errors import UsageError, nearest
from kbench.grid import runner
from kbench.grid.executor import Executor, Limits, Setup, find_executor
from kbench.grid.grids import Grid, make_grids, read_grid
from kbench.grid.plan import Place
from kbench.interface.demos import DEMOS
from kbench.spec import Control, RunSpec, Setting

__all__ = ["AXES", "Asked", "GridSource", "Means", "asked"]

AXES = ("task", "method", "setting", "tuning", "backbone", "knowledge", "control", "seed")
"""What a grid has several of."""
_SINGLE = ("limit", "data", "linker", "dtype", "weights", "chat")
_NAMED: Mapping[str, type[Setting] | type[Control]] = {"setting": Setting, "control": Control}
GridSource: TypeAlias = str | Path | Mapping[str, Any]
"""A grid: the path of its file, or what would stand in it."""


@dataclass(frozen=True)
class Means:
    """Where results go and how they are computed: the options of `kbench run` beside the grid's.

    Attributes:
        out: the folder of results.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        threads: CPU threads of each process; None leaves torch's choice.
        jobs: runs at once, in processes of their own.
        evaluation_batch: examples predicted at once; None for what suits the device.
        deterministic: whether the same work gives the same bits on a GPU.
        compile: whether frozen networks run as compiled code.
        locality: whether it is measured how far plugs move what the model says.
        spread: whether one backbone is parted among all GPUs.
        executor: who works: ``local`` or ``ray``.
        option: options of the executor.
        time_limit: of one run, in seconds.
        memory_limit: of one run, in bytes.
        track: names of trackers that are told too.
    """

    out: Path | str = "kbench-results"
    device: str = "auto"
    threads: int | None = None
    jobs: int | None = None
    evaluation_batch: int | None = None
    deterministic: bool = True
    compile: bool = False
    locality: bool = False
    spread: bool = False
    executor: str = "local"
    option: Mapping[str, str] = field(default_factory=dict)
    time_limit: float | None = None
    memory_limit: int | None = None
    track: Sequence[str] = ()

    @classmethod
    def words(cls) -> list[str]:
        """Returns the names of all of them."""
        return [each.name for each in fields(cls)]

    def place(self) -> Place:
        """Returns where a grid runs.

        Raises:
            UsageError: a model cannot be parted among GPUs as asked.
        """
        if self.spread:
            from kbench.model.placing import check_spread

            if (self.jobs or 1) > 1 or self.device not in ("auto", "cuda"):
                raise UsageError(
                    "--spread takes all GPUs for one model; expected no --jobs, no --device"
                )
            check_spread()
        return replace(
            Place.default(Path(self.out), self.device),
            threads=self.threads,
            evaluation_batch=self.evaluation_batch,
            deterministic=self.deterministic,
            compiled=self.compile,
            locality=self.locality,
            spread=self.spread,
        )

    def worker(self) -> Executor:
        """Returns who works through a plan.

        Raises:
            UsageError: there is no such executor, or it has no such option.
        """
        limits = Limits(self.time_limit, self.memory_limit)
        setup = Setup(jobs=self.jobs or 1, limits=limits, options=self.option)
        return find_executor(self.executor)(setup)


@dataclass(frozen=True)
class Asked:
    """Grids that are asked for.

    Attributes:
        grids: the grids.
        settings: what ``--set`` says of their options.
        narrowed: the axes that are chosen of beside the grid's own file.
        demo: whether they are an embedded demo.
    """

    grids: Sequence[Grid]
    settings: Sequence[str] = ()
    narrowed: Sequence[str] = ()
    demo: bool = False

    def specs(self, offline: bool = False) -> tuple[list[RunSpec], list[int], list[str]]:
        """Returns the runs, the turn of each, and what is to be said of options that none has.

        Args:
            offline: download no backbone to find out which way it reads.

        Raises:
            UsageError: a name is unknown.
        """
        found = runner.turns(*self.grids, offline=offline)
        specs = [spec for spec, _ in found]
        unused = [*runner.unused(self.grids, specs, self.settings, self.narrowed)]
        return specs, [turn for _, turn in found], unused


def asked(
    grid: GridSource | None,
    given: Mapping[str, Any],
    settings: Sequence[str] = (),
    demo: str | None = None,
) -> Asked:
    """Reads what is asked for; where nothing is, that is the first demo.

    Args:
        grid: the grid, if there is one.
        given: what is chosen beside it, by the names of the axes and of ``limit``, ``data``,
            ``linker``, ``dtype``, ``weights``, ``chat`` and ``options``; None is not chosen.
        settings: options as ``KIND.PART.KEY=VALUE``.
        demo: an embedded grid in the place of one.

    Raises:
        UsageError: it cannot be understood.
        DataError: the file of the grid cannot be read.
    """
    if demo is not None and demo not in DEMOS:
        raise UsageError(f"--demo {demo!r}{nearest(demo, DEMOS)}")
    if demo is not None and grid is not None:
        said = grid if isinstance(grid, str | Path) else "a grid"
        raise UsageError(f"--demo {demo} and {said}: a demo is a grid of its own; give one of them")
    chosen = {name: given[name] for name in (*AXES, *_SINGLE) if given.get(name) is not None}
    for name, kind in _NAMED.items():
        if chosen.get(name) == "all":
            chosen[name] = ",".join(kind)
    demo = demo or (
        next(iter(DEMOS)) if grid is None and not {"task", "method"} & chosen.keys() else None
    )
    file = DEMOS[demo] if demo else grid
    values = file if isinstance(file, Mapping) else {} if file is None else read_grid(Path(file))
    if given.get("options"):
        values = {**values, "options": {**values.get("options", {}), **given["options"]}}
    origin = str(grid) if isinstance(grid, str | Path) else "the options"
    # Options that stand in a file may be of what is not chosen; those of a call are meant.
    narrowed = () if file is None else tuple(name for name in AXES if name in chosen)
    made = make_grids(values, origin, chosen, settings)
    return Asked(made, tuple(settings), narrowed, demo is not None)
