"""A plug from a folder, attached to a model: the same logits as in its run, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from kbench.data import Example, Split
from kbench.data.files import cache_home, is_folder
from kbench.errors import DataError, UsageError, one_line
from kbench.grid.devices import find_device
from kbench.interface.plug_folder import CONFIG, MODEL, PLUG, PlugConfig, read_config, weights_of
from kbench.interface.running import backbone_name
from kbench.method import Plug
from kbench.model import DownstreamModel, LanguageModel
from kbench.parts.run_parts import PartLoader, Parts
from kbench.pipeline.addresses import addresses
from kbench.pipeline.models import tune
from kbench.pipeline.prediction import logits_of
from kbench.pipeline.preparation import prepare
from kbench.pipeline.session import Session
from kbench.pipeline.weights import refill
from kbench.store import Artifacts
from kbench.store.artifacts import Artifact

__all__ = ["LoadedPlug", "load_plug"]


@final
class _Brought(Artifacts):
    """The user's store, beside the one model that a folder brings; nothing is made in it.

    What a stranger brings is never written into the store.
    """

    def __init__(self, folder: Path, config: PlugConfig) -> None:
        super().__init__(cache_home() / "artifacts")
        self._brought, self._config = folder, config

    def _is_brought(self, kind: str, key: str) -> bool:
        here = MODEL in self._config.files and key == self._config.addresses.get("model")
        return here and kind == "model"

    @contextmanager
    def making(self, kind: str, key: str) -> Iterator[None]:
        if not (self._is_brought(kind, key) or (kind, key) in self):
            spec = self._config.spec
            raise UsageError(
                f"the {kind} that tuning {spec.tuning} made of {spec.backbone} is not here: "
                "export the plug with --with-model, or run its command (in its README) first"
            )
        yield

    def load(self, kind: str, key: str) -> Artifact | None:
        if not self._is_brought(kind, key):
            return super().load(kind, key)
        tensors = weights_of(self._brought, self._config, MODEL)
        about: dict[str, Any] = {"recipe": None, "history": {}, "trainable_parameters": 0}
        return Artifact(tensors, {**about, "digest": self._config.frozen})


@final
class LoadedPlug:
    """A plug that was exported, with the parts of its run as they are here.

    Made by :func:`kbench.load_plug`.

    Attributes:
        config: what is known of it.
        parts: task, backbone, method and knowledge base of its run.
    """

    def __init__(
        self, folder: Path, config: PlugConfig, parts: Parts, device: torch.device
    ) -> None:
        self._folder = folder
        self.config = config
        self.parts = parts
        self._session = Session(_Brought(folder, config), device)
        self._tensors = weights_of(folder, config, PLUG)

    def __repr__(self) -> str:
        return f"<plug of {self.config.spec.title}>"

    def model(self) -> DownstreamModel:
        """Returns the frozen downstream model of the run, from the backbone and what is here.

        Raises:
            UsageError: task, backbone or knowledge base here are others than in the run, or what
                was tuned of the backbone is not here.
        """
        self._check_parts()
        model, _ = tune(self._session, self.parts)
        return model

    def _check_parts(self) -> None:
        found, stated = addresses(self.parts), self.config.addresses
        for kind in ("model", "plug"):
            if found[kind] != stated.get(kind):
                raise UsageError(
                    f"{self._folder}: what this {kind} hangs on is not here as it was: data, "
                    "backbone, knowledge base, options and kbench have to be those of the run "
                    f"(address {str(stated.get(kind))[:12]}…, here {str(found[kind])[:12]}…)"
                )

    def attach(self, model: DownstreamModel | LanguageModel) -> AbstractContextManager[None]:
        """Hooks the plug into a model for the length of a block; nothing is left behind.

        Args:
            model: that of :meth:`model`, or another of the same backbone.

        Raises:
            Unsupported: the model or the knowledge base lacks what the method needs.
            ArtifactError: the plug does not fit.
        """
        lm = model.lm if isinstance(model, DownstreamModel) else model
        return self._on(lm).attach(lm)

    def _on(self, lm: LanguageModel) -> Plug:
        method, knowledge = self.parts.method, self.parts.knowledge
        assert knowledge is not None
        method.check(lm, knowledge)
        with torch.random.fork_rng(devices=[]):
            plug = method.build(lm, knowledge).to(self._session.device)
        refill(plug, self._tensors, self._folder / PLUG, self.config.spec.method)
        if (choice := self.config.choice) is not None:
            try:
                plug.choose(choice)
            except Exception as cause:  # whatever a method makes of what a stranger wrote
                problem = f"choice {one_line(repr(choice))[:80]} is none of the method's"
                expected = "one of those that the plug was trained with"
                raise DataError(self._folder / CONFIG, problem, expected) from cause
        return plug.requires_grad_(False).eval()

    def logits(
        self,
        model: DownstreamModel,
        examples: Sequence[Example] | None = None,
        *,
        injected: bool = True,
    ) -> Tensor:
        """Returns what a model says of examples, linked and encoded as in the run.

        Args:
            model: with the plug attached.
            examples: of the task; its test split, as the run read it, if not given.
            injected: whether inputs carry what the method adds, such as slots. False asks the
                model without the plug.

        Returns:
            logits of the examples that the task's head can express, in their order, on the host.
            ``[examples, classes]``
        """
        split = prepare(self.parts, Split.TEST, model, injected=injected, given=examples)
        return logits_of(model, split.inputs, self._session.device)


def load_plug(
    folder: str | Path,
    *,
    backbone: str | Path | tuple[Any, Any] | None = None,
    knowledge: str | Path | None = None,
    data: str | Path | None = None,
    device: str = "cpu",
) -> LoadedPlug:
    """Loads a plug that ``kbench export plug`` wrote. Nothing of its folder runs code.

    Its method, tuning and task must be installed here; nothing is downloaded.

    Args:
        folder: of the plug.
        backbone: its name, folder, or model and tokenizer in memory; what the plug names if not
            given.
        knowledge: its name or folder, likewise.
        data: the folder of the task's files, where they are needed.
        device: where to compute.

    Raises:
        DataError: the folder holds no plug, or a damaged one.
        UsageError: a part is not here, or another than that of the run.
    """
    path = Path(folder)
    if not is_folder(path):
        raise UsageError(f"no folder {folder}; expected one that `kbench export plug` wrote")
    config = read_config(path)
    named = {
        "backbone": config.spec.backbone if backbone is None else backbone_name(backbone),
        "knowledge": config.spec.knowledge if knowledge is None else str(knowledge),
        "data": None if data is None else str(data),
    }
    parts = Parts(config.spec.model_copy(update=named), PartLoader(download=False))
    _check(path, config, parts)
    return LoadedPlug(path, config, parts, find_device(device))


def _check(folder: Path, config: PlugConfig, parts: Parts) -> None:
    """Refuses parts that are not those that the plug was trained with.

    Raises:
        UsageError: it says which.
    """
    if parts.base_knowledge is None:
        raise UsageError(f"{folder}: names no knowledge base; expected a plug that reads one")
    if parts.method.revision != config.method_revision:
        raise UsageError(
            f"{folder}: is of revision {config.method_revision} of {config.spec.method}, and "
            f"revision {parts.method.revision} is installed; expected the same"
        )
    found = {"backbone": parts.backbone.digest, "knowledge": parts.base_knowledge.digest}
    for kind, digest in found.items():
        stated = config.digests.get(kind)
        if digest != stated:
            name = getattr(parts.spec, kind)
            raise UsageError(
                f"{folder}: the {kind} {name} is not the one it was trained with (digest "
                f"{digest[:12]}…, expected {str(stated)[:12]}…); give that one as {kind}="
            )
