"""The documentation site: what mkdocs is told beside the pages of docs/.

A hook of mkdocs (see mkdocs.yml), built by ``tox -e docs``. README, CONTRIBUTING and the cards of what
is embedded are pages too, though they lie elsewhere; links between files of the checkout lead to
pages; and one page is made of the help of every command.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

__all__ = ["OUTSIDE", "command_page", "on_files", "on_page_markdown", "relinked"]

ROOT = Path(__file__).resolve().parents[1]

OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.txt",
    "CITATION.cff": "citation.cff.txt",
    "kbench/model/tiny/README.md": "kbench-tiny.md",
    "kbench/model/tiny_lm/README.md": "kbench-tiny-lm.md",
    "tasks/kbench_tasks/atlas/README.md": "atlas.md",
    "tasks/kbench_tasks/atlas/NOTICE.md": "notice.md",
}
"""Files of the checkout that lie outside docs/, and the page that each is."""

COMMANDS = "commands.md"
_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
_WIDTH = 96


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are no files of docs/. Called by mkdocs."""
    from mkdocs.structure.files import File

    made = {
        page: relinked((ROOT / path).read_text(encoding="utf-8"), path)
        for path, page in OUTSIDE.items()
    }
    for page, text in {**made, COMMANDS: command_page()}.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leads the links of a page of docs/ to pages. Called by mkdocs."""
    path = page.file.src_uri
    return markdown if path in {*OUTSIDE.values(), COMMANDS} else relinked(markdown, f"docs/{path}")


def relinked(markdown: str, path: str) -> str:
    """Returns a text whose links to files of the checkout lead to pages of the site.

    Args:
        markdown: the text.
        path: where it lies in the checkout, with slashes.
    """

    def page(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), found[2]))
        return f"{found[1]}{OUTSIDE.get(target, target.removeprefix('docs/'))}{found[3]}"

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(page, part) for part in parts)


def command_page() -> str:
    """Returns a page with the help of every command, as the command prints it."""
    parts = [
        "# Every command",
        "What `-h` prints. [The command](command.md) says what holds for all.",
    ]
    for words, command, context in _commands():
        parts += [f"## `{words}`", f"```text\n{command.get_help(context).rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command and group, in the order of the help, with its words."""
    from kbench.cli import command

    def below(
        group: click.Command, name: str, parent: click.Context | None
    ) -> Iterator[tuple[str, click.Command, click.Context]]:
        context = click.Context(
            group, info_name=name, parent=parent, max_content_width=_WIDTH, terminal_width=_WIDTH
        )
        yield context.command_path, group, context
        if isinstance(group, click.Group):
            for one in group.list_commands(context):
                inner = group.get_command(context, one)
                assert inner is not None
                if not inner.hidden:
                    yield from below(inner, one, context)

    yield from below(command(), "kbench", None)
