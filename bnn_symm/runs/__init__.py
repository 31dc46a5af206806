"""Turn a configuration into a run directory, and open run directories.

Input: a `Config`. Output: a run directory, and a `Run` that opens it. Reading order:
`configuration`, `fit_runner`, `directory`, `run`, `stages`, `compatibility`, `distributed_fit`,
`external_runs`, `predictions`.
"""

from bnn_symm.runs.configuration.config import Config, dump_config, load_config, parse_config
from bnn_symm.runs.external_runs import external_run, import_run
from bnn_symm.runs.fit_runner import fit_run, resume_run
from bnn_symm.runs.run import Run, load_run

__all__ = [
    "Config",
    "Run",
    "dump_config",
    "external_run",
    "fit_run",
    "import_run",
    "load_config",
    "load_run",
    "parse_config",
    "resume_run",
]
