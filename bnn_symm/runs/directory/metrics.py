"""What is measured of a posterior, and the file of a run directory that has it."""

from collections.abc import Mapping
from typing import Any

from bnn_symm.data import Dataset
from bnn_symm.diagnostics import elbo, score
from bnn_symm.io.atomic import write_json
from bnn_symm.posteriors import Posterior
from bnn_symm.runs.directory.run_directory import RunDirectory

# Scores on the training part use at most so many of its points; its order is random, so the first
# ones are a sample.
_TRAIN_POINTS = 5000


def measure(posterior: Posterior, dataset: Dataset, *, seed: int = 0) -> dict[str, Any]:
    """The content of `metrics.json`: scores on the three parts, and the ELBO of a closed form."""
    train = dataset.train
    bound = elbo(posterior, train, seed=seed)
    return {
        "train": score(posterior, train.take(slice(0, _TRAIN_POINTS))),
        "validation": score(posterior, dataset.validation),
        "test": score(posterior, dataset.test),
        "elbo": None if bound is None else bound.value,
        "elbo_standard_error": None if bound is None else bound.standard_error,
        "expected_log_likelihood": None if bound is None else bound.expected_log_likelihood,
        "kl": None if bound is None else bound.kl,
        "draws": posterior.shape[0] * posterior.shape[1],
        "parameters": posterior.shape[2],
    }


def write_metrics(directory: RunDirectory, metrics: Mapping[str, Any]) -> None:
    """Writes `metrics.json`."""
    write_json(directory.metrics, metrics)
