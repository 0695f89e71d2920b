"""The pages as text, from templates that escape whatever they are given."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel

from kbench.errors import UsageError
from kbench.metrics import Standing
from kbench.parts.registry import Kind
from kbench.results.identity import Names
from kbench.results.notes import notes
from kbench.results.published import Figure
from kbench.results.tables import Estimate
from kbench.spec import Control, RunSpec
from kbench.store import Result
from kbench_leaderboard.board import Group, Line, beside, key_of
from kbench_leaderboard.cards import card, paper
from kbench_leaderboard.charts import forest
from kbench_leaderboard.clean import clean
from kbench_leaderboard.compared import Compared
from kbench_leaderboard.content import Content, Sample
from kbench_leaderboard.names import short, slug
from kbench_leaderboard.overview import FIGURES, Panel, panels
from kbench_leaderboard.sources import PLACEHOLDER

__all__ = ["Pages"]

_HERE = Path(__file__).parent
_EXPORT = re.compile(r"\bexport\s*\{([^}]*)\}\s*;?")
_MODELS = ("spec", "coverage", "frozen", "provenance")
_PAIRS = 2000
"""Comparisons that a page lists without a script; the chooser has all."""
_NOT_CHOSEN = "not chosen"
"""What variants that dev did not choose are filtered as, beside the controls."""
_FILTERS = ("task", "backbone", "tuning", "setting", "knowledge", "control")
_ANSWERS = 4
"""Backbones of which the front page says in words which method is first."""
_STEPS = (0.05, 0.15, 0.3)
"""Where the colours of gains change; those of scores do at every fifth."""


class Pages:
    """Writes the pages of a site into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jinja = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_finalized,
        )
        self._jinja.filters.update(
            slug=slug,
            percent=_percent,
            signed=_signed,
            number=_number,
            share=_share,
            paper=paper,
            command=_command,
            notes=notes,
            short=short,
            point=_point,
            told=_told_with_interval,
        )
        self._jinja.globals.update(
            chosen=_chosen,
            whisker=_whisker,
            ends=_ends,
            spans=_spans,
            place=_place_of_rank,
            heat=_heat,
            beside=beside,
            figure_name=_figure_name,
            differences=_DIFFERENCES,
        )

    def compare(self, group: Group, compared: Compared) -> None:
        """Writes the page that sets two rows of a group against each other."""
        name = f"compare/{group.key}"
        shown = compared.comparisons[:_PAIRS]
        names = {line.first.id: line.name for line in group.lines}
        self._page(f"{name}.html", group=group, compared=compared, shown=shown, names=names)
        data = json.dumps(clean(compared.data), separators=(",", ":"))  # ASCII alone
        (self._folder / f"{name}.js").write_text(f"const DATA = {data};\n", encoding="ascii")

    def runs(self, group: Group, told: Mapping[str, list[Sample]], names: Names) -> None:
        """Writes the pages of the runs of a group.

        Args:
            group: of the board.
            told: the first predictions of each run, by its id.
            names: of the parts of all runs.
        """
        for line in group.lines:
            for result in line.row.results:
                self._run(result, names, group, line, told[result.id])

    def remove(self, results: Iterable[Result]) -> None:
        """Removes what was written of a group that then could not be shown."""
        for result in results:
            names = (f"compare/{key_of(result)}.html", f"compare/{key_of(result)}.js")
            for name in (*names, f"runs/{result.id}.html"):
                (self._folder / name).unlink(missing_ok=True)

    def write(self, content: Content) -> None:
        """Writes every page that is not of one group alone."""
        self.front(content)
        every = [*(line.first for _, line in content.lines), *content.failed]
        for name in _values(every, "method", content.names):
            self._method(name, content)
        for name in _values(every, "task", content.names):
            self._task(name, content)
        for result in content.failed:
            self._run(result, content.names)

    def front(self, content: Content) -> None:
        """Writes the front page and that of all rows, and what all pages share."""
        self._static()
        self._overview(content)
        scored = [line.first for _, line in content.lines]
        filters = {name: _values(scored, name, content.names) for name in _FILTERS}
        if not all(line.row.chosen for _, line in content.lines):
            filters["control"].append(_NOT_CHOSEN)
        self._page(
            "tables.html",
            root="",
            content=content,
            families=list(content.families()),
            filters=filters,
        )

    def _overview(self, content: Content) -> None:
        groups = [each.group for each in content.shown]
        shown = panels(groups, content.failed, content.names)
        rows = [row for panel in shown for row in panel.rows]
        every = {(g.backbone, g.tuning, "" if g.current else g.revision) for g in groups}
        there = {name for panel in shown for name in panel.figures}
        figures = [name for name in (*FIGURES, *map(str, Control)) if name in there]
        first = {panel.backbone: panel.key for panel in reversed(shown)}
        filters = {
            "backbone": sorted({panel.backbone for panel in shown}),
            "tuning": sorted({panel.tuning for panel in shown}),
            "setting": sorted({row.setting for row in rows} - {""}),
        }
        self._page(
            "index.html",
            root="",
            content=content,
            panels=[(panel, forest(panel)) for panel in shown],
            answered=[p.key for p in shown if p.key in first.values()][:_ANSWERS],
            figures=figures,
            shown_figures=figures,
            filters=filters,
            seeds=[*range(2, 1 + max((row.seeds for row in rows), default=1))],
            several=any(panel.seeds > 1 for panel in shown),
            left_out=len(every) - len(shown),
        )

    def _method(self, name: str, content: Content) -> None:
        self._page(
            f"methods/{slug(name)}.html",
            name=name,
            card=card(Kind.METHODS, name),
            lines=[pair for pair in content.lines if pair[1].first.spec.method == name],
            failed=[r for r in content.failed if r.spec.method == name],
            published=_told(content.published, method=name),
        )

    def _task(self, name: str, content: Content) -> None:
        shown = [each for each in content.shown if each.group.task == name]
        failed = [r for r in content.failed if content.names.task(r) == name]
        first = next((line.first for each in shown for line in each.group.lines), *failed[:1])
        task = first.spec.task  # the part, which data of one's own give another name
        self._page(
            f"tasks/{slug(name)}.html",
            name=name,
            card=card(Kind.TASKS, task),
            shown=shown,
            counts=_counts(each.group for each in shown),
            failed=failed,
            published=_told(content.published, task=task),
        )

    def _run(
        self,
        result: Result,
        names: Names,
        group: Group | None = None,
        line: Line | None = None,
        told: Sequence[Sample] = (),
    ) -> None:
        models: dict[str, Any] = {name: _plain(getattr(result, name)) for name in _MODELS}
        self._page(
            f"runs/{result.id}.html",
            result=result,
            names=names,
            group=group,
            line=line,
            samples=told,
            cost=[(name, _number(value)) for name, value in result.cost.items()],
            training=list(_leaves(result.training)),
            **models,
        )

    def _page(self, path: str, /, root: str = "../", **values: Any) -> None:
        place = self._folder / path
        place.parent.mkdir(exist_ok=True)
        text = self._jinja.get_template(_template(path)).render(root=root, **values)
        place.write_bytes(text.encode(errors="backslashreplace"))

    def _static(self) -> None:
        folder = self._folder / "static"
        folder.mkdir()
        for path in (_HERE / "static").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "datatables.js").write_text(_datatables(), encoding="utf-8")


