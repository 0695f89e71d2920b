"""The tables of docs/methods.md, made of the reference results.

python -m scripts.reference_tables
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench.cli.messages import say
from kbench.data.files import write_bytes
from kbench.grid.asked import asked_for
from kbench.interface.reading import load
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Result, Status, packs
from kbench_leaderboard.planned import place_of, waiting

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "BEGIN",
    "END",
    "GRID",
    "PAGE",
    "README",
    "RESULTS",
    "between",
    "digest",
    "kept_rows",
    "provenance",
    "said_rows",
    "section",
    "task_rows",
]

_ROOT = Path(__file__).resolve().parents[1]
PAGE = _ROOT / "docs" / "methods.md"
RESULTS = _ROOT / "leaderboard" / "results"
GRID = _ROOT / "leaderboard" / "reference.yaml"
README = _ROOT / "leaderboard" / "README.md"
BEGIN = "<!-- reference results: made by `python -m scripts.reference_tables` -->\n"
END = "<!-- reference results: end -->\n"
_SETTINGS = ["", *map(str, Setting)]
_CONTROLS = [*map(str, Control)]


def digest(folder: Path) -> str:
    """Returns what the content of all packed files hashes to."""
    total = sha256()
    for path in packs(folder):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


def section(folder: Path, grid: Path) -> str:
    """Returns all that stands between the marks of the page.

    Args:
        folder: of packed results.
        grid: the file of the grid that they are of.
    """
    runs = load(folder)
    frame = runs.table()
    frame = frame[frame["status"] == str(Status.OK)]
    blocks = [f"Results `{digest(folder)}`.", *_there(runs.results, asked_for(grid))]
    for backbone, tuning in _columns(frame):
        own = frame[(frame["backbone"] == backbone) & (frame["tuning"] == tuning)]
        title = f"{backbone}, tuning {tuning}"
        blocks += [_together(own, title), "\n".join(kept_rows(own, title))]
    for task in sorted({*frame["task"]}):
        blocks += [f"### {task}", "\n".join(task_rows(frame[frame["task"] == task]))]
    if said := said_rows(runs.results):
        blocks += ["### What is told, and said", "\n".join(said)]
    return "\n\n".join(blocks) + "\n"


def _there(results: Sequence[Result], asked: Sequence[RunSpec]) -> Iterator[str]:
    """What is there and what is not, by backbone, tuning, control and seed."""
    revisions = Counter(str(r.provenance.revision) for r in results if r.provenance)
    ended = Counter(str(result.status) for result in results)
    made = f", of engine revision {', '.join(sorted(revisions))}"
    not_well = "".join(f", {n} {status}" for status, n in ended.items() if status != Status.OK)
    here = {place_of(result.spec) for result in results}
    yield (
        f"{len(results)} results{made}{not_well}. {_lacking(results, asked)} {_machine(results)} "
        "Runs that are there, of those that are asked for, by seed:"
    )
    parts: dict[tuple[str, ...], dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for spec in asked:
        own = (spec.backbone, spec.tuning, str(spec.control))
        parts[own][spec.seed].append(place_of(spec) in here)
    seeds = sorted({seed for told in parts.values() for seed in told})
    lines = [
        f"| backbone | tuning | control | {' | '.join(f'seed {seed}' for seed in seeds)} |",
        f"|---|---|---|{'---|' * len(seeds)}",
    ]
    nothing: dict[str, list[str]] = {}
    models = {" ".join(key[:2]) for key, told in parts.items() if any(map(any, told.values()))}
    for key in sorted(parts, key=lambda key: (key[:2], _CONTROLS.index(key[2]))):
        told = parts[key]
        if not any(map(any, told.values())):
            nothing.setdefault(" ".join(key[:2]), []).append(key[2])
            continue
        cells = [f"{sum(told[s])} of {len(told[s])}" if s in told else "" for s in seeds]
        lines.append(f"| {' | '.join([*key, *cells])} |")
    yield "\n".join(lines)
    lacking_of = [
        f"{model} under {', '.join(controls)}" if model in models else model
        for model, controls in nothing.items()
    ]
    if nothing:
        yield f"Nothing is there yet of {'; '.join(lacking_of)}."


def provenance(folder: Path, grid: Path) -> str:
    """Returns how many of a grid's runs are there, on which machine they were made, in how long."""
    results = load(folder).results
    return f"{len(results)} results. {_lacking(results, asked_for(grid))} {_machine(results)}\n"


