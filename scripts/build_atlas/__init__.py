"""Builds the embedded knowledge base `atlas` and its three tasks from openly licensed data."""
