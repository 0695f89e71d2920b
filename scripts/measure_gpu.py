"""Measures kbench on a GPU in one call that always ends: tests, steps, tokens, memory.

    python scripts/measure_gpu.py --seconds 460 --out gpu

needs a checkout and Python packages, no installation of kbench: PyTorch for the device,
transformers, and what is said to be missing. `gpu/gpu.json` has every figure, `gpu/gpu.md` tables
for docs/gpu.md. First `tests/gpu` run. Then networks with random weights, of the shapes of
bert-base, roberta-large and Llama models of 135M, 1B and 8B, take steps of every tuning and every
method, in float32 and bfloat16, as they are and compiled, beside bare loops and the plain form of
map-tuning (scripts/gpu_steps.py). What matters most comes first, each shape gets its share of the
time, and what there was no time for is said. A process of its own measures; one that dies or hangs
takes nothing with it but the item that it was at.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ("bert-base", "roberta-large", "llama-135m", "llama-1b", "llama-8b")
_TRIAL = ("tiny-bert", "tiny-llama")
"""Shapes to try the script with."""
DTYPES = ("float32", "bfloat16")
_FIRST = ("read", "through", "tune:full", "fit:map-tuning:task-specific", "fit:map-tuning:general")
"""What is measured of every shape before anything else is of any."""
_COMPILED = ("read", "through", "fit:map-tuning:task-specific")
_NEEDED = (
    "click", "filelock", "huggingface_hub", "numpy", "peft", "pyarrow", "pydantic", "rich",
    "safetensors", "scipy", "tokenizers", "torch", "transformers", "yaml",
)  # fmt: skip
_FOR_TESTS = ("pytest", "hypothesis")
_TESTS = 0.3
"""Share of the time that the tests may take."""
_END = 5.0
"""Seconds that are kept for writing what was found."""
_WORKER = "--worker"


@dataclass
class Plan:
    """What is to be measured, the most important first.

    Attributes:
        items: each in the words of :class:`scripts.gpu_steps.Item`: shape, dtype, what, compiled.
    """

    items: list[dict[str, Any]]

    @classmethod
    def of(
        cls,
        shapes: Sequence[str],
        tunings: Sequence[str],
        methods: Mapping[str, Sequence[str]],
        dtypes: Sequence[str] = DTYPES,
    ) -> Plan:
        """Returns all items of some shapes.

        What every shape is asked first comes before the rest, and compiled code last. Of each
        rank the shapes take turns by blocks, since each block needs its network made.

        Args:
            shapes: by name.
            tunings: by name.
            methods: the settings of each.
            dtypes: the precisions.
        """
        rest = ["plain", *(f"tune:{name}" for name in tunings)]
        rest += [f"fit:{name}:{setting}" for name, known in methods.items() for setting in known]
        known = {*rest, "read", "through"}
        ranks = [
            ([what for what in _FIRST if what in known], False),
            ([what for what in rest if what not in _FIRST], False),
            ([what for what in _COMPILED if what in known], True),
        ]
        return cls(
            [
                {"shape": shape, "dtype": dtype, "what": what, "compiled": compiled}
                for whats, compiled in ranks
                for shape in shapes
                for dtype in dtypes
                for what in whats
            ]
        )


def in_time(
    items: Sequence[Mapping[str, Any]], until: float, clock: Callable[[], float] = time.time
) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Yields items and whether there is time for each, asked when the one before is done.

    What every shape is asked first is measured while there is any. What is left then is parted
    among the blocks of a shape and a precision, each rank by itself: a slow one cannot take that of
    the next, and what one leaves the next have. Of each block one item is measured at least.

    Args:
        items: in their order.
        until: when all must have ended.
        clock: says what time it is.
    """
    left = list(dict.fromkeys(map(_block, items)))
    block, end = None, 0.0
    for item in items:
        now = clock()
        begins = _block(item) != block
        if begins:
            block = _block(item)
            end = now + max(0.0, until - now) / len(left)
            left.remove(block)
        any_is = begins or (item["what"] in _FIRST and not item["compiled"])
        yield item, now < (until if any_is else end)


def _block(item: Mapping[str, Any]) -> tuple[str, str, bool, bool]:
    return item["shape"], item["dtype"], item["compiled"], item["what"] in _FIRST


