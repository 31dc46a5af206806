"""Errors of the mutual information hold their level where copies of a posterior overlap rarely."""

import math

import numpy as np
import pytest
import torch

from bnn_symm.diagnostics.elbo.monte_carlo_error import (
    _mean_interval,
    interval,
    largest,
    standard_error,
)
from bnn_symm.diagnostics.elbo.symmetrized_elbo import symmetrized_elbo
from bnn_symm.inference.variational.symmetry_information import InformationTerm
from bnn_symm.models.interchangeable_units import interchangeable_units
from bnn_symm.randomness import numpy_generator, torch_generator
from bnn_symm.symmetry import symmetry_group
from tests.diagnostics.elbo.test_symmetrized_elbo import PLAIN, model_of, posterior_of


def information(apart, units, activation="relu", number=60_000):
    """The exact term of one hidden layer at many draws, in an order of its own."""
    posterior = posterior_of(model_of(widths=(units,), activation=activation), apart)
    (one,), _ = interchangeable_units(posterior.model, symmetry_group(posterior.model.net))
    columns = torch.ones(one.index.shape[1], dtype=torch.bool)
    term = InformationTerm(one, columns, "permanent", (torch.arange(units),))
    noise = torch.randn(
        number, len(posterior.loc), generator=torch_generator(0, "information"), dtype=torch.float64
    )
    return term, term.information(posterior.loc, posterior.scale, posterior.reparameterize(noise))


@pytest.mark.parametrize("size", [50, 400])
@pytest.mark.parametrize(
    ("apart", "units", "activation"),
    [(0.8, 3, "relu"), (1.6, 5, "relu"), (2.6, 5, "relu"), (4.0, 4, "relu"), (2.2, 3, "tanh")],
)
def test_errors_hold_where_overlaps_are_rare(apart, units, activation, size):
    term, values = information(apart, units, activation)
    truth = float(values.mean())
    assert values.max() <= largest([term]) + 1e-9
    assert truth > 0
    samples = values[: 80 * size if size < 400 else 40 * size].split(size)
    errors = [(float(own.mean()) - truth) / standard_error(own, [term]) for own in samples]
    # 3 standard errors: 0.3 % of normal means; of 40 at most 2 with a probability of 0.9998, of 80
    # likewise 3.
    assert sum(abs(error) > 3 for error in errors) <= 3
    intervals = [interval(own, [term]) for own in samples]
    covered = [low <= truth <= high for low, high in intervals]
    # 95 % of 40: at least 33 with a probability of 0.9993.
    assert np.mean(covered) >= 33 / 40
    assert all(
        low - 1e-9 <= own.mean() <= high + 1e-9
        for (low, high), own in zip(intervals, samples, strict=True)
    )


def test_the_standard_deviation_of_draws_without_an_overlap_is_no_error():
    term, values = information(4.0, 4)
    most = largest([term])
    assert most == pytest.approx(math.log(24))
    apart = values[values > most - 1e-6][:200]
    assert float(apart.std()) < 1e-6
    assert standard_error(apart, [term]) == pytest.approx(most / 200, rel=1e-3)
    low, high = interval(apart, [term])
    assert high == pytest.approx(most, abs=1e-6)
    assert low < most - 3 * most / 200


@pytest.mark.parametrize("mean", [0.0, 0.001, 0.02, 0.5, 1.0])
def test_intervals_of_means_of_bounded_variables(mean):
    generator = numpy_generator(0, "bounded")
    misses = 0
    for _ in range(200):
        values = torch.from_numpy((generator.uniform(size=100) < mean).astype(np.float64))
        low, high = _mean_interval(values)
        assert 0 <= low <= float(values.mean()) <= high <= 1
        misses += not low <= mean <= high
    # 5 % of 200, and three standard deviations of that.
    assert misses <= 10 + 3 * 3.1
    if mean == 0:  # the rule of three, at a level for each end and bound
        assert high == pytest.approx(1 - 80 ** (-1 / 100), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("apart", "exact_up_to"), [(1.6, 12), (2.2, 12), (1.6, 3)])
def test_forty_seeds_agree_with_the_truth(apart, exact_up_to):
    _, values = information(apart, 5, number=400_000)
    truth = float(values.mean())
    posterior = posterior_of(model_of(widths=(5,)), apart)
    found = [
        symmetrized_elbo(posterior, PLAIN, seed=seed, exact_up_to=exact_up_to) for seed in range(40)
    ]
    above = [
        (one.mutual_information - truth) / one.mutual_information_standard_error for one in found
    ]
    assert sum(score > 3 for score in above) <= 2
    assert sum(one.mutual_information_low > truth for one in found) <= 4
    if exact_up_to == 12:
        assert sum(abs(score) > 3 for score in above) <= 2
        assert sum(one.mutual_information_high < truth for one in found) <= 4
    else:  # seeds estimate one bound
        values = np.array([one.mutual_information for one in found])
        assert values.std() < 3 * np.mean([one.mutual_information_standard_error for one in found])
    assert {one.kind for one in found} == {"exact" if exact_up_to == 12 else "lower bound"}
