"""A stored plug written as a folder that can be handed on, with a card made of its result."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from kbench import __version__
from kbench.data.files import (
    atomic_folder,
    cache_home,
    file_digest,
    front_matter,
    is_folder,
    write_json,
)
from kbench.data.plain_text import plain
from kbench.errors import ArtifactError, UsageError, first_line, one_line
from kbench.interface.licences import licence_of_data, licence_of_knowledge
from kbench.interface.plug_folder import CARD, CONFIG, MODEL, PLUG, PlugConfig
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.results.identity import Names
from kbench.results.selection import Selection, choices, grouped
from kbench.results.tables import Estimate, Row, rows
from kbench.spec import Control
from kbench.store import Artifacts, Result, Results
from kbench.store.artifacts import WEIGHTS

__all__ = ["export_plug", "push"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def export_plug(
    store: Results, run: str, folder: Path, *, with_model: bool = False, licence: str = ""
) -> Result:
    """Writes the plug of a stored run as a folder: weights, configuration and a card.

    Args:
        store: of results.
        run: which, as of ``kbench compare``; of several seeds the first unless one is named.
        folder: to be made.
        with_model: also write what was tuned of the backbone, without which the plug gives the
            run's logits only where that is stored.
        licence: of the weights, as the hub names it; the card says "other" if not given.

    Returns:
        the result.

    Raises:
        UsageError: it is no run with a plug, the folder is there, or the weights are not.
        ArtifactError: the weights are damaged, or the folder cannot be written.
    """
    results = list(store)
    result = _chosen(results, run)
    if folder.exists() and not (is_folder(folder) and not any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; expected the name of a new folder")
    made = result.provenance.addresses if result.provenance else {}
    files = {PLUG: _stored("plug", made.get("plug"), result)}
    if with_model:
        files[MODEL] = _stored("model", made.get("model"), result)
    row = next(row for row in rows(results, store) if result in row.results)
    try:
        with atomic_folder(folder) as scratch:
            for name, source in files.items():
                shutil.copyfile(source, scratch / name)
            config = _config(result, {name: file_digest(scratch / name) for name in files})
            write_json(scratch / CONFIG, config.model_dump(mode="json"))
            text = _card(config, result, row, licence)
            (scratch / CARD).write_text(text, encoding="utf-8")
    except OSError as cause:
        raise ArtifactError(f"{folder}: cannot be written ({first_line(cause)})") from cause
    return result


def push(folder: Path, repository: str, kind: str = "model") -> str:
    """Uploads an exported folder to the Hugging Face hub, by the user's own login there.

    Args:
        folder: what was written for it.
        repository: ``owner/name``; made if it is not there.
        kind: of the repository, as the hub has it: ``model`` or ``dataset``.

    Returns:
        where it is.

    Raises:
        UsageError: the hub does not take it.
    """
    from huggingface_hub import HfApi

    try:
        hub = HfApi()
        hub.create_repo(repository, repo_type=kind, exist_ok=True)
        return str(hub.upload_folder(repo_id=repository, repo_type=kind, folder_path=folder))
    except Exception as cause:  # the hub client raises many kinds, network errors among them
        raise UsageError(f"--push {repository}: the hub refused ({first_line(cause)})") from None


def _chosen(results: Sequence[Result], text: str) -> Result:
    """The one result that is meant.

    Raises:
        UsageError: it is none or several, or has no plug of the true knowledge.
    """
    selection = Selection.parse(text, results)
    groups = grouped(result for result in results if result in selection)
    if len(groups) != 1:
        hint = f"; choose by {choices(groups, Names(results))}" if groups else ""
        raise UsageError(f"{text!r} are {len(groups)} runs; expected one{hint}")
    result = groups[0][0]
    if result.spec.knowledge is None or result.spec.control != Control.NONE:
        raise UsageError(f"{result.spec.title} has no plug of the true knowledge to be exported")
    return result


def _stored(kind: str, key: str | None, result: Result) -> Path:
    """Where the weights of an artifact lie, after a look at their checksum."""
    artifacts = Artifacts(cache_home() / "artifacts")
    if key is None or (kind, key) not in artifacts:
        raise UsageError(
            f"the {kind} of {result.spec.title} is not in {artifacts.folder}: nothing was trained "
            f"for it, or the cache was emptied; `kbench results rm {result.id[:12]}` and its "
            "command make it again"
        )
    path = artifacts.path(kind, key)
    artifacts.check(path)
    return path / WEIGHTS


def _config(result: Result, files: dict[str, str]) -> PlugConfig:
    spec, origin = result.spec, result.provenance
    assert origin is not None
    assert result.frozen is not None
    named = {name: _last(getattr(spec, name)) for name in ("backbone", "knowledge")}
    choice = result.training.get("choice") or {}
    return PlugConfig(
        kbench=__version__,
        revision=origin.revision,
        result=result.id,
        spec=spec.model_copy(update={**named, "data": None}),
        method_revision=registry.get(Kind.METHODS, spec.method).revision,
        choice=choice.get("chosen"),
        digests={name: origin.digests.get(name) for name in ("backbone", "knowledge", "data")},
        addresses={name: origin.addresses.get(name) for name in ("plug", "model")},
        frozen=result.frozen.before,
        files=files,
    )


def _last(name: str | None) -> str | None:
    """A name as it means something elsewhere: of a path its last piece."""
    return Path(name).expanduser().name if name and is_folder(Path(name).expanduser()) else name


def _card(config: PlugConfig, result: Result, row: Row, licence: str) -> str:
    spec = config.spec
    tags = ["kbench", "knowledge-injection", spec.method]
    head: dict[str, object] = {
        "library_name": "kbench",
        "tags": tags,
        "license": licence or "other",
    }
    if _HUB_ID.fullmatch(spec.backbone.partition("@")[0]):
        head["base_model"] = spec.backbone.partition("@")[0]
    facts = [f"| {name} | {_cell(value)} |" for name, value in _facts(config, result, row) if value]
    words = f"{spec.method} on {spec.task}, for {spec.backbone}"
    lines = [
        f"# {_cell(words)}",
        "",
        f"A plug that kbench {config.kbench} trained: it brings what a knowledge base says of "
        "entities into a language model that stays as it is. It holds weights and names, and "
        "no code.",
        "",
        "| | |",
        "|---|---|",
        *facts,
        "",
        "Scores are in per cent, differences in percentage points, with 95 % intervals over "
        "the test examples. The knowledge gain is over the same method with the knowledge of "
        "entities that have nothing in common with those asked about: without it, a score "
        "says little of knowledge.",
        "",
        "```python",
        "import kbench",
        "",
        "plug = kbench.load_plug(FOLDER)  # backbone=, knowledge=: where they are here",
        "model = plug.model()",
        "with plug.attach(model):",
        "    logits = plug.logits(model)",
        "```",
        "",
    ]
    return front_matter(head, "\n".join(lines))


def _facts(config: PlugConfig, result: Result, row: Row) -> Iterator[tuple[str, str]]:
    """Yields what a card says, by name."""
    spec, score = config.spec, result.score
    yield "method", f"{spec.method}, {spec.setting}"
    yield "backbone", f"{spec.backbone} (digest {str(config.digests['backbone'])[:12]}…)"
    yield "tuning", f"{spec.tuning}{'' if MODEL in config.files else ', not in this folder'}"
    if score is not None:
        told = f"{100 * score.value:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"
        yield f"{result.main_metric} on {row.name('task')}", f"{told}, n = {score.n}"
    seeds = f", mean of {len(row.seeds)} seeds" if len(row.seeds) > 1 else ""
    yield "against no knowledge", _said(row.delta, seeds)
    yield "knowledge gain, control foreign", _said(row.gain, seeds) or "not measured"
    if result.spec.limit:
        yield "limit", f"{result.spec.limit}: not comparable with whole runs"
    if result.coverage:
        yield "coverage", f"{100 * result.coverage.examples:.1f} % of the test examples"
    for name, label in (
        ("trainable_parameters", "trained parameters"),
        ("train_processor_seconds", "training, processor seconds"),
        ("train_seconds", "training, seconds"),
        ("evaluate_seconds_per_example", "evaluation, seconds an example"),
    ):
        if name in result.cost:
            yield (
                label,
                f"{result.cost[name]:,.4g}"
                if result.cost[name] < 1000
                else f"{result.cost[name]:,.0f}",
            )
    yield "licence of the knowledge", licence_of_knowledge(result.spec)
    yield "licence of the task's data", licence_of_data(result.spec)
    yield "command", f"`{config.spec.command()}`"
    yield "result", result.id


def _said(estimate: Estimate | None, seeds: str) -> str:
    if estimate is None:
        return ""
    value = f"{100 * estimate.value:+.1f}"
    if estimate.low is None or estimate.high is None:
        return value + seeds
    return f"{value} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]{seeds}"


def _cell(text: str) -> str:
    """Text that a table of Markdown shows on one line."""
    return plain(one_line(text)).replace("|", r"\|").replace("<", "&lt;")
