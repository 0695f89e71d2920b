"""Draws the table of the results of seed 0 as the terminal shows it, for the README.

``python scripts/terminal_picture.py kbench-results docs/demo.svg``
"""

from __future__ import annotations

import sys
from pathlib import Path

from kbench.cli.render import print_table
from kbench.cli.terminal import Console
from kbench.results.tables import leaders, rows
from kbench.store import Results


def main(results: Path, picture: Path) -> None:
    """Writes the picture of a folder of results."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=124, force_terminal=True, file=nowhere)
        store = Results(results)
        shown = rows([r for r in store if r.spec.seed == 0], store)
        print_table(shown, console, leaders(shown, store))
        console.save_svg(str(picture), title="kbench run")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
