"""Weights of low rank beside the linear maps of a layer, others for each row of a batch.

Of a map ``y = W x + b`` a plug makes ``y = W x + b + U_n D_n x`` in row ``n`` of a batch, with
``D_n: [rank, in]`` and ``U_n: [out, rank]``: two batched products beside the frozen one, and never
a matrix of its size (LoRA; Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models",
ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

if TYPE_CHECKING:
    from kbench.encoding import Batch

__all__ = ["LinearMap", "maps_of"]

Factors: TypeAlias = "Callable[[Batch], tuple[Tensor, Tensor] | None]"
"""Of a batch ``D`` (``[batch, rank, in]``) and ``U`` (``[batch, out, rank]``), or None for none."""
_OF_ATTENTION = ("self_attn", "attn", "attention", "self_attention")


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear map of a layer.

    Attributes:
        name: within the layer, as the network has it: ``mlp.down_proj``.
        inputs: numbers of a state that it reads.
        outputs: numbers that it gives.
        of_attention: whether it is a part of attention, and not of the feed-forward network.
    """

    name: str
    inputs: int
    outputs: int
    of_attention: bool
    _module: nn.Module
    _batch: Callable[[], Batch]

    @contextmanager
    def with_low_rank(self, factors: Factors) -> Iterator[None]:
        """Adds ``U D x`` to what the map gives inside the block.

        Several may do so: what they add is added up. At the steps of an answer it is asked too;
        whom a text speaks of is :attr:`~kbench.encoding.Batch.entities` there as well.

        Args:
            factors: of the batch that is being read. Where its factors are 0 a row is as it is.
        """

        def hook(_: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
            made = factors(self._batch())
            if made is None:
                return output
            down, up = (part.to(output.device) for part in made)
            states = given[0].to(down.dtype)
            if states.dim() != 3 or len(states) != len(down):
                raise RuntimeError(
                    f"{self.name} reads {[*states.shape]}, and there are factors for {len(down)} "
                    "rows; expected [rows, tokens, width]: the layer does not read row by row"
                )
            added: Tensor = states @ down.mT @ up.mT
            return output + added.to(output.dtype)

        handle = self._module.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def maps_of(layer: nn.Module, batch: Callable[[], Batch]) -> dict[str, LinearMap]:
    """Returns the linear maps of a layer by their names within it.

    Args:
        layer: of a network.
        batch: what is being read, when it is asked.
    """
    found, tuned = dict[str, LinearMap](), list[str]()
    for name, module in layer.named_modules():
        if name.startswith(tuple(tuned)):
            continue
        base = getattr(module, "base_layer", None)  # a map that LoRA tunes is one map as before
        if base is not None:
            tuned.append(f"{name}.")
        sizes = _sizes(module if base is None else base)
        if sizes is not None:
            part = name.split(".")[0] in _OF_ATTENTION
            found[name] = LinearMap(name, *sizes, part, module, batch)
    return found


def _sizes(module: Any) -> tuple[int, int] | None:
    """How many numbers a linear map reads and gives; None for what is none."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D":  # GPT-2's linear map, the other way round
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    return None
