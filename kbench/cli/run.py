"""`kbench run`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from kbench.cli import options as shared
from kbench.errors import UsageError
from kbench.interface.demos import DEMOS
from kbench.spec import Control, Setting

__all__ = ["run"]

_DEMO_JOBS = 4


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
    type=click.Choice(list(DEMOS)),
    is_flag=False,
    flag_value=next(iter(DEMOS)),
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
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default=None,
    help="What runs compute in (docs/gpu.md). Default: float32.",
)
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
    "--track",
    multiple=True,
    metavar="NAME",
    help="Tell a tracker too: tensorboard, mlflow, wandb or trackio; repeatable.",
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
    from kbench.interface.asking import Means, asked

    if grid is not None and options["config"] is not None:
        raise UsageError(f"--config {options['config']} and {grid}: give one grid")
    chosen = asked(grid or options["config"], options, options["settings"], options["demo"])
    if options["dry_run"]:
        return run_grids.dry_run(chosen, options["out"], options["tflops"], options["as_json"])
    if chosen.demo and options["executor"] == "local":
        options["jobs"] = options["jobs"] or min(_DEMO_JOBS, os.cpu_count() or 1)
    if options["verbose"] and options["quiet"]:
        raise UsageError("--verbose and --quiet: give one of them")
    loudness = telling.VERBOSE if options["verbose"] else telling.USUAL
    loudness = telling.QUIET if options["quiet"] else loudness
    memory = options["memory_limit"]
    options["memory_limit"] = None if memory is None else int(memory)
    options["option"] = shared.pairs(options["executor_options"])
    return run_grids.run(
        chosen,
        Means(**{name: options[name] for name in Means.words()}),
        teller=telling.Teller(loudness, options["log_file"]),
        fail_fast=options["fail_fast"],
        as_json=options["as_json"],
        debug=options["debug"],
    )
