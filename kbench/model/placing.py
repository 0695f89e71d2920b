"""How weights are held and where: what ``from_pretrained`` is told, and what must be there for it.

Weights of 8 and 4 bits are made by bitsandbytes on a GPU, where they stay. A model that is too
large for one GPU is spread over all of them, some layers on each; what is around it (vectors of
slots, plugs, heads, losses) is where its word embeddings are.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from kbench.errors import UsageError
from kbench.spec import PACKED, Held

__all__ = ["HOME", "check_spread", "mark", "settle_places", "told"]

HOME = "kbench_home"
"""Of a layer that is elsewhere: the device of what is around the model."""


def told(weights: Held, device: str = "cpu", *, spread: bool = False) -> dict[str, Any]:
    """Returns what ``from_pretrained`` is told.

    Args:
        weights: how they are held.
        device: where the model will compute.
        spread: whether it is parted among all GPUs.

    Raises:
        UsageError: there is no GPU, or a package is missing.
    """
    how: dict[str, Any] = {"dtype": "float32" if weights == "float32" else "bfloat16"}
    if weights in PACKED:
        how |= _packed(weights, device)
    if spread:
        check_spread()
        how["device_map"] = "auto"
    return how


def check_spread() -> None:
    """Refuses to spread a model where there is nothing to spread it over.

    Raises:
        UsageError: there are not two GPUs, or a package is missing.
    """
    _needed("accelerate", "--spread parts a model by", "spread")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        raise UsageError(
            f"--spread parts a model among GPUs, and this machine shows {count}; expected two or "
            "more (see CUDA_VISIBLE_DEVICES), or a run without it"
        )


def _packed(weights: Held, device: str) -> dict[str, Any]:
    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        raise UsageError(
            f"--weights {weights} is computed with on a GPU (CUDA) alone, and this run computes on "
            f"{device}; take --device cuda where there is one, or --weights bfloat16"
        )
    _needed("bitsandbytes", f"--weights {weights} is made by", "quantised")
    from transformers import BitsAndBytesConfig

    if weights == "8bit":
        # Columns of outliers are looked for in a batch as a whole: with them, what is said of a
        # text would depend on those beside it.
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    return {"quantization_config": config, "device_map": {"": device}}


def _needed(package: str, what: str, extra: str) -> None:
    if find_spec(package) is None:
        raise UsageError(
            f"{what} the package {package}, which is not installed; "
            f"pip install knowledge-bench[{extra}]"
        )


def settle_places(network: Any) -> bool:
    """Notes at each part of a spread model where what is around it is.

    Args:
        network: as loaded.

    Returns:
        Whether its weights must stay where they are.

    Raises:
        UsageError: not all of it is on GPUs.
    """
    places = getattr(network, "hf_device_map", None) or {}
    if len(places) > 1 and {"cpu", "disk"} & {*map(str, places.values())}:
        raise UsageError(
            "the GPUs have no room for the whole model, and what is left would be computed on the "
            "host; take --weights bfloat16, 8bit or 4bit, or more GPUs"
        )
    if len(places) > 1:
        mark(network)
    return bool(places)


def mark(network: Any) -> None:
    """Notes at each part of a network the device of its word embeddings.

    Args:
        network: of which accelerate moves what its parts are given to where these are.
    """
    home = network.get_input_embeddings().weight.device
    for module in network.modules():
        setattr(module, HOME, home)
