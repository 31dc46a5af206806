"""Score the networks of a zoo on the test split: the targets that are predicted from weights."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics.scores.scores import expected_calibration_error
from bnn_symm.models import BayesianModel
from bnn_symm.models.likelihoods import has_events
from bnn_symm.posteriors import Predictive, SamplePosterior

BARRIER = "barrier"
"""Name of the target of `midpoint_barriers`."""

# Networks whose outputs are in memory at once.
_AT_ONCE = 100


def score_networks(
    model: BayesianModel, dataset: Dataset, weights: Float[Tensor, "network parameter"]
) -> dict[str, Float[np.ndarray, " network"]]:
    """Return the scores of each network on the test split.

    Args:
        model: the model.
        dataset: its test split is used.
        weights: flat vectors.

    Returns:
        `nll` (nats per point), with `accuracy` and `ece` for classes, or `rmse` for one number.

    Example:
        >>> from bnn_symm import Prior, load_dataset
        >>> from bnn_symm.likelihoods import Categorical
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> list(score_networks(model, load_dataset("iris"), torch.zeros(2, 15)))
        ['nll', 'accuracy', 'ece']
    """
    own = [_scores(network, dataset.test) for network in _predictions(model, dataset, weights)]
    return {name: np.array([scores[name] for scores in own]) for name in own[0]}


def midpoint_barriers(
    model: BayesianModel,
    dataset: Dataset,
    weights: Float[Tensor, "network parameter"],
    nll: Float[np.ndarray, " network"],
) -> Float[np.ndarray, " network"]:
    """Return the barrier of each network to the network of the lowest test NLL, without alignment.

    It is the test NLL in the middle of the straight line, minus the mean of the ends. A fixed end
    makes it a function of the weights of one network. It changes if the units of one of the two
    are permuted, so that for networks with symmetries it is not invariant.

    Args:
        model: the model.
        dataset: its test split is used.
        weights: flat vectors.
        nll: their test NLL.
    """
    if not np.isfinite(nll).any():
        return np.full_like(nll, np.nan)
    best = int(np.nanargmin(nll))
    middle = score_networks(model, dataset, (weights + weights[best]) / 2)["nll"]
    return middle - (nll + nll[best]) / 2


def _predictions(model: BayesianModel, dataset: Dataset, weights: Tensor) -> Iterator[Predictive]:
    for part in weights.split(_AT_ONCE):
        posterior = SamplePosterior.from_draws(model, part[None], dataset.scaling)
        predictive = posterior.predict(dataset.test.x)
        for number in range(len(part)):
            yield predictive.select(torch.tensor([number]))


def _scores(predictive: Predictive, test: Split) -> dict[str, float]:
    predictive, y = predictive.given(test.y.cpu())
    scores = {"nll": -test.mean(predictive.log_prob(y))}
    if predictive.is_classification:
        probabilities = predictive.probabilities()
        scores["accuracy"] = test.mean(probabilities.argmax(-1) == y)
        scores["ece"] = expected_calibration_error(probabilities, y, test.observations.cpu())
    elif len(predictive.columns) == 1 and not has_events(predictive.likelihood):
        error = predictive.mean() - predictive.in_own_units(y)
        scores["rmse"] = test.mean(error.square()) ** 0.5
    return scores