@dataclass
class Found:
    """All that was measured.

    Attributes:
        machine: what it was measured on.
        tests: how those of tests/gpu ended; None where they were not run.
        lines: an item and its figures each.
        left: items that there was no time for.
        seconds: all of it took.
        batch: examples of a step.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    tests: dict[str, Any] | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    left: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    batch: int = 32


# -- the process that measures ---------------------------------------------------------------------


def work(folder: Path, options: Mapping[str, Any]) -> None:
    """Measures items one after the other and writes a line when each begins and ends.

    Args:
        folder: has ``items.json``, gets ``lines.jsonl``.
        options: of the command.
    """
    import torch
    import transformers

    from scripts.gpu_steps import Bench, Item

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    device = torch.device(options["device"])
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
    bench = Bench(
        device, folder, steps=options["steps"], longest=options["longest"], batch=options["batch"]
    )
    items = json.loads((folder / "items.json").read_text(encoding="utf-8"))
    names = {each.name for each in fields(Item)}
    with (folder / "lines.jsonl").open("a", encoding="utf-8") as file:

        def tell(**line: Any) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        tell(machine=_machine(device))
        for item, there_is in in_time(items, options["until"]):
            number = item["number"]
            if not there_is:
                tell(left=number)
                continue
            tell(begun=number)
            try:
                one = Item(**{name: item[name] for name in names})
                figures = asdict(bench.measure(one))
            except Exception as problem:  # of one item, for which the others need not suffer
                said = str(problem).strip().splitlines() or [""]
                figures = {"problem": f"{type(problem).__name__}: {said[0]}"[:300]}
            tell(number=number, figures=figures)


def _machine(device: Any) -> dict[str, Any]:
    import torch
    import transformers

    about = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": str(device),
        "name": platform.processor() or platform.machine(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {
            "name": properties.name,
            "bytes": properties.total_memory,
            "cuda": str(torch.version.cuda),
        }
    return about


# -- the process that watches ----------------------------------------------------------------------


def installed(folder: Path) -> dict[str, str]:
    """Returns an environment in which kbench is found, with its parts, as if it were installed.

    Args:
        folder: gets the metadata of a distribution, made of pyproject.toml.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    about = folder / "site" / f"{project['name'].replace('-', '_')}-{_version()}.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {_version()}\n"
    (about / "METADATA").write_text(head, encoding="utf-8")
    lines = []
    for group, names in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items()), ""]
    (about / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    places = [about.parent, ROOT, *(ROOT / name for name in ("tasks", "baselines", "leaderboard"))]
    before = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, places), *([before] if before else [])]),
        "KBENCH_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }


def _version() -> str:
    text = (ROOT / "kbench" / "__init__.py").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("__version__"))
    return line.split('"')[1]


