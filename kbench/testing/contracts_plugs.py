"""What holds for the plug of every injection method: what it touches, and what it depends on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import nn

from kbench.method import NoPlug
from kbench.model import FrozenReader, digest
from kbench.model.freezing import frozen
from kbench.pipeline.models import tune
from kbench.pipeline.plugs import fit
from kbench.spec import Control, Setting
from kbench.store.hidden_states import HiddenStateStore
from kbench.testing.bench import Bench
from kbench.testing.contracts import TOLERANCE, Finding, Unchecked, Verdict, contract
from kbench.testing.trial import Outputs, Trial, disturb

__all__ = ["CONTRACTS"]


@contract
def leaves_nothing(bench: Bench) -> Verdict:
    """Leaving attach, by an error too, restores bit-identical outputs and every hook."""
    wrong = []
    for tried in bench.fitted:
        before, hooks = _traces(tried), _hooks(tried.model)
        tried.plugged()
        with suppress(_Stop), tried.plug.attach(tried.model.lm):
            raise _Stop
        after = _traces(tried)
        apart = max(b.apart(a) for b, a in zip(before, after, strict=True))
        left = _hooks(tried.model) - hooks
        if left or apart:
            wrong.append(f"{tried.parts.spec.setting}: max |Δ| {apart:.1e}, {left} hooks left")
    return not wrong, "; ".join(wrong) or _settings(bench, "max |Δ| 0, 0 hooks left")


class _Stop(Exception):
    """Something that goes wrong while a plug is attached."""


def _traces(tried: Trial) -> tuple[Outputs, Outputs]:
    """Outputs without the plug: of plain inputs, and of injected ones with empty slots."""
    lm, count = tried.model.lm, tried.parts.method.slot_count()
    with lm.slots(lambda rows: torch.zeros(len(rows), count, lm.slot_width)):
        return tried.base(), tried.plugged(NoPlug())


def _hooks(model: nn.Module) -> int:
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, name, ())) for part in model.modules() for name in names)


@contract
def unlinked(bench: Bench) -> Verdict:
    """An example without a known entity gives the model's own logits."""
    if not bench.method.switched:
        return _neutral(bench)
    apart = []
    for tried in bench.fitted:
        with tried.chosen():
            seen = tried.plugged().of(tried.strangers)
        apart.append(tried.base().of(tried.strangers).apart(seen))
    return _within(bench, apart, "beside linked examples in a batch")


def _neutral(bench: Bench) -> Verdict:
    """For a method without this switch: the plug as built, or one of its choices, is no plug."""
    apart = []
    for setting, tried in zip(bench.settings, bench.fitted, strict=True):
        base, built = tried.base(), bench.untrained(setting)
        ways = [base.apart(tried.plugged(built))]
        for value in tried.parts.method.choices():
            built.choose(value)
            ways.append(base.apart(tried.plugged(built)))
        apart.append(min(ways))
    return _within(bench, apart, "declared without this switch: the plug as built, or a choice")


@contract
def reached(bench: Bench) -> Verdict:
    """Knowledge swapped for another's changes the outputs; if none is read, it changes nothing."""
    reads = bench.method.reads_knowledge
    moved = []
    for setting in bench.fits:
        true, swapped = bench.tried(setting), bench.tried(setting, Control.SHUFFLED)
        with true.chosen(), swapped.chosen():
            moved.append(float((true.plugged().logits - swapped.plugged().logits).abs().max()))
    figure = f"max |Δ| of logits {', '.join(f'{value:.1e}' for value in moved)}"
    said = "reads knowledge" if reads else "declared to read none"
    return all((value > 0) == reads for value in moved), f"{figure} ({said})"


@contract
def same_seed(bench: Bench) -> Verdict:
    """The same seed gives the same plug, bit for bit."""
    wrong, known = [], []
    for setting in bench.fits:
        tried = bench.tried(setting)
        disturb()
        again = bench.again(setting, task=tried.parts.spec.task)
        known.append(digest(tried.plug)[:8])
        apart = tried.plugged().apart(again.plugged())
        if digest(again.plug) != digest(tried.plug) or apart:
            wrong.append(f"{setting}: {known[-1]} and {digest(again.plug)[:8]}, |Δ| {apart:.1e}")
    return not wrong, "; ".join(wrong) or f"fitted twice: {', '.join(known)}"


@contract
def general(bench: Bench) -> Verdict:
    """A general plug depends on no task and no tuning."""
    if Setting.GENERAL not in bench.settings:
        raise Unchecked("it has no general setting")
    one = bench.tried(Setting.GENERAL)
    ran = [o.name.rsplit(" ", 1)[-1] for o in bench.outcomes if o.evaluation]
    task = next((name for name in ran if name != one.parts.spec.task), one.parts.spec.task)
    two = bench.again(Setting.GENERAL, task=task, tuned={"train_embeddings": True})
    first, second = digest(one.plug), digest(two.plug)
    return first == second, f"{first[:8]} for {one.parts.spec.task}, {second[:8]} for {task}"