def _finalized(value: Any) -> Any:
    """What a template prints of a value: all but text it prints as it is."""
    return clean(value) if isinstance(value, str) else value


def _template(path: str) -> str:
    folder, slash, _ = path.partition("/")
    return f"{folder.removesuffix('s')}.html" if slash else path


def _datatables() -> str:
    """DataTables as a plain script.

    itables brings it as a module, which a page opened from a file may not load; so what the module
    exports by default is made a global name, and all else stays inside a function. itables itself
    is not imported, for it would bring pandas.
    """
    package = find_spec("itables")
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "html" / "dt_bundle.js"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    match = _EXPORT.search(text)
    names = dict(_renamed(match[1])) if match else {}
    if match is None or "default" not in names:
        raise UsageError(
            f"{path} is not the bundle of DataTables that kbench knows; pip install the version "
            "of itables in constraints.txt"
        )
    inner = text[: match.start()] + text[match.end() :]
    return f"const DataTable = (() => {{\n{inner}\nreturn {names['default']};\n}})();\n"


def _renamed(exports: str) -> Iterator[tuple[str, str]]:
    for piece in exports.split(","):
        inside, _, outside = piece.strip().partition(" as ")
        yield outside or inside, inside


def _values(results: Iterable[Result], name: str, names: Names) -> list[str]:
    return sorted({names.of(r, name) for r in results} - {""})


def _told(figures: Iterable[Figure], **wanted: str) -> list[Figure]:
    return [f for f in figures if all(getattr(f, key) == want for key, want in wanted.items())]


def _counts(groups: Iterable[Group]) -> list[tuple[Line, dict[str, int]]]:
    """One result for each knowledge base of a task: its counts say what is where."""
    first: dict[tuple[str, str, str], Line] = {}
    for group in groups:
        for line in group.lines:
            if line.ranked and line.first.coverage:
                known = line.row.name("knowledge")
                first.setdefault((group.data, known, line.first.coverage.linker), line)
    return [
        (line, {k: v for k, v in line.first.counts.items() if k.startswith("test_")})
        for line in first.values()
    ]


