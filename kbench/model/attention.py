"""What goes on in the attention of a layer, seen and changed by a plug, whatever the architecture.

Networks of ``transformers`` hand queries, keys and values to a function that is registered by name.
Inside a block a layer's attention is told another name, and nothing else: the function of that name
asks the plugs, and computes the network's own attention by the one that it had. No network is
copied, its configuration and masks stay as they are, and leaving the block takes the name back.

A layer's queries and keys are rotated by then where positions are told so. What a layer's attention
reads is seen too, and what its queries are before that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from kbench.errors import Unsupported
from kbench.model.freezing import at_home

if TYPE_CHECKING:
    from kbench.encoding import Batch

__all__ = ["AttentionCall", "LayerAttention", "attention_of", "untold"]

_NAME = "kbench"
"""Of the function that is registered."""
_PATHS = ("self_attn", "attn", "attention.self", "attention", "self_attention")
"""Where the attention of a layer is, in networks of ``transformers``."""
_QUERIES = ("q_proj", "query", "q_lin")
"""A map of its own that makes queries, by its name."""
_NORMS = ("q_norm", "q_layernorm")
"""What normalises queries before they are rotated."""

Change: TypeAlias = "Callable[[AttentionCall], Tensor]"
"""What attention gives in the place of its own output: ``[batch, tokens, heads, size]``."""
_SCORES = {"cpu": 1 << 20}
"""Scores held at once where no gradient needs them: 4 MiB, for which a cache has room."""
_MOST_SCORES = 1 << 26
"""Likewise, elsewhere."""


@dataclass(frozen=True)
class AttentionCall:
    """One pass of a batch through the attention of a layer.

    At a step of an answer ``tokens`` is 1, and keys and values are of all that was read before too.

    Attributes:
        layer: whose attention it is.
        batch: what is being read.
        hidden: what attention reads: the layer's input, normalised where the layer does that first;
            in float32. ``[batch, tokens, width]``.
        queries: as they are compared with keys, so rotated. ``[batch, heads, tokens, size]``.
        keys: likewise; several heads of queries may share one.
            ``[batch, key heads, known, size]``.
        values: ``[batch, key heads, known, size]``.
        mask: as the network gives it: numbers that are added, whether it may be seen, or None.
        scaling: of the products of queries and keys.
        softcap: what products are held below, by a tanh; None for no such.
    """

    layer: LayerAttention
    batch: Batch
    hidden: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor | None
    scaling: float
    softcap: float | None
    _compute: Callable[..., Tensor]

    def output(self) -> Tensor:
        """Returns what the layer's attention gives by itself. ``[batch, tokens, heads, size]``."""
        return self._compute(self.keys, self.values, self.mask)

    def visible(self) -> Tensor:
        """Returns whether each token may look at each. ``[batch or 1, 1, tokens, known]``, bool."""
        mask = self.mask
        if mask is None:
            tokens, known = self.queries.shape[2], self.keys.shape[2]
            all_of = torch.ones(tokens, known, dtype=torch.bool, device=self.keys.device)
            return (all_of.tril(known - tokens) if self.layer.causal else all_of)[None, None]
        if mask.dtype == torch.bool:
            return mask
        return mask > torch.finfo(mask.dtype).min / 2

    def unrotated(self) -> Tensor:
        """Returns the queries before they are told where they stand.

        Returns:
            ``[batch, heads, tokens, size]``.
        """
        return self.layer.queries_of(self.hidden)

    def with_more(self, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
        """Returns what attention gives with more keys and values beside the text's.

        They are compared with the layer's own queries: keys are as a layer has them, rotated if its
        are.

        Args:
            keys: ``[batch, key heads, more, size]``.
            values: likewise.
            visible: which of them a text sees, or each of its tokens; None for all.
                ``[batch, more]`` or ``[batch, tokens, more]``, bool.

        Returns:
            ``[batch, tokens, heads, size]``.
        """
        more = keys.shape[2]
        if not more:
            return self.output()
        batch, _, tokens, _ = self.queries.shape
        blocked = self.queries.new_zeros(batch, 1, tokens, more)
        if visible is not None:
            seen = visible if visible.dim() == 3 else visible[:, None, :]
            lowest = torch.finfo(blocked.dtype).min
            blocked = blocked.masked_fill(~seen[:, None].to(blocked.device), lowest)
        own = self._added().expand(batch, -1, tokens, -1)
        return self._compute(
            torch.cat([keys.to(self.keys), self.keys], 2),
            torch.cat([values.to(self.values), self.values], 2),
            torch.cat([blocked.expand(-1, own.shape[1], -1, -1), own], 3),
        )

    def beside(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        visible: Tensor | None = None,
        bias: Tensor | float = 0.0,
    ) -> Tensor:
        """Returns what attention gives where others are looked at too, by queries of their own.

        It is one softmax over both, put together from two by the logarithms of their sums. Where
        nothing is to be seen of the others it is the layer's own output, bit for bit.

        Args:
            queries: ``[batch, heads, tokens, size]``.
            keys: of what is looked at, for each text or one for all.
                ``[batch or 1, key heads, others, size]``.
            values: likewise.
            visible: which of them a text sees, or each of its tokens; None for all.
                ``[batch, others]`` or ``[batch, tokens, others]``, bool.
            bias: what is added to the products: a number, or anything of a form that is spread over
                ``[batch, heads, tokens, others]``.

        Returns:
            ``[batch, tokens, heads, size]``.
        """
        own = self.output()
        if not keys.shape[2]:
            return own
        mass, before = self._own_mass(), own.transpose(1, 2).float()
        heads = queries.shape[1]
        # Once, not for each part of the batch: there may be far more of them than tokens.
        keys, values = (_shared(part.to(own.device).float(), heads) for part in (keys, values))

        def change(rows: slice) -> Tensor:
            seen = None if visible is None else visible[rows]
            scores = self.scores(queries[rows], _rows(keys, rows), seen) + _rows(bias, rows)
            share = torch.sigmoid(scores.logsumexp(-1) - mass[rows])
            found: Tensor = scores.softmax(-1) @ _rows(values, rows)
            return share.unsqueeze(-1) * (found - before[rows])

        batch = len(queries)
        each = heads * queries.shape[2] * keys.shape[2]
        most = _SCORES.get(own.device.type, _MOST_SCORES)
        step = batch if torch.is_grad_enabled() else max(1, most // each)
        parts = [change(slice(at, at + step)) for at in range(0, batch, step)]
        return own + torch.cat(parts).transpose(1, 2).to(own.dtype)

    def scores(self, queries: Tensor, keys: Tensor, visible: Tensor | None = None) -> Tensor:
        """Returns how well queries fit to keys that are looked at beside the text.

        Args:
            queries: ``[batch, heads, tokens, size]``.
            keys: of what is looked at, for each text or one for all.
                ``[batch or 1, key heads, others, size]``.
            visible: which of them a text sees, or each of its tokens; None for all.
                ``[batch, others]`` or ``[batch, tokens, others]``, bool.

        Returns:
            the products, scaled, in float32; the lowest number where nothing is seen.
            ``[batch, heads, tokens, others]``.
        """
        device = self.queries.device
        scores = _products(queries.to(device), keys.to(device)) * self.scaling
        if visible is None:
            return scores
        seen = (visible if visible.dim() == 3 else visible[:, None, :]).to(device)
        return scores.masked_fill(~seen[:, None], torch.finfo(scores.dtype).min)

    def _own_mass(self) -> Tensor:
        """The logarithm of the sum of the text's own softmax. ``[batch, heads, tokens]``."""
        scores = _products(self.queries, self.keys) * self.scaling
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        return (scores + self._added().float()).logsumexp(-1)

    def _added(self) -> Tensor:
        """The mask as what is added. ``[batch or 1, heads or 1, tokens, known]``."""
        if self.mask is not None and self.mask.dtype != torch.bool:
            return self.mask.to(self.queries.dtype)
        visible = self.visible()
        nothing = self.queries.new_zeros(visible.shape)
        return nothing.masked_fill(~visible, torch.finfo(nothing.dtype).min)


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """The attention of a layer.

    Attributes:
        heads: of queries.
        key_heads: of keys and values.
        size: of a head.
        causal: whether a token sees those before it alone where no mask says so.
    """

    heads: int
    key_heads: int
    size: int
    causal: bool
    _layer: nn.Module
    _module: Any
    _batch: Callable[[], Batch]

    @contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """Replaces what the layer's attention gives by ``change`` of what it is given.

        Several may do so: who came last is asked first, and :meth:`AttentionCall.output` gives what
        the others make of it.

        Args:
            change: returns ``[batch, tokens, heads, size]``.
        """
        _register()
        module = self._module
        config = module.config
        remembered = _Remembered(self._layer)
        handle = module.register_forward_pre_hook(remembered, with_kwargs=True)
        module.config = _Told(config, _Route(self, change, remembered))
        try:
            yield
        finally:
            module.config = config
            handle.remove()

    def queries_of(self, hidden: Tensor) -> Tensor:
        """Returns the layer's own queries of states, before they are rotated.

        Args:
            hidden: as attention reads them. ``[batch, tokens, width]``.

        Returns:
            ``[batch, heads, tokens, size]``.

        Raises:
            Unsupported: kbench does not know how this network makes them.
        """
        module = self._module
        flat = self._flat_queries(hidden)
        for norm in (getattr(module, name, None) for name in _NORMS):
            if norm is not None:
                by_head = norm.weight.shape[-1] == self.size
                flat = norm(self._by_head(flat) if by_head else flat).view(flat.shape)
        return self._by_head(flat).transpose(1, 2)

    def _flat_queries(self, hidden: Tensor) -> Tensor:
        """The layer's map of states to queries. ``[batch, tokens, heads * size]``."""
        module, cut = self._module, self.heads * self.size
        own = next((name for name in _QUERIES if hasattr(module, name)), None)
        if own is not None:
            return _applied(getattr(module, own), hidden)
        if hasattr(module, "c_attn"):
            return _applied(module.c_attn, hidden)[..., :cut]
        if hasattr(module, "qkv_proj"):
            return _applied(module.qkv_proj, hidden)[..., :cut]
        if hasattr(module, "query_key_value"):
            whole = _applied(module.query_key_value, hidden)
            return whole.view(*whole.shape[:-1], self.heads, -1)[..., : self.size].flatten(-2)
        raise Unsupported(f"kbench does not know how {type(module).__name__} makes queries")

    def _by_head(self, flat: Tensor) -> Tensor:
        return flat.reshape(*flat.shape[:-1], self.heads, self.size)


def attention_of(layer: nn.Module, batch: Callable[[], Batch]) -> LayerAttention:
    """Returns the attention of a layer.

    Args:
        layer: of a network of ``transformers``.
        batch: what is being read, when it is asked.

    Raises:
        Unsupported: its attention asks no registered function.
    """
    module = _found(layer)
    if module is None or not hasattr(module, "config"):
        raise Unsupported(
            f"the attention of {type(layer).__name__} is not of a form that kbench knows: it must "
            "ask a registered function of transformers"
        )
    config = module.config
    if getattr(module, "reorder_and_upcast_attn", False):
        raise Unsupported(
            f"{type(module).__name__} computes attention by a way of its own where "
            "reorder_and_upcast_attn is set; expected a network without it"
        )
    heads = int(config.num_attention_heads)
    sizes = (getattr(module, n, None) for n in ("head_dim", "attention_head_size", "head_size"))
    size = next((int(size) for size in sizes if size), int(config.hidden_size) // heads)
    shared = int(getattr(module, "num_key_value_groups", 1) or 1)
    causal = bool(getattr(module, "is_causal", False))
    return LayerAttention(heads, heads // shared, size, causal, layer, module, batch)


def _found(layer: nn.Module) -> Any:
    for path in _PATHS:
        part: Any = layer
        for name in path.split("."):
            part = getattr(part, name, None)
        if isinstance(part, nn.Module) and "ALL_ATTENTION_FUNCTIONS" in _code_of(part):
            return part
    return None


def _code_of(module: nn.Module) -> dict[str, Any]:
    return vars(sys.modules[type(module).__module__])


class _Remembered:
    """The hook before a layer's attention: it keeps what that reads, for as long as it computes."""

    changes_nothing = True
    """What is not wanted of the last layer may be left out around it."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self.hidden = torch.empty(0)

    def __call__(self, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.hidden = given[0] if given else named["hidden_states"]

    def taken(self) -> Tensor:
        hidden, self.hidden = self.hidden, torch.empty(0)
        return at_home(self._layer, hidden)


@dataclass(frozen=True)
class _Route:
    """Where a layer's attention is sent."""

    layer: LayerAttention
    change: Change
    remembered: _Remembered


class _Told:
    """A configuration that names the registered function, and is another's in all else."""

    _attn_implementation = _NAME

    def __init__(self, own: Any, route: _Route) -> None:
        self._own, self._route = own, route

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_own", "_route"):  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._own, name)


@contextmanager
def untold(network: nn.Module) -> Iterator[None]:
    """Lets every layer of a network attend as it does by itself, inside the block."""
    told = [(m, vars(m)["config"]) for m in network.modules() if _is_told(m)]
    try:
        for module, config in told:
            while isinstance(config, _Told):
                config = config._own
            module.config = config
        yield
    finally:
        for module, config in told:
            module.config = config


def _is_told(module: nn.Module) -> bool:
    return isinstance(vars(module).get("config"), _Told)


def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)


def _attend(
    module: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    return _sent(module.config, module, queries, keys, values, mask, **more), None


def _sent(
    config: Any,
    module: Any,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    **more: Any,
) -> Tensor:
    """What a plug makes of attention, the network's or what another plug makes of it."""
    if not isinstance(config, _Told):
        own = _code_of(module)
        compute = own["ALL_ATTENTION_FUNCTIONS"].get_interface(
            config._attn_implementation, own.get("eager_attention_forward")
        )
        output: Tensor = compute(module, queries, keys, values, mask, **more)[0]
        return output

    def inner(keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        return _sent(config._own, module, queries, keys, values, mask, **more)

    route = config._route
    scaling = more.get("scaling")
    call = AttentionCall(
        layer=route.layer,
        batch=route.layer._batch(),
        hidden=route.remembered.taken(),
        queries=queries,
        keys=keys,
        values=values,
        mask=mask,
        scaling=queries.shape[-1] ** -0.5 if scaling is None else float(scaling),
        softcap=more.get("softcap"),
        _compute=inner,
    )
    changed: Tensor = route.change(call)
    return changed.to(queries)


def _rows(part: Any, rows: slice) -> Any:
    """What is of some rows of a batch, of something that is of each or one for all."""
    of_each = isinstance(part, Tensor) and part.dim() == 4 and len(part) > 1
    return part[rows] if of_each else part


def _products(queries: Tensor, keys: Tensor) -> Tensor:
    """Of queries with keys, in float32. ``[batch, heads, tokens, known]``."""
    return queries.float() @ _shared(keys.float(), queries.shape[1]).transpose(2, 3)


def _shared(of_heads: Tensor, heads: int) -> Tensor:
    """Keys or values for each head of queries."""
    groups = heads // of_heads.shape[1]
    return of_heads if groups == 1 else of_heads.repeat_interleave(groups, 1)


def _applied(part: Any, hidden: Tensor) -> Tensor:
    """A frozen map of states, in the precision and the place of its weights."""
    weight = part.weight
    narrow = hidden.to(weight.device, weight.dtype if weight.is_floating_point() else None)
    result: Tensor = part(narrow)
    return result
