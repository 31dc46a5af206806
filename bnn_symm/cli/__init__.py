"""Provide the command line, with one module for each command.

In: arguments. Out: a short table or JSON on stdout, and an exit status. Reading order: `program`,
`command`, `fitting` (fit, predict, import, report), `analysis` (diagnose, align, barrier, and
others), `torchrun`.
"""

from bnn_symm.cli.program import main

__all__ = ["main"]
