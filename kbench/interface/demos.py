"""The embedded demos: grids by name."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEMOS"]

DEMOS = {
    "encoder": Path(__file__).with_name("demo.yaml"),
    "decoder": Path(__file__).with_name("demo-decoder.yaml"),
}
"""Of models that read both ways, and of those that read from left to right; the first is meant
where nothing is asked for."""
