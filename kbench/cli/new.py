"""`kbench new`: a small distribution that installs and runs as it stands."""

from __future__ import annotations

import datetime
import keyword
import os
import re
import shlex
import shutil
import tempfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

import click

from kbench import __version__
from kbench.cli.messages import say
from kbench.errors import UsageError, first_line, nearest
from kbench.parts import registry
from kbench.parts.catalogue import Kind

__all__ = ["new"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*")
_MADE = ("method",)


class _Kinds(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _MADE and not args[0].startswith("-"):
            raise UsageError(f"kbench new cannot make {args[0]!r}{nearest(args[0], _MADE)}")
        return super().resolve_command(ctx, args)


@click.group("new", cls=_Kinds)
def new() -> None:
    """Write a small distribution with a part of your own, to install and change."""


@new.command("method")
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where the folder NAME goes.  [default: here]",
)
def method(name: str, out: Path) -> None:
    """Write a distribution with an injection method called NAME into a folder of that name.

    It is complete: an affine map of entity vectors that installs, runs and passes its test.
    """
    module = _checked(name)
    target = out / name
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} exists already; give another name, or another --out")
    try:
        _write(target, name, module)
    except OSError as cause:
        problem = f"cannot be written ({first_line(cause)})"
        raise UsageError(f"{target} {problem}; give another --out") from None
    say(f"{target}: a method called {name}, in {module}.py. What to type next:\n")
    say(f"  pip install -e {shlex.quote(str(target))}")
    say(f"  kbench check {name}")
    say(f"  kbench run --task 'atlas-*' --method none,{name} --setting task-specific")


def _checked(name: str) -> str:
    """Returns the module's name.

    Raises:
        UsageError: the name cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a method; expected letters, digits and single dashes "
            "between them, a letter first, such as gated-map"
        )
    if name in registry.names(Kind.METHODS):
        offered = registry.find(Kind.METHODS, name).distribution
        raise UsageError(f"the method {name!r} is offered by {offered} already; give another name")
    module = name.replace("-", "_").lower()
    if keyword.iskeyword(module) or find_spec(module) is not None:
        raise UsageError(
            f"a method called {name!r} would live in a module called {module!r}, which Python has "
            f"already; give another name, such as {name}-injection"
        )
    return module


def _write(target: Path, name: str, module: str) -> None:
    """Writes the folder beside its place, then moves it there: whole or not at all."""
    words = {
        "name": name,
        "module": module,
        "title": "".join(word.capitalize() for word in name.split("-")),
        "version": __version__,
        "year": str(datetime.datetime.now(tz=datetime.UTC).year),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name[:40]}."))
    try:
        for template in (files("kbench.cli") / "templates" / "method").iterdir():
            text = Template(template.read_text(encoding="utf-8")).substitute(words)
            place = scratch / template.name.removesuffix(".txt").replace("module", module)
            place.write_text(text, encoding="utf-8")
        scratch.chmod(0o755)
        os.rename(scratch, target)  # noqa: PTH104  # refuses a folder that came in between
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
