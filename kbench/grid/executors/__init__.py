"""The built-in executors: this machine, and a Ray cluster."""
