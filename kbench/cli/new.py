"""`kbench new`: a small distribution that installs and runs as it stands."""

from __future__ import annotations

import datetime
import keyword
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Made:
    """What is written for a kind of part.

    Attributes:
        kind: of the part.
        suffix: of the name of its class.
        what: it is, in the words of a description.
        about: it, as the help says it.
        steps: what to type once it is installed; ``$name`` and ``$data`` are filled in.
    """

    kind: Kind
    suffix: str
    what: str
    about: str
    steps: tuple[str, ...]

    @property
    def an(self) -> str:
        """What one is called, after its article."""
        return f"{'an' if self.kind.one[0] in 'aeiou' else 'a'} {self.kind.one}"


_MADE = {
    made.kind.one: made
    for made in (
        _Made(
            Kind.METHODS,
            "Injection",
            "a knowledge injection method",
            "an affine map of entity vectors",
            (
                "kbench check $name",
                "kbench run --task 'atlas-*' --method none,$name --setting task-specific",
            ),
        ),
        _Made(
            Kind.TASKS,
            "Task",
            "a task",
            "the type of marked names, from files in JSON Lines of which a few are written too,",
            (
                "kbench check $name --data $data",
                "kbench show $name --data $data",
                "kbench run --task $name --data $data --method none,map-tuning "
                "--setting task-specific",
            ),
        ),
        _Made(
            Kind.TUNINGS,
            "Tuning",
            "a tuning",
            "the training of every vector of a model, and of no matrix,",
            (
                "kbench check $name",
                "kbench run --task 'atlas-*' --tuning full,$name --method none",
            ),
        ),
        _Made(
            Kind.IMPORTERS,
            "Importer",
            "an importer of knowledge bases",
            "a reader of facts, a line each, of which a few are written too,",
            (
                "kbench check $name",
                "kbench knowledge import $name $data $name-kb",
                "kbench knowledge info $name-kb",
            ),
        ),
    )
}


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


def _command(made: _Made) -> click.Command:
    """The command that writes a distribution with a part of a kind."""

    def write(name: str, out: Path) -> None:
        module = _checked(name, made)
        target = out / name
        if target.exists() or target.is_symlink():
            raise UsageError(f"{target} exists already; give another name, or another --out")
        try:
            _write(target, name, module, made)
        except OSError as cause:
            problem = f"cannot be written ({first_line(cause)})"
            raise UsageError(f"{target} {problem}; give another --out") from None
        say(f"{target}: {made.an} called {name}, in {module}.py. What to type next:\n")
        say(f"  pip install -e {shlex.quote(str(target))}")
        for step in _steps(made, name, shlex.quote(str(target / "data"))):
            say(f"  {step}")

    out = click.Option(
        ["--out"],
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(),
        help="Where the folder NAME goes.  [default: here]",
    )
    return click.Command(
        made.kind.one,
        callback=write,
        params=[click.Argument(["name"]), out],
        help=f"Write a distribution with {made.what} called NAME into a folder of that name.\n\n"
        f"It is complete: {made.about} that installs, runs and passes its test.",
        short_help=f"Write a distribution with {made.what} called NAME.",
    )


for _made in _MADE.values():
    new.add_command(_command(_made))


def _steps(made: _Made, name: str, data: str) -> list[str]:
    return [Template(step).substitute(name=name, data=data) for step in made.steps]


def _checked(name: str, made: _Made) -> str:
    """Returns the module's name.

    Raises:
        UsageError: the name cannot be used.
    """
    one = made.kind.one
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of {made.an}; expected letters, digits and single dashes "
            "between them, a letter first, such as gated-map"
        )
    if name in registry.names(made.kind):
        offered = registry.find(made.kind, name).distribution
        raise UsageError(f"the {one} {name!r} is offered by {offered} already; give another name")
    module = name.replace("-", "_").lower()
    if keyword.iskeyword(module) or find_spec(module) is not None:
        raise UsageError(
            f"{made.an} called {name!r} would live in a module called {module!r}, which Python has "
            f"already; give another name, such as {name}-{made.suffix.lower()}"
        )
    return module


def _write(target: Path, name: str, module: str, made: _Made) -> None:
    """Writes the folder beside its place, then moves it there: whole or not at all."""
    title = "".join(word.capitalize() for word in name.split("-"))
    words = {
        "name": name,
        "module": module,
        "plain": module.replace("_", ""),
        "title": title,
        "one": made.kind.one,
        "an": made.an,
        "what": made.what,
        "What": made.what.capitalize(),
        "group": f"kbench.{made.kind}",
        "class": f"{title}{made.suffix}",
        "steps": "\n".join(_steps(made, name, "data")),
        "version": __version__,
        "year": str(datetime.datetime.now(tz=datetime.UTC).year),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name[:40]}."))
    try:
        for path, template in _templates(made.kind.one):
            place = scratch / path.removesuffix(".txt").replace("module", module)
            place.parent.mkdir(exist_ok=True)
            place.write_text(Template(template).substitute(words), encoding="utf-8")
        scratch.chmod(0o755)
        os.rename(scratch, target)  # noqa: PTH104  # refuses a folder that came in between
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _templates(one: str) -> Iterator[tuple[str, str]]:
    """Yields the paths and texts of what is written for a kind: its own, and what all have."""
    every = files("kbench.cli") / "templates"
    folders = [("", every), ("", every / one), ("data/", every / one / "data")]
    for at, folder in folders:
        for file in folder.iterdir() if folder.is_dir() else ():
            if file.is_file():
                yield f"{at}{file.name}", file.read_text(encoding="utf-8")