def _lacking(results: Sequence[Result], asked: Sequence[RunSpec]) -> str:
    left = len(waiting(asked, (result.spec for result in results)))
    return f"{left:,} of the {len(asked):,} runs of the grid are not there yet."


def _machine(results: Sequence[Result]) -> str:
    """On what they were made, and how long that took."""
    origins = [result.provenance for result in results if result.provenance is not None]
    told = {
        f"{made.hardware.get('processor')}, {made.hardware.get('cores')} cores, device "
        f"{made.hardware.get('device')}, {made.hardware.get('threads')} threads a run"
        for made in origins
    }
    hours = sum(made.seconds for made in origins) / 3600
    return f"Made on {'; '.join(sorted(told))}, in {hours:.1f} hours of all runs together."


def _columns(frame: DataFrame) -> list[tuple[str, str]]:
    """Backbones with their tunings, the ones with the most rows first."""
    counted = Counter(zip(frame["backbone"], frame["tuning"], strict=True))
    return [pair for pair, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]


def _order(row: Any) -> tuple[object, ...]:
    return (row["method"] != "none", _SETTINGS.index(row["setting"]), row["method"])


def _records(frame: DataFrame) -> list[dict[str, Any]]:
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    told = [{str(key): value for key, value in row.items()} for row in rows]
    for row in told:
        row["setting"] = row["setting"] if row["knowledge"] else ""
    return sorted(told, key=_order)


