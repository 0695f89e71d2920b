"""The tasks of kbench, one file each, and its knowledge bases."""