@contract
def round_trip(bench: Bench) -> Verdict:
    """A plug that was stored and loaded gives bit-identical outputs."""
    apart = []
    for tried in bench.fitted:
        stored, setting = bench.stored(), tried.parts.spec.setting
        loaded, _ = fit(stored, tried.parts, setting, tune(stored, tried.parts)[0])
        if loaded is tried.plug or digest(loaded) != digest(tried.plug):
            return False, f"{setting}: the loaded plug has other weights"
        tried.choose(loaded)
        with tried.chosen():
            apart.append(tried.plugged().apart(tried.plugged(loaded)))
    return not any(apart), _settings(bench, f"max |Δ| {max(apart):.1e}")


@contract
def owns(bench: Bench) -> Verdict:
    """The plug holds no tensor of the model."""
    for tried in bench.fitted:
        lm, knowledge = tried.parts.backbone.load(), tried.parts.knowledge
        assert knowledge is not None
        for plug, network in (
            (tried.parts.method.build(lm, knowledge), lm),
            (tried.plug, tried.model),
        ):
            shared = _places(plug) & _places(network)
            if shared or any(part in set(network.modules()) for part in plug.modules()):
                return False, f"{tried.parts.spec.setting}: {len(shared)} tensors are the model's"
    sizes = {sum(t.numel() for t in tried.plug.state_dict().values()) for tried in bench.fitted}
    return True, _settings(bench, f"{', '.join(map(str, sorted(sizes)))} numbers, all its own")


@contract
def trained(bench: Bench) -> Verdict:
    """Every parameter that counts as trained has moved."""
    wrong, counts = [], []
    for setting, tried in zip(bench.settings, bench.fitted, strict=True):
        start = dict(bench.untrained(setting).named_parameters())
        counted = {n: p for n, p in tried.plug.named_parameters() if p.requires_grad}
        still = [name for name, p in counted.items() if torch.equal(p, start[name])]
        counts.append(sum(p.numel() for p in counted.values()))
        if still:
            wrong.append(f"{setting}: {len(still)} of {len(counted)} did not, as {still[0]}")
    figure = f"{', '.join(map(str, counts))} parameters" if any(counts) else "nothing trains"
    return not wrong, "; ".join(wrong) or _settings(bench, figure)


@contract
def gradients(bench: Bench) -> Verdict:
    """Gradients of the task's loss reach the plug trained on it, and never the model."""
    wrong, figures = [], []
    for tried in bench.fitted:
        wanted = [p for p in tried.plug.parameters() if p.requires_grad]
        model, batch = tried.model.eval(), tried.batch
        with frozen(model), tried.chosen(), tried.plug.attach(model.lm):
            loss = model.loss(batch)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
        reached = sum(p.grad is not None and bool(p.grad.any()) for p in wanted)
        tried.plug.zero_grad(set_to_none=True)
        figures.append(f"{reached} of {len(wanted)}")
        # A general plug may have parts that this task does not read.
        if wanted and not reached and tried.parts.spec.setting == Setting.TASK_SPECIFIC:
            wrong.append("task-specific: none of the plug")
    figure = f"{', '.join(figures)} tensors of the plug, none of the model"
    return not wrong, "; ".join(wrong) or _settings(bench, figure)


@contract
def padding(bench: Bench) -> Verdict:
    """Outputs do not depend on the padding of the batch."""
    apart = []
    for tried in bench.fitted:
        with tried.chosen():
            apart.append(tried.plugged().apart(tried.plugged(alone=True)))
    return _within(bench, apart, "padded and alone")


@contract
def bfloat16(bench: Bench) -> Verdict:
    """Under bfloat16 autocast the outputs are finite."""
    apart = []
    for tried in bench.fitted:
        with tried.chosen():
            narrow = tried.plugged(narrow=True)
            if not narrow.finite:
                return False, f"{tried.parts.spec.setting}: not finite"
            apart.append(tried.plugged().apart(narrow))
    return True, _settings(bench, f"max |Δ| to float32 {max(apart):.1e}")


@contract
def read_once(bench: Bench) -> Verdict:
    """What it says of a frozen model may be read beforehand, and gives the same outputs."""
    apart = []
    for tried in bench.fitted:
        lm = tried.model.lm
        reading = tried.plug.reading(lm)
        if reading is not None:
            reader = FrozenReader(lm, torch.device("cpu"), HiddenStateStore(most=0))
            known = reader.read(tried.injected.inputs, reading)
            with tried.chosen():
                apart.append(tried.plugged().apart(tried.plugged(known=known)))
    if not apart:
        raise Unchecked("it says of nothing that it is the same in every epoch")
    return _within(bench, apart, "read beforehand and at once")


def _within(bench: Bench, apart: list[float], what: str) -> Verdict:
    worst = max(apart)
    figure = f"max |Δ| {worst:.1e} (at most {TOLERANCE:.0e}), {what}"
    return worst <= TOLERANCE, _settings(bench, figure)


def _settings(bench: Bench, figure: str) -> str:
    return f"{figure} ({', '.join(bench.settings)})"


def _places(module: nn.Module) -> set[int]:
    tensors = [*module.parameters(), *module.buffers()]
    return {t.untyped_storage().data_ptr() for t in tensors if t.numel()}


CONTRACTS: tuple[Callable[[Bench], Finding], ...] = (
    leaves_nothing,
    unlinked,
    reached,
    same_seed,
    general,
    round_trip,
    owns,
    trained,
    gradients,
    padding,
    bfloat16,
    read_once,
)
