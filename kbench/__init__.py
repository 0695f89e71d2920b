"""kbench: a benchmark of knowledge injection into frozen language models."""

__version__ = "0.1.0"
