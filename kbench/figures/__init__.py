"""Figures for papers: what they show of stored results, and how it is drawn."""
