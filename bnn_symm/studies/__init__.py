"""Run studies: grids of fits under matched conditions, from one configuration to conclusions.

A `Study` is planned, its fits and barriers run as tasks, and their results are summarized in
tables and conclusions. Reading order: `config`, `study`, `plan`, `keys`, `task`, `executors`,
`directory`, `runner`, then `results`.
"""

from bnn_symm.studies.runner import run_study
from bnn_symm.studies.study import Study, load_study

__all__ = ["Study", "load_study", "run_study"]