def _together(frame: DataFrame, title: str) -> str:
    """How often the knowledge of each method arrives, and pays, over the tasks of a model."""
    lines = [
        f"**{title}**, all tasks together:",
        "",
        "| method | setting | tasks | mean Δ none | mean gain | arrives | pays | hurts |"
        " wrong knowledge helps | wrong knowledge hurts |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = _records(frame)
    wrong = [row for row in rows if row["control"] == Control.FOREIGN]
    for method, setting in dict.fromkeys((row["method"], row["setting"]) for row in rows):
        own = [r for r in rows if (r["method"], r["setting"]) == (method, setting)]
        true = [row for row in own if row["control"] == Control.NONE and row["delta"] is not None]
        beside = [r for r in wrong if (r["method"], r["setting"]) == (method, setting)]
        if not true:
            continue
        cells = [method, setting, str(len(true)), _mean(true, "delta"), _mean(true, "gain")]
        cells += [str(_above(true, "gain")) if _known(true, "gain") else ""]
        cells += [str(_above(true, "delta")), str(_below(true, "delta"))]
        cells += (
            [str(_above(beside, "delta")), str(_below(beside, "delta"))] if beside else ["", ""]
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def kept_rows(frame: DataFrame, title: str) -> list[str]:
    """Returns the table of what a gain is, what it leaves as it was, and what it costs.

    Means over tasks; of answers that turned, all examples of all tasks together.

    Args:
        frame: rows of one model.
        title: of it.
    """
    lines = [
        f"**{title}**, what a gain is, keeps and costs:",
        "",
        "| method | setting | of the kind | individual | retention | repair | tokens more |"
        " parameters | s of training | of its general plug |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [row for row in _records(frame) if row["control"] == Control.NONE]
    bare = {row["task"]: row["tokens_per_example"] for row in rows if not row["setting"]}
    for method, setting in dict.fromkeys((row["method"], row["setting"]) for row in rows):
        own = [r for r in rows if (r["method"], r["setting"]) == (method, setting)]
        if not setting:
            continue
        more = [r["tokens_per_example"] - bare[r["task"]] for r in own if r["task"] in bare]
        cells = [method, setting, _mean(own, "kind"), _mean(own, "individual")]
        cells += [_share(own, "lost", "right", rest=True), _share(own, "gained", "wrong")]
        cells += [f"{sum(more) / len(more):.1f}" if more else ""]
        cells += [_spent(own, "trainable_parameters"), _spent(own, "train_processor_seconds")]
        cells += [_spent(own, "start_processor_seconds")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _share(rows: Sequence[dict[str, Any]], name: str, of: str, *, rest: bool = False) -> str:
    """The share of examples, of all tasks together, in per cent."""
    whole = sum(_known(rows, of))
    share = sum(_known(rows, name)) / whole if whole else None
    return "" if share is None else f"{100 * (1 - share if rest else share):.1f}"


def _spent(rows: Sequence[dict[str, Any]], name: str) -> str:
    known = _known(rows, name)
    return f"{sum(known) / len(known):,.0f}" if any(known) else ""


def _known(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row[name] is not None]


def _mean(rows: Sequence[dict[str, Any]], name: str) -> str:
    known = _known(rows, name)
    return f"{100 * sum(known) / len(known):+.1f}" if known else ""


def _above(rows: Sequence[dict[str, Any]], name: str) -> int:
    return sum(row[f"{name}_low"] is not None and row[f"{name}_low"] > 0 for row in rows)


def _below(rows: Sequence[dict[str, Any]], name: str) -> int:
    return sum(row[f"{name}_high"] is not None and row[f"{name}_high"] < 0 for row in rows)


def task_rows(frame: DataFrame) -> list[str]:
    """Returns the table of a task: a row a method and setting, a column a model and tuning."""
    true = frame[frame["control"] == str(Control.NONE)]
    columns = _columns(true)
    cells: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for row in _records(true):
        key = (row["method"], row["setting"])
        cells.setdefault(key, {})[row["backbone"], row["tuning"]] = _cell_text(row)
    lines = [
        f"| method | setting | {' | '.join(' '.join(column) for column in columns)} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    for key, told in cells.items():
        lines.append(f"| {' | '.join([*key, *(told.get(column, '') for column in columns)])} |")
    return lines


def said_rows(results: Sequence[Result]) -> list[str]:
    """Returns the table of what models say where they are told otherwise; nothing without such."""
    asked: tuple[Control, ...] = (Control.NONE, Control.VALUE_SWAPPED)
    asked += (Control.ORACLE, Control.ANSWER_REMOVED, Control.EMPTY)
    found: dict[tuple[str, str, str, str], dict[Control, Result]] = defaultdict(dict)
    for result in results:
        spec = result.spec
        if result.status == Status.OK and spec.seed == 0 and spec.control in asked:
            key = (spec.task, f"{spec.backbone} {spec.tuning}", spec.method, str(spec.setting))
            found[key][spec.control] = result
    told = {key: own for key, own in found.items() if {*own} - {Control.NONE}}
    if not told:
        return []
    lines = [
        "| task | model | method | setting | as it is | false values | says the false one |"
        " oracle | answer removed | empty |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key in sorted(told, key=lambda key: (*key[:2], _SETTINGS.index(key[3]), key[2])):
        cells = [_percent(told[key].get(control)) for control in asked]
        swapped = told[key].get(Control.VALUE_SWAPPED)
        follows = swapped.metrics.get("follow_rate") if swapped is not None else None
        cells.insert(2, "" if follows is None else f"{100 * follows.value:.1f}")
        lines.append(f"| {' | '.join([*key, *cells])} |")
    return lines


def _percent(result: Result | None) -> str:
    if result is None or result.score is None:
        return ""
    return f"{100 * result.score.value:.1f}"


def _cell_text(row: dict[str, Any]) -> str:
    score = f"{100 * row['score']:.1f}"
    told = [f"{100 * row[name]:+.1f}" for name in ("delta", "gain") if row[name] is not None]
    text = f"{score} ({'; '.join(told)})" if told else score
    if _above([row], "delta") and (row["gain"] is None or _above([row], "gain")):
        return f"**{text}**"
    return f"*{text}*" if _below([row], "delta") else text


def between(page: str, text: str) -> str:
    """Returns a page with another text between its marks.

    Raises:
        ValueError: it has no marks.
    """
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"the page lacks the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def _main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--results", type=Path, default=RESULTS)
    options.add_argument("--page", type=Path, default=PAGE)
    chosen = options.parse_args()
    for page, told in ((chosen.page, section), (README, provenance)):
        text = between(page.read_text(encoding="utf-8"), told(chosen.results, GRID))
        write_bytes(page, text.encode())
        say(f"{page}: made of {chosen.results}")


if __name__ == "__main__":
    _main()
