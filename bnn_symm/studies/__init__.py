"""Studies: grids of fits under matched conditions, from one configuration to tables and
conclusions.

In: a `Study`. Out: a directory of finished tasks and what they say together. Reading order:
    `study`, `plan`, `keys`,
`task`, `executors`, `directory`, `runner`, then `results`.
"""

from bnn_symm.studies.runner import run_study
from bnn_symm.studies.study import Study, load_study

__all__ = ["Study", "load_study", "run_study"]
