"""Scores count a point of an integer weight as that many points."""

import numpy as np
import pytest
import torch

from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics import score
from bnn_symm.diagnostics.scores.baselines import baselines
from bnn_symm.diagnostics.scores.loo import loo
from bnn_symm.diagnostics.scores.score_intervals import scores_with_intervals
from bnn_symm.diagnostics.simulation import sbc
from bnn_symm.errors import ConfigError
from bnn_symm.inference import MAP
from bnn_symm.models import BayesianModel, Bernoulli, Categorical, Gaussian, Poisson, Prior
from bnn_symm.posteriors import SamplePosterior

COUNTS = torch.tensor([3, 0, 1, 2, 1, 5, 1, 1, 2, 4])
WHERE = torch.arange(len(COUNTS)).repeat_interleave(COUNTS)
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(len(COUNTS), 2, generator=GENERATOR, dtype=torch.float64)
TARGETS = {
    "classes": (Categorical(), 3, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])),
    "two classes": (Bernoulli(), 1, torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1, 0])),
    "numbers": (Gaussian(noise=0.5), 1, X.sum(1)),
    "counts": (Poisson(), 1, torch.tensor([0.0, 1, 2, 0, 1, 2, 0, 1, 2, 0]).double()),
}


def posterior_of(likelihood, outputs: int) -> SamplePosterior:
    model = BayesianModel(torch.nn.Linear(2, outputs).double(), Prior(), likelihood)
    draws = torch.randn(1, 30, model.num_parameters, generator=GENERATOR, dtype=torch.float64)
    return SamplePosterior.from_draws(model, draws)


@pytest.fixture(params=TARGETS)
def case(request) -> tuple[SamplePosterior, Split, Split]:
    likelihood, outputs, y = TARGETS[request.param]
    weighted = Split(x=X, y=y, weight=COUNTS.double())
    return posterior_of(likelihood, outputs), weighted, Split(x=X[WHERE], y=y[WHERE])


def test_scores_are_those_of_repeated_points(case) -> None:
    posterior, weighted, repeated = case
    got, wanted = score(posterior, weighted), score(posterior, repeated)
    assert (got.pop("points"), wanted.pop("points")) == (len(COUNTS), len(WHERE))
    assert got == pytest.approx(wanted, rel=1e-9)


def test_scores_with_intervals_are_those_of_repeated_points(case) -> None:
    posterior, weighted, repeated = case
    # The randomized transform of counts has a random number for each point.
    is_count = posterior.model.likelihood.task == "count"
    random = {"qce", "pit_distance", "pit_mean"} if is_count else set()
    got, wanted = (
        {
            name: own.value
            for name, own in scores_with_intervals(posterior, part, num_resamples=0).values.items()
            if name not in random
        }
        for part in (weighted, repeated)
    )
    assert got == pytest.approx(wanted, rel=1e-6, nan_ok=True)


def test_scores_do_not_depend_on_the_unit_of_weights(case) -> None:
    posterior, weighted, _ = case
    other = Split(x=weighted.x, y=weighted.y, weight=0.01 * COUNTS.double())
    options = {"num_resamples": 5}
    got, wanted = (
        scores_with_intervals(posterior, part, **options).values for part in (other, weighted)
    )
    # `aurc` and `aece` count to a whole number of points.
    for name in set(got) - {"aurc", "aece"}:
        assert got[name].value == pytest.approx(wanted[name].value, rel=1e-6)
    assert all(np.isfinite(own.value) for own in got.values() if own.value is not None)


@pytest.mark.parametrize("task", ["regression", "classification", "count"])
def test_baselines_are_fitted_to_observations(task) -> None:
    y = {"regression": X.sum(1), "classification": (X[:, 0] > 0).long()}.get(task, X[:, 0].exp())
    y = y.round() if task == "count" else y
    keys = {"task": task, "test_fraction": 0, "validation_fraction": 0, "dtype": torch.float64}
    keys["standardize"] = False
    pair = (
        Dataset.from_arrays(X, y, weight=COUNTS, **keys),
        Dataset.from_arrays(X[WHERE], y[WHERE], **keys),
    )
    part = pair[0].train
    (constant, linear), (constant_2, linear_2) = (baselines(data, part).models for data in pair)
    np.testing.assert_allclose(constant.predictions.log_prob, constant_2.predictions.log_prob)
    if task == "regression":
        # Leave-one-out errors of repeated points differ: a copy of the point is left.
        return
    got, wanted = linear.predictions.log_prob, linear_2.predictions.log_prob
    np.testing.assert_allclose(got, wanted, rtol=1e-3)


def test_what_is_not_defined_for_weights_says_so(case) -> None:
    posterior, weighted, _ = case
    result = loo(posterior, weighted)
    assert result.elpd is None
    assert "weights" in result.notes[0]
    data = Dataset.from_arrays(X, X.sum(1), weight=COUNTS, test_fraction=0, dtype=torch.float64)
    with pytest.raises(ConfigError, match="points have weights"):
        sbc.simulation_based_calibration(
            MAP(), posterior_of(Gaussian(), 1).model, data, num_simulations=1, seed=0
        )
