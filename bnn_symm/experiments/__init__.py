"""Runs: from a configuration to a directory and back."""

from bnn_symm.experiments.config import Config, dump_config, load_config, parse_config
from bnn_symm.experiments.foreign import foreign_run, import_run
from bnn_symm.experiments.run import fit_run, resume_run
from bnn_symm.experiments.stored_run import Run, load_run
from bnn_symm.experiments.study import Study, load_study
from bnn_symm.experiments.study_run import run_study

__all__ = [
    "Config",
    "Run",
    "Study",
    "dump_config",
    "fit_run",
    "foreign_run",
    "import_run",
    "load_config",
    "load_run",
    "load_study",
    "parse_config",
    "resume_run",
    "run_study",
]
