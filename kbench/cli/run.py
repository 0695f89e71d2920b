"""`kbench run`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbench.cli import options as shared
from kbench.errors import UsageError
from kbench.grid.grids import make_grids, read_grid
from kbench.spec import Control, Setting

if TYPE_CHECKING:
    from kbench.grid.grids import Grid

__all__ = ["run"]

_DEMOS = {
    "encoder": Path(__file__).with_name("demo.yaml"),
    "decoder": Path(__file__).with_name("demo-decoder.yaml"),
}
_DEMO_JOBS = 4
_AXES = ("task", "method", "setting", "tuning", "backbone", "knowledge", "control", "seed")
_SINGLE = ("limit", "data", "linker", "dtype", "weights", "chat")


def _choices(kind: type[Setting] | type[Control]) -> str:
    return ", ".join(kind)


@click.command("run")
@click.argument("grid", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--config",
    "-C",
    type=click.Path(path_type=Path, dir_okay=False),
    help="GRID, said by an option.",
)
@click.option(
    "--demo",
    type=click.Choice(list(_DEMOS)),
    help="The embedded demo of models that read both ways, or from left to right. Default: the "
    "first, without GRID, --task and --method.",
)
@click.option(
    "--task",
    "-t",
    type=shared.Named("tasks"),
    help="Tasks: a comma list of names and globs, or all.",
)
@click.option("--method", "-m", type=shared.Named("methods"), help="Injection methods, likewise.")
@click.option("--setting", help=f"{_choices(Setting)}, or all. Default: the first two.")
@click.option(
    "--tuning",
    type=shared.Named("tunings"),
    help="Tunings, likewise. Default: full; of probes, frozen; of decoders, prompted.",
)
@click.option(
    "--backbone",
    type=shared.Named("backbones"),
    help="Names, local folders or hub ids. Default: kbench-tiny.",
)
@click.option(
    "--knowledge",
    type=shared.Named("knowledge"),
    help="Knowledge bases by name or folder. Default: atlas.",
)
@click.option("--control", help=f"{_choices(Control)}, or all. Default: the first three.")
@click.option("--seed", help="Seeds, each a run: 0,1,2 are three, and 0-4,7 are six. Default: 0.")
@click.option(
    "--limit",
    type=shared.Limit(),
    help="Examples of each split at most, or a share such as 0.1; marks the result.",
)
@click.option("--data", help="Folder of the task's files, or hf:REPOSITORY[@REVISION].")
@click.option("--linker", help="gold, title or alias. Default: the task's own.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default=None)
@click.option(
    "--weights",
    type=click.Choice(["float32", "bfloat16", "8bit", "4bit"]),
    default=None,
    help="How the weights of a frozen backbone are held (docs/backbones.md).",
)
@click.option(
    "--chat",
    is_flag=True,
    default=None,
    help="Put prompts as messages, by the backbone's own chat template: another protocol.",
)
@click.option("--set", "settings", multiple=True, metavar="KIND.PART.KEY=VALUE", help="An option.")
@shared.out
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of each process.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Runs at once, in processes of their own. Default: 1; for the demo as many as the CPU "
    f"has cores, at most {_DEMO_JOBS}, of one thread each.",
)
@click.option(
    "--evaluation-batch",
    type=click.IntRange(min=1),
    help="Examples predicted at once. Default: 128, on a CPU fewer where they are long.",
)
@click.option(
    "--deterministic/--no-deterministic",
    default=True,
    show_default=True,
    help="The same bits again on the same GPU.",
)
@click.option("--compile", is_flag=True, help="Run frozen networks as compiled code.")
@click.option(
    "--locality",
    is_flag=True,
    help="Also measure how far plugs move what the model says (docs/results.md).",
)
@click.option("--spread", is_flag=True, help="Part a backbone among all GPUs of this machine.")
@click.option("--executor", default="local", show_default=True, help="local or ray: who works.")
@click.option(
    "--option",
    "-o",
    "executor_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the executor (docs/cluster.md); repeatable.",
)
@click.option(
    "--time-limit",
    type=shared.Duration(),
    help="Stop a run after so long (90s, 30m, 2h); it counts as failed, the others go on.",
)
@click.option(
    "--memory-limit",
    type=shared.Size(),
    help="Stop a run that takes more memory (800MB, 8GB); likewise.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and an estimate of GPU hours.")
@click.option(
    "--tflops",
    type=shared.Number(min=0, min_open=True),
    default=19.5,
    show_default=True,
    help="With --dry-run: peak of the GPU in TFLOP/s; the default is an A100 in float32.",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first run that fails.")
@click.option("--debug", is_flag=True, help="Print the whole trace of a run that fails.")
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON Lines.")
@click.option(
    "--verbose", "-v", is_flag=True, help="Say what begins, too; without a terminal: always."
)
@click.option("--quiet", "-q", is_flag=True, help="Say what went wrong alone, and print the table.")
@click.option(
    "--log-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Add all that is said to a file, with the time of each line.",
)
def run(grid: Path | None, **options: Any) -> int:
    """Run every method on every task; what is stored already is not run again.

    GRID is a YAML file with the same keys as the options, or with several grids; options override
    it, and narrow what one of several grids chooses for itself. Without GRID, --task and
    --method, the embedded demo runs; --demo names one, which options narrow as they do a GRID.
    """
    from kbench.cli import run_grids, telling
    from kbench.grid.executor import Setup, find_executor
    from kbench.grid.plan import Place
    from kbench.grid.pool import Limits

    if grid is not None and options["config"] is not None:
        raise UsageError(f"--config {options['config']} and {grid}: give one grid")
    grid = grid or options["config"]
    chosen = _grids(grid, options)
    narrowed = [name for name in _AXES if options[name] is not None]
    if _demo(grid, options) and options["executor"] == "local":
        # A thread each: the same bits on every machine of a kind, and no faster with more.
        options["jobs"] = options["jobs"] or min(_DEMO_JOBS, os.cpu_count() or 1)
        options["threads"] = options["threads"] or 1
    if options["dry_run"]:
        peak = 1e12 * options["tflops"]
        return run_grids.dry_run(
            chosen, options["out"], peak, options["as_json"], options["settings"], narrowed
        )
    if options["verbose"] and options["quiet"]:
        raise UsageError("--verbose and --quiet: give one of them")
    loudness = telling.VERBOSE if options["verbose"] else telling.USUAL
    loudness = telling.QUIET if options["quiet"] else loudness
    place = replace(
        Place.default(options["out"], options["device"]),
        threads=options["threads"],
        evaluation_batch=options["evaluation_batch"],
        deterministic=options["deterministic"],
        compiled=options["compile"],
        locality=options["locality"],
        spread=_spread(options),
    )
    memory = options["memory_limit"]
    setup = Setup(
        jobs=options["jobs"] or 1,
        limits=Limits(options["time_limit"], None if memory is None else int(memory)),
        options=shared.pairs(options["executor_options"]),
    )
    executor = find_executor(options["executor"])(setup)
    return run_grids.run(
        chosen,
        place,
        executor,
        teller=telling.Teller(loudness, options["log_file"]),
        fail_fast=options["fail_fast"],
        as_json=options["as_json"],
        debug=options["debug"],
        settings=options["settings"],
        narrowed=narrowed,
    )


def _spread(options: dict[str, Any]) -> bool:
    """Whether a model is parted among GPUs, which is known to be possible before anything runs."""
    if options["spread"]:
        from kbench.model.placing import check_spread

        if (options["jobs"] or 1) > 1 or options["device"] not in ("auto", "cuda"):
            raise UsageError(
                "--spread takes all GPUs for one model; expected no --jobs, no --device"
            )
        check_spread()
    return bool(options["spread"])


def _demo(path: Path | None, options: dict[str, Any]) -> Path | None:
    """The grid of the demo that is asked for, by name or by asking for nothing else."""
    name: str | None = options["demo"]
    if name is not None and path is not None:
        raise UsageError(f"--demo {name} and {path}: a demo is a grid of its own; give one of them")
    if name is None and path is None and options["task"] is None and options["method"] is None:
        name = "encoder"
    return None if name is None else _DEMOS[name]


def _grids(path: Path | None, options: dict[str, Any]) -> list[Grid]:
    given = {name: options[name] for name in (*_AXES, *_SINGLE) if options[name] is not None}
    for name, kind in (("setting", Setting), ("control", Control)):
        if given.get(name) == "all":
            given[name] = ",".join(kind)
    chosen = _demo(path, options) or path
    values: dict[str, Any] = read_grid(chosen) if chosen else {}
    origin = str(path) if path else "the options"
    return make_grids(values, origin, given, options["settings"])
