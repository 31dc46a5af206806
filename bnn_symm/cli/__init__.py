"""The command line; each command is a file of its own."""

from bnn_symm.cli.program import main

__all__ = ["main"]
