"""``python -m kbench``: the command, where it is not on the path."""

from kbench.cli import main

if __name__ == "__main__":
    main()
