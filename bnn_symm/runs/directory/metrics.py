"""Evaluate a posterior: the content of `metrics.json`."""

from typing import Any

from bnn_symm.data import Dataset
from bnn_symm.diagnostics import elbo, score
from bnn_symm.posteriors import Posterior

# Scores on the training split use at most this many of its points; its order is random, so the
# first ones are a sample.
_TRAIN_POINTS = 5000
_EVIDENCE = ("log_evidence", "prior_scale")


def measure(posterior: Posterior, dataset: Dataset, *, seed: int = 0) -> dict[str, Any]:
    """Return the content of `metrics.json`: scores on each part, and the ELBO of a closed form.

    A Laplace approximation may have the log evidence and a chosen scale of the prior as well.

    Args:
        posterior: the posterior.
        dataset: the data.
        seed: the seed of the ELBO estimate.
    """
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
        **{key: posterior.info[key] for key in _EVIDENCE if key in posterior.info},
        "draws": posterior.shape[0] * posterior.shape[1],
        "parameters": posterior.shape[2],
    }
