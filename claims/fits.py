"""Fits of the experiments, kept by the hash of their configuration."""

import hashlib
from pathlib import Path

from bnn_symm.runs import Config, Run, dump_config, fit_run, load_run

DIGITS_POINTS = (
    "data.name=digits",
    "architecture.norm=layer",
    "prior.scale=1.0",
    "inference.name=map",
    "inference.batch_size=64",
    "inference.learning_rate=0.001",
    "threads=1",
)
"""Overrides of point solutions on digits, as in `experiments/digits_points.yaml`, without widths,
activation and number of steps."""


def fitted(config: Config, runs: Path) -> Run:
    """Return the run of a configuration, which is fitted if there is none yet.

    Args:
        config: the configuration.
        runs: directory of the experiment.

    Returns:
        The run.
    """
    path = runs / "fits" / hashlib.sha256(dump_config(config).encode()).hexdigest()[:16]
    return load_run(path) if (path / "metrics.json").exists() else fit_run(config, path)