def tested(folder: Path, environment: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """Runs tests/gpu; returns how many passed, failed and were skipped, and the end of what failed.

    Args:
        folder: for their report.
        environment: of the process.
        seconds: that they may take.
    """
    report = folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"]
    started = time.perf_counter()
    done = _run([*command, f"--junitxml={report}"], environment, seconds)
    found: dict[str, Any] = {"seconds": time.perf_counter() - started, "status": done.status}
    if report.is_file():
        counts = ElementTree.parse(report).getroot().find("testsuite")
        if counts is not None:
            number = {key: int(counts.get(key, 0)) for key in ("tests", "failures", "errors")}
            skipped = int(counts.get("skipped", 0))
            failed = number["failures"] + number["errors"]
            passed = number["tests"] - failed - skipped
            found |= {"passed": passed, "failed": failed, "skipped": skipped}
    if done.status != 0:
        found["end"] = done.output[-4000:]
    return found


@dataclass
class _Done:
    status: int | None
    output: str


def _run(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> _Done:
    """Runs a command for so long at most; a status of None is one that was stopped."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=dict(environment), stdout=output, stderr=subprocess.STDOUT,
            start_new_session=os.name == "posix",
        )  # fmt: skip
        try:
            status: int | None = process.wait(timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
        output.seek(0)
        return _Done(status, output.read())


def _end(process: subprocess.Popen[Any]) -> None:
    """Ends a process with all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, 9)
        else:
            process.kill()
    process.wait()


def measured(
    plan: Plan, folder: Path, environment: Mapping[str, str], options: Mapping[str, Any],
    until: float, command: Sequence[str] | None = None,
) -> Found:  # fmt: skip
    """Measures as much of a plan as there is time for.

    Args:
        plan: what.
        folder: for what is kept meanwhile.
        environment: of the process that measures.
        options: handed to it.
        until: when to end, in the time of ``time.time``.
        command: of that process, with the folder behind it; as it stands this script.
    """
    found = Found()
    todo = dict(enumerate(plan.items))
    given = json.dumps({**options, "until": until})
    words = command or [sys.executable, str(Path(__file__)), _WORKER, given]
    deaths = 0
    while todo and time.time() < until and deaths <= 3:
        left = [{**item, "number": number} for number, item in todo.items()]
        (folder / "items.json").write_text(json.dumps(left), encoding="utf-8")
        lines = folder / "lines.jsonl"
        lines.unlink(missing_ok=True)
        done = _run([*words, str(folder)], environment, until - time.time())
        begun: int | None = None
        for line in _lines(lines):
            found.machine = line.get("machine", found.machine)
            if "left" in line:
                found.left.append(todo.pop(line["left"]))
            elif "begun" in line:
                begun = line["begun"]
            elif "number" in line:
                begun = None
                found.lines.append({**todo.pop(line["number"]), **line["figures"]})
        if done.status == 0:
            break
        last = done.output.strip().splitlines()[-1:] or [""]
        if begun is not None:
            item = todo.pop(begun)
            stopped = done.status is None
            why = "the time ended" if stopped else f"the process died: {last[0]}"[:300]
            (found.left if stopped else found.lines).append({**item, "problem": why})
            deaths = 0
        else:
            deaths += 1
            found.machine.setdefault("problem", last[0][:300])
    found.left += todo.values()
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields what a process wrote; its last line may be half a line."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


# -- what is written -------------------------------------------------------------------------------


def tables(found: Found) -> str:
    """Returns the figures as Markdown."""
    about = found.machine
    memory = f", {about['bytes'] / 2**30:.0f} GiB" if "bytes" in about else ""
    versions = ", ".join(f"{key} {about[key]}" for key in ("torch", "transformers", "cuda")
                         if key in about)  # fmt: skip
    parts = [f"{about.get('name', 'nothing was measured')}{memory}; {versions}."]
    if found.tests is not None:
        parts.append(_tests_told(found.tests))
    parts.append(
        f"Seconds of a step of {found.batch} examples (of a batch that is read: `read`), tokens "
        "a second without padding, the most memory held, and how many times the bare loop it "
        "takes: of `read` and `tune:full` the same work without kbench, of a method `through`, "
        "forward and backward to the input vectors and no more. `plain` is general map-tuning as "
        "published. `reading` is a batch that is read with the plug in place."
    )
    for shape, dtype in dict.fromkeys((line["shape"], line["dtype"]) for line in found.lines):
        own = [line for line in found.lines if (line["shape"], line["dtype"]) == (shape, dtype)]
        parts.append(f"**{shape}, {dtype}**")
        parts.append("\n".join(_table(own)))
    if found.left:
        names = [f"{i['shape']} {i['dtype']} {i['what']}" + " compiled" * i["compiled"]
                 for i in found.left]  # fmt: skip
        parts.append(f"No time was left for {len(names)} of all: {', '.join(names)}.")
    parts.append(f"All of it took {found.seconds:.0f} seconds.")
    return "\n\n".join(parts) + "\n"


def _tests_told(tests: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{tests[key]} {key}" for key in ("passed", "failed", "skipped")
                       if key in tests)  # fmt: skip
    stopped = "" if tests["status"] is not None else "; stopped, the time was up"
    return f"`tests/gpu`: {counts or 'no report'} in {tests['seconds']:.0f} s{stopped}."


def _table(lines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    lines = [*lines]
    through = {line["compiled"]: line.get("seconds") for line in lines if line["what"] == "through"}
    yield "| | ms a step | tokens a second | peak GB | × bare | ms reading | |"
    yield "|---|---|---|---|---|---|---|"
    for line in lines:
        seconds, bare = line.get("seconds"), line.get("bare")
        if line["what"].startswith(("fit:", "plain")):
            bare = through.get(line["compiled"])
        ratio = f"{seconds / bare:.2f}" if seconds and bare else ""
        peak = f"{line['peak'] / 1e9:.2f}" if line.get("peak") else ""
        tokens = f"{line['tokens']:,.0f}" if line.get("tokens") else ""
        cells = [
            f"`{line['what']}`" + " compiled" * line["compiled"], _milliseconds(seconds), tokens,
            peak, ratio, _milliseconds(line.get("reading")), line.get("problem", ""),
        ]  # fmt: skip
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _milliseconds(seconds: float | None) -> str:
    return f"{1000 * seconds:.3g}" if seconds else ""


# -- the command -----------------------------------------------------------------------------------


def _parts_of(environment: Mapping[str, str]) -> tuple[list[str], dict[str, list[str]]]:
    """Returns the tunings that train, and the settings of each method, from their sources."""
    program = """
import json
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.source_text import settings
find = registry.find
names = [n for n in registry.names(Kind.TUNINGS) if n not in ("frozen", "prompted")]
own = {n: [s for s in settings(find(Kind.METHODS, n)) if s != "fine-tuning"]
       for n in registry.names(Kind.METHODS)}
print(json.dumps([names, own]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=dict(environment), capture_output=True, text=True,
        check=True, cwd=ROOT,
    )  # fmt: skip
    tunings, methods = json.loads(done.stdout.splitlines()[-1])
    return tunings, methods


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=460, help="all that it may take")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of gpu.json, gpu.md")
    parser.add_argument("--device", default="", help="default: cuda where there is one, else cpu")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="a comma list")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="a comma list")
    parser.add_argument("--methods", default="", help="a comma list; default: all")
    parser.add_argument("--tunings", default="", help="a comma list; default: all that train")
    parser.add_argument("--steps", type=int, default=20, help="timed of each thing, at most")
    parser.add_argument("--longest", type=float, default=2.0, help="seconds that these may take")
    parser.add_argument("--batch", type=int, default=32, help="examples of a step")
    parser.add_argument("--no-compile", action="store_true", help="leave compiled code out")
    parser.add_argument("--no-tests", action="store_true", help="leave tests/gpu out")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, writes both files and prints the tables; 1 if a test failed or nothing was."""
    begun = time.time()
    given = _options(arguments)
    wanted = (*_NEEDED, *(() if given.no_tests else _FOR_TESTS))
    if lacking := [name for name in wanted if find_spec(name) is None]:
        print(f"error: missing: {', '.join(lacking)}; install them, or carry their wheels")
        return 2
    until = begun + given.seconds - _END
    with tempfile.TemporaryDirectory(prefix="kbench-gpu-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        environment = installed(folder)
        tests = None
        if not given.no_tests:
            tests = tested(folder, environment, _TESTS * given.seconds)
        tunings, methods = _parts_of(environment)
        known = {
            "shapes": (*SHAPES, *_TRIAL),
            "dtypes": DTYPES,
            "tunings": tunings,
            "methods": methods,
        }
        asked = {name: [*filter(None, getattr(given, name).split(","))] for name in known}
        if wrong := [*_unknown(asked, known)]:
            print(f"error: {'; '.join(wrong)}")
            return 2
        there = _device(environment)
        device = given.device or there
        if device.partition(":")[0] not in ("cpu", there) and not _is_there(device, environment):
            print(f"error: --device {device}: PyTorch finds none here; expected {there}")
            return 2
        tunings = asked["tunings"] or tunings
        methods = {name: methods[name] for name in asked["methods"] or methods}
        options = {
            "device": device,
            "steps": given.steps,
            "longest": given.longest,
            "batch": given.batch,
        }
        shapes, dtypes = asked["shapes"] or [*SHAPES], asked["dtypes"] or [*DTYPES]
        plan = Plan.of(shapes, tunings, methods, dtypes)
        if given.no_compile:
            plan = Plan([item for item in plan.items if not item["compiled"]])
        found = measured(plan, folder, environment, options, until)
    found.tests, found.seconds, found.batch = tests, time.time() - begun, given.batch
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "gpu.json").write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")
    (given.out / "gpu.md").write_text(tables(found), encoding="utf-8")
    print(tables(found))
    return int(not found.lines or bool(tests and tests["status"] not in (0, 5)))


def _unknown(
    asked: Mapping[str, Sequence[str]], known: Mapping[str, Collection[str]]
) -> Iterator[str]:
    """Yields what was asked for and is not there, by option, in a line each."""
    for option, names in asked.items():
        if wrong := [name for name in names if name not in known[option]]:
            yield f"--{option} {','.join(wrong)}: expected some of {', '.join(known[option])}"


def _is_there(device: str, environment: Mapping[str, str]) -> bool:
    """Whether PyTorch can use another device than the usual ones."""
    program = "import sys, torch; torch.empty(0, device=sys.argv[1])"
    words = [sys.executable, "-c", program, device]
    return subprocess.run(words, env=dict(environment), capture_output=True).returncode == 0


def _device(environment: Mapping[str, str]) -> str:
    program = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=dict(environment), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.strip()


if __name__ == "__main__":
    if _WORKER in sys.argv:
        sys.path.insert(0, str(ROOT))
        work(Path(sys.argv[-1]), json.loads(sys.argv[sys.argv.index(_WORKER) + 1]))
    else:
        sys.exit(main())
