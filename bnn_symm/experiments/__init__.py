"""Runs: from a configuration to a directory and back."""

from bnn_symm.experiments.config import Config, dump_config, load_config, parse_config
from bnn_symm.experiments.foreign import foreign_run, import_run
from bnn_symm.experiments.run import fit_run, resume_run
from bnn_symm.experiments.stored_run import Run, load_run

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
