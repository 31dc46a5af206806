"""Evaluate a posterior: the content of `metrics.json`."""

from typing import Any

from bnn_symm.data import Dataset
from bnn_symm.diagnostics import elbo, score
from bnn_symm.diagnostics.scores.baselines import baselines
from bnn_symm.diagnostics.scores.scores import score_points
from bnn_symm.diagnostics.scores.standing import baseline_warnings, compare_with_baselines
from bnn_symm.posteriors import Posterior
from bnn_symm.summaries import plain

# Scores on the training split use at most this many of its points; its order is random, so the
# first ones are a sample.
_TRAIN_POINTS = 5000
_EVIDENCE = ("log_evidence", "prior_scale")


def measure(posterior: Posterior, dataset: Dataset, *, seed: int = 0) -> dict[str, Any]:
    """Return the content of `metrics.json`: scores on each part, and the ELBO of a closed form.

    `baselines` has the NLL of a constant and of a linear model on the test split, with the
    differences and what follows from them (`standing`), and `notes` a sentence for each that this
    model does not beat. A Laplace approximation may have the log evidence and a chosen scale of the
    prior as well.

    Args:
        posterior: the posterior.
        dataset: the data.
        seed: the seed of the ELBO estimate.
    """
    train = dataset.train
    bound = elbo(posterior, train, seed=seed)
    test, compared, notes = _test_scores(posterior, dataset, seed)
    return {
        "train": score(posterior, train.take(slice(0, _TRAIN_POINTS))),
        "validation": score(posterior, dataset.validation),
        "test": test,
        "baselines": compared,
        "notes": notes,
        "elbo": None if bound is None else bound.value,
        "elbo_standard_error": None if bound is None else bound.standard_error,
        "expected_log_likelihood": None if bound is None else bound.expected_log_likelihood,
        "kl": None if bound is None else bound.kl,
        **{key: posterior.info[key] for key in _EVIDENCE if key in posterior.info},
        "draws": posterior.shape[0] * posterior.shape[1],
        "parameters": posterior.shape[2],
    }


def _test_scores(
    posterior: Posterior, dataset: Dataset, seed: int
) -> tuple[dict[str, Any] | None, dict[str, Any], list[str]]:
    """Return the scores on the test split, the baselines beside them, and what is to be noted."""
    if len(dataset.test) == 0:
        return None, {}, []
    found = score_points(posterior, dataset.test)
    models = baselines(dataset, dataset.test, seed=seed).models
    compared = compare_with_baselines(found.log_prob, models, dataset.test)
    return found.scores, plain(compared), baseline_warnings(found.scores["nll"], compared)
