"""Provide the command line, with one module for each command."""

from bnn_symm.cli.program import main

__all__ = ["main"]
