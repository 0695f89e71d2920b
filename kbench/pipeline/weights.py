"""Weights of models and plugs: what of them is stored, and how they are filled again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kbench.errors import ArtifactError, KbenchError, one_line
from kbench.method import Plug
from kbench.model import DownstreamModel
from kbench.training import History

__all__ = ["check_finite", "refill", "restore", "untied"]

_ANEW = "`kbench cache prune --all` has all made anew"


def check_finite(network: nn.Module, what: str, history: History) -> None:
    """Refuses what nothing can be computed with before it is stored.

    Raises:
        KbenchError: a weight, a loss or a dev score is not finite.
    """
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise KbenchError(f"{what} is not finite after training (parameter {name})")
    for name in ("losses", "dev", "seconds"):
        if not np.isfinite(getattr(history, name)).all():
            raise KbenchError(f"{what} was trained with {name} that are not finite")


def untied(model: DownstreamModel) -> dict[str, Tensor]:
    """The state without the second name of tensors that share storage."""
    seen: set[tuple[int, int]] = set()
    kept = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.numel())
        if place not in seen or not tensor.numel():
            kept[name] = tensor
        seen.add(place)
    return kept


def restore(model: DownstreamModel, tensors: dict[str, Tensor]) -> None:
    """Fills a model with stored weights and freezes it.

    Raises:
        KbenchError: they are those of another model.
    """
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as cause:
        raise ArtifactError(
            f"stored weights do not fit the model ({one_line(cause)}); {_ANEW}"
        ) from None
    # What is missing must be the second name of a tensor that came under its first.
    twins = set(missing) & set(untied(model))
    if twins or unexpected:
        raise KbenchError(
            f"stored weights do not fit the model: {sorted(twins | {*unexpected})[:3]}; {_ANEW}"
        )
    model.requires_grad_(False)


def refill(plug: Plug, tensors: dict[str, Tensor], path: Path, method: str) -> None:
    """Fills a plug with stored weights.

    Args:
        plug: untrained.
        tensors: its weights.
        path: where they lie.
        method: whose plug it is.

    Raises:
        ArtifactError: they are those of another plug.
    """
    try:
        plug.load_state_dict(tensors)
    except RuntimeError as cause:
        raise ArtifactError(
            f"the stored plug {path} does not fit method {method} ({one_line(cause)}): if the "
            f"method's code has changed, raise its `revision`; else remove that folder, or "
            "all by `kbench cache prune --all`"
        ) from None
