"""`kbench schema`."""

from __future__ import annotations

import json

import click

from kbench.store import Result

__all__ = ["schema"]


@click.command("schema")
def schema() -> None:
    """Print the JSON schema of result.json."""
    print(json.dumps(Result.model_json_schema(by_alias=True), indent=2))
