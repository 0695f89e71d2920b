"""The Python interface: what the command does, for programs and notebooks."""
