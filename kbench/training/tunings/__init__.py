"""Tunings: how a backbone is adapted to a task without knowledge."""
