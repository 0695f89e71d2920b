"""Backbones: Hugging Face folders and hub ids, and the embedded kbench-tiny."""
