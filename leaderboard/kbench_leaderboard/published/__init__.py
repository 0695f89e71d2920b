"""Figures of papers and their repositories, a JSON file a source."""
