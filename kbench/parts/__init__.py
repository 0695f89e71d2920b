"""Names to parts: what is installed, found by name, put together for a run."""
