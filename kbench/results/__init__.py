"""Stored results read again: selected, compared, tabulated, shown example by example."""
