"""Runs: from a configuration to a directory, and back.

In: a `Config`. Out: a run directory, and a `Run` that opens it. Reading order: `configuration`,
    `fit_runner`,
`directory`, `run`, `stages`, `compatibility`, `distributed_fit`, `external_runs`, `predictions`.
"""

from bnn_symm.runs.configuration.config import Config, dump_config, load_config, parse_config
from bnn_symm.runs.external_runs import foreign_run, import_run
from bnn_symm.runs.fit_runner import fit_run, resume_run
from bnn_symm.runs.run import Run, load_run

__all__ = [
    "Config",
    "Run",
    "dump_config",
    "fit_run",
    "foreign_run",
    "import_run",
    "load_config",
    "load_run",
    "parse_config",
    "resume_run",
]
