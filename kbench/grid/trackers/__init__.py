"""Trackers, one file each. Each keeps its records where its own tool looks for them."""
