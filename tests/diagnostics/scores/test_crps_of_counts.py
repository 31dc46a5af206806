"""The CRPS of counts equals the sum over all counts, beside points of any size."""

import numpy as np
import pytest
import torch
from scipy import stats

from bnn_symm.diagnostics.scores.crps import crps
from bnn_symm.models import NegativeBinomial, Poisson, ZeroInflatedPoisson
from bnn_symm.posteriors import Predictive


def predictive(likelihood, *rows):
    outputs = torch.tensor(rows, dtype=torch.float64).T
    return Predictive(outputs=outputs[None, None], latents={}, likelihood=likelihood)


def by_definition(cdf, target, highest):
    """Sum over every count, which needs the targets below the highest one."""
    counts = np.arange(highest)
    return np.square(cdf(counts) - (target <= counts)).sum()


@pytest.mark.parametrize("other", [5.0, 20_000.0, 1e8])
def test_a_small_count_has_its_score_beside_a_large_one(other) -> None:
    rates = torch.tensor([5.0, other]).double().log()
    scores = crps(predictive(Poisson(), rates.tolist()), torch.tensor([4.0, other]))
    assert float(scores[0]) == pytest.approx(by_definition(stats.poisson(5).cdf, 4, 200), rel=1e-9)


@pytest.mark.parametrize(("rate", "target"), [(3e4, 3.01e4), (3e4, 0.0), (3e4, 9e4), (2e5, 2e5)])
def test_large_counts_have_the_sum_over_all_counts(rate, target) -> None:
    score = crps(predictive(Poisson(), [np.log(rate)]), torch.tensor([target]))
    expected = by_definition(stats.poisson(rate).cdf, target, 400_000)
    assert float(score) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("dispersion", [1e-3, 1.0, 20.0])
def test_wide_distributions_have_the_sum_over_all_counts(dispersion) -> None:
    means = [5.0, 500.0]
    likelihood = NegativeBinomial(dispersion=dispersion)
    scores = crps(predictive(likelihood, np.log(means).tolist()), torch.tensor([3.0, 700.0]))
    for score, mean, target in zip(scores, means, [3.0, 700.0], strict=True):
        size = 1 / dispersion
        cdf = stats.nbinom(size, size / (size + mean)).cdf
        expected = by_definition(cdf, target, 2_000_000)
        assert float(score) == pytest.approx(expected, rel=2e-4)


def test_extra_zeros_far_below_all_other_counts_are_part_of_the_score() -> None:
    # P(zero) = sigmoid(-4) = 0.018; all other counts are between 95,000 and 105,000.
    score = crps(predictive(ZeroInflatedPoisson(), [np.log(1e5)], [-4.0]), torch.tensor([1e5]))
    share = 1 / (1 + np.exp(4))
    cdf = stats.poisson(1e5).cdf
    expected = by_definition(lambda k: share + (1 - share) * cdf(k), 1e5, 105_000)
    assert float(score) == pytest.approx(expected, rel=2e-3)
