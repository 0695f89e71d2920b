"""What holds for every injection method, built in or a third party's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from kbench.errors import FrozenError
from kbench.model import digest
from kbench.parts.source_text import declared, defaults, settings
from kbench.pipeline.evaluation import Evaluation
from kbench.pipeline.plugs import fit
from kbench.spec import Setting
from kbench.testing import contracts_controls, contracts_plugs
from kbench.testing.bench import Bench
from kbench.testing.contracts import TOLERANCE, Finding, Unchecked, Verdict, contract
from kbench.testing.tiny import HEADLESS, TASKS, tiny

__all__ = ["CONTRACTS", "subject"]

subject = Bench


@contract
def card(bench: Bench) -> Verdict:
    """The card is complete, has the settings, and can be read without running the module."""
    given = asdict(bench.method.card)
    wanted = ("title", "paper", "year", "needs") if bench.declared else ("title", "needs")
    missing = [name for name in wanted if not given[name]]
    if not str(bench.method.revision).strip():
        missing.append("revision")
    listed = declared(bench.entry)
    computed = [name for name in wanted if listed.get(name) != given[name]]
    if set(settings(bench.entry)) != {str(setting) for setting in bench.declared}:
        computed.append("settings")
    if defaults(bench.entry) != dict(bench.method.defaults):
        computed.append("defaults")
    if missing or computed:
        unread = f"not literal in the source: {', '.join(computed)}" if computed else ""
        lacks = f"missing: {', '.join(missing)}" if missing else ""
        return False, "; ".join(filter(None, (lacks, unread)))
    names = ", ".join(bench.declared) or "no setting: the yardstick"
    return True, f"{given['title']} ({given['year'] or 'no paper'}), {names}"


@contract
def covers(bench: Bench) -> Verdict:
    """Each entity is covered or not for itself; row -1 never is."""
    parts = bench.parts(Setting.GENERAL, knowledge=str(tiny().knowledge))
    knowledge = parts.base_knowledge
    assert knowledge is not None
    rows = np.arange(-1, len(knowledge), dtype=np.int64)
    covered = parts.method.covers(knowledge, rows)
    figure = f"{int(covered[1:].sum())} of {len(rows) - 1} entities"
    if covered.dtype != np.bool_ or covered.shape != rows.shape:
        return False, f"returns {covered.dtype} {covered.shape}, not bool {rows.shape}"
    turned = parts.method.covers(knowledge, rows[::-1])[::-1]
    if covered[0] or not np.array_equal(covered, turned):
        return False, f"{figure}; row -1: {bool(covered[0])}; depends on the order of rows"
    return bool(covered.any()), figure


@contract
def runs(bench: Bench) -> Verdict:
    """Every declared setting runs on a tiny task; what cannot is skipped with a reason."""
    wrong = [o.problem for o in bench.outcomes if not o.sound]
    ran = [o.name for o in bench.outcomes if o.evaluation]
    skipped = [o.problem for o in bench.outcomes if o.skipped]
    idle = [s for s in bench.declared if not any(name.startswith(s) for name in ran)]
    if idle:
        wrong.append(f"{', '.join(idle)} runs on no task: {'; '.join(skipped)}")
    figure = f"{len(ran)} runs on {len(TASKS)} tasks, {len(skipped)} skipped"
    return not wrong, "; ".join(wrong) or figure


@contract
def refuses(bench: Bench) -> Verdict:
    """Without knowledge or without a masked-LM head it runs, or is skipped with a reason."""
    if not bench.declared:
        raise Unchecked("it needs nothing")
    poor = {
        "names alone": {"knowledge": str(tiny().bare)},
        "no masked-LM head": {"backbone": HEADLESS},
    }
    outcomes = [
        (what, bench.outcome(setting, **changes))
        for what, changes in poor.items()
        for setting in bench.declared
    ]
    wrong = [f"{what}: {outcome.problem}" for what, outcome in outcomes if not outcome.sound]
    skipped = sum(outcome.skipped for _, outcome in outcomes)
    return not wrong, "; ".join(wrong) or f"{len(outcomes)} poor combinations, {skipped} skipped"


@contract
def frozen_weights(bench: Bench) -> Verdict:
    """The frozen model's weights have the same digest before and after fit and evaluation."""
    evaluations = [o.evaluation for o in bench.outcomes if o.evaluation]
    changed = [o.problem for o in bench.outcomes if isinstance(o.error, FrozenError)]
    changed += [o.name for o in bench.outcomes if o.evaluation and not _same_digests(o.evaluation)]
    for tried in bench.fitted if bench.declared and not changed else ():
        tried.plugged()
        if digest(tried.model) != tried.before:
            changed.append(f"{tried.parts.spec.setting}: {tried.parts.spec.task}'s model")
    if changed:
        return False, f"changed: {'; '.join(changed)}"
    known = sorted({evaluation.after[:8] for evaluation in evaluations})
    return bool(evaluations), f"{len(evaluations)} runs, {len(known)} models ({', '.join(known)})"


def _same_digests(evaluation: Evaluation) -> bool:
    return bool(evaluation.before) and evaluation.before == evaluation.after


@contract
def fixed_plug(bench: Bench) -> Verdict:
    """In fine-tuning the plug stays as it is while the model is tuned with it in place."""
    if Setting.FINE_TUNING not in bench.settings:
        raise Unchecked("it has no fine-tuning")
    tried = bench.tried(Setting.FINE_TUNING)  # tuned with this very plug in place
    stored, _ = fit(bench.stored(), tried.parts, Setting.FINE_TUNING, tried.model)
    before, after = digest(stored), digest(tried.plug)
    return before == after, f"{before[:8]} before, {after[:8]} after"


@contract
def follows(bench: Bench) -> Verdict:
    """What a plug takes of a network that is tuned around it is that of the network as it is now.

    What it keeps from an earlier step the tuned network is not tested on.
    """
    if Setting.FINE_TUNING not in bench.settings:
        raise Unchecked("it has no fine-tuning")
    held, anew = bench.tried(Setting.FINE_TUNING).retuned()
    apart = held.apart(anew)
    return apart <= TOLERANCE, f"max |Δ| {apart:.1e} to the plug attached anew"


@contract
def beside_lora(bench: Bench) -> Verdict:
    """A general plug works in a model whose linear maps a tuning has put into others of its own."""
    if Setting.GENERAL not in bench.settings:
        raise Unchecked("it has no general setting")
    task = bench.tried(Setting.GENERAL).parts.spec.task
    outcome = bench.outcome(Setting.GENERAL, task=task, tuning="lora")
    if not outcome.sound or outcome.skipped:
        return False, f"does not run there: {outcome.problem}"
    return True, f"runs on {task}, tuned by lora"


CONTRACTS: tuple[Callable[[Bench], Finding], ...] = (
    card,
    covers,
    runs,
    refuses,
    frozen_weights,
    fixed_plug,
    follows,
    beside_lora,
    *contracts_controls.CONTRACTS,
    *contracts_plugs.CONTRACTS,
)