def _plain(model: BaseModel | None) -> list[tuple[str, str]]:
    return list(_leaves(model.model_dump(mode="json"))) if model else []


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields every value in a JSON value with its place; lists as they are."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif value is not None:
        yield path, str(value)


def _chosen(line: Line) -> dict[str, str]:
    """What the filters look at."""
    told = {name: line.row.name(name) for name in _FILTERS}
    return told if line.row.chosen else {**told, "control": _NOT_CHOSEN}


def _command(spec: RunSpec) -> str:
    """The command that repeats a run, with a placeholder where its task needs data."""
    needed = card(Kind.TASKS, spec.task).fields.get("obtain")
    return spec.model_copy(update={"data": PLACEHOLDER if needed else None}).command()


def _ends(group: Group) -> dict[str, tuple[float, float]]:
    """The lowest and highest end of an interval, for the whiskers of a group to share a scale."""
    ends = {}
    for name, kept in (("score", list[float]()), ("gain", [0.0])):
        told = [getattr(line.row, name) for line in group.lines]
        every = kept + [
            end for e in told if e for end in (e.low, e.high, e.value) if end is not None
        ]
        ends[name] = (min(every, default=0.0), max(every, default=0.0))
    return ends


def _whisker(estimate: Estimate | None, ends: tuple[float, float], zero: bool) -> str:
    """The places of an interval on its scale as style: per cent of the width."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = ends
    width = (high - low) or 1.0
    places = {"l": estimate.low, "h": estimate.high, "v": estimate.value}
    if zero:
        places["z"] = 0.0
    return ";".join(f"--{key}:{100 * (at - low) / width:.1f}%" for key, at in places.items())


_DIFFERENCES = tuple(name for name in FIGURES if name != "score")


def _figure_name(name: str) -> str:
    """What a figure of a cell is called, or the score under a control."""
    if name in FIGURES:
        return FIGURES[name]
    return "score without knowledge" if name == Control.NONE else f"score, {name}"


def _point(estimate: Estimate | None, name: str) -> str:
    """An estimate without its interval."""
    if estimate is None:
        return "–"
    if name not in _DIFFERENCES:
        return _percent(estimate.value)
    told = f"{100 * estimate.value:+.1f}"
    return "0.0" if told in ("+0.0", "-0.0") else told.replace("-", "−")


def _told_with_interval(estimate: Estimate, name: str) -> str:
    return _signed(estimate) if name in _DIFFERENCES else _share(estimate)


def _heat(estimate: Estimate | None, name: str) -> str:
    """The class of a colour: none for a difference that cannot be told apart from 0."""
    if estimate is None:
        return ""
    if name not in _DIFFERENCES:
        return f"s{min(4, int(5 * estimate.value))}"
    low, high = estimate.low, estimate.high
    if low is None or high is None or low <= 0 <= high:
        return ""
    step = 1 + sum(abs(estimate.value) >= at for at in _STEPS)
    return f"{'p' if estimate.value > 0 else 'n'}{step}"


def _spans(panel: Panel) -> dict[str, tuple[float, float]]:
    """The lowest and highest end of the averages of a panel, by figure."""
    found = {}
    for name in (*FIGURES, *map(str, Control)):
        told = [average for row in panel.rows if (average := row.averages.get(name))]
        every = [end for e in told for end in (e.low, e.high) if end is not None]
        every += [0.0] if name in _DIFFERENCES else []
        found[name] = (min(every, default=0.0), max(every, default=0.0))
    return found


def _place_of_rank(standing: Standing, rows: int) -> str:
    """The places of a mean rank and its interval among so many, as style."""
    told = Estimate(standing.mean_rank, standing.low, standing.high)
    return _whisker(told, (1.0, float(max(rows, 2))), False)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _signed(estimate: Estimate | None) -> str:
    """An estimate of a difference in percentage points."""
    if estimate is None:
        return ""
    return f"{100 * estimate.value:+.1f}".replace("-", "−") + _spread(estimate, "+")


def _share(estimate: Estimate) -> str:
    """An estimate of a score in per cent."""
    return f"{100 * estimate.value:.1f}" + _spread(estimate, "")


def _spread(estimate: Estimate, sign: str) -> str:
    if estimate.low is not None and estimate.high is not None:
        ends = f" [{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"
        return ends.replace("-", "−")
    return "" if estimate.deviation is None else f" ± {100 * estimate.deviation:.1f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
