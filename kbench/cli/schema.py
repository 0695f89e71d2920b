"""`kbench schema`."""

from __future__ import annotations

import json

import click

from kbench.cli.messages import say
from kbench.grid.grids import grid_schema
from kbench.store import Result

__all__ = ["schema"]


@click.command("schema")
@click.argument("of", type=click.Choice(["result", "grid"]), default="result")
def schema(of: str) -> None:
    """Print the JSON schema of result.json, or of a grid file, for editors and other tools."""
    found = grid_schema() if of == "grid" else Result.model_json_schema(by_alias=True)
    say(json.dumps(found, indent=2))
