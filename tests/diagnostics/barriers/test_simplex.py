"""Loss over the simplex of three posteriors or more."""

import numpy as np
import pytest
import torch

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Scaling, Split
from bnn_symm.diagnostics import simplex_barrier
from bnn_symm.diagnostics.barriers.interpolation import couple, losses
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import GaussianPosterior, SamplePosterior

MODEL = BayesianModel(
    build_network(MLPConfig(widths=(4,)), input_shape=(3,), num_outputs=2).double(),
    Prior(),
    Categorical(),
)
GENERATOR = torch.Generator().manual_seed(0)
PART = Split(
    x=torch.randn(40, 3, generator=GENERATOR, dtype=torch.float64),
    y=torch.randint(2, (40,), generator=GENERATOR),
)


def normal(seed: int) -> GaussianPosterior:
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(MODEL.num_parameters, generator=generator, dtype=torch.float64)
    return GaussianPosterior(MODEL, Scaling.identity((3,)), loc=loc, scale=0.1 + 0 * loc)


@pytest.mark.parametrize("number", [3, 4, 5])
def test_places_and_corners(number):
    posteriors = [normal(seed) for seed in range(number)]
    found = simplex_barrier(posteriors, PART, num_draws=4)
    weights = np.asarray(found.weights)
    assert np.allclose(weights.sum(1), 1)
    assert (weights >= 0).all()
    assert np.array_equal(weights[:number], np.eye(number))
    assert np.allclose(weights[number], 1 / number)
    assert len({tuple(np.round(place, 9)) for place in weights}) == len(weights)
    assert found.above[:number] == pytest.approx([0.0] * number, abs=1e-12)
    assert found.height == max(found.above) >= 0
    assert found.centroid == found.above[number]
    assert found.path == "wasserstein"


def test_each_place_is_the_loss_of_the_combined_posterior():
    posteriors = [normal(seed) for seed in range(3)]
    found = simplex_barrier(posteriors, PART, num_draws=6, seed=2)
    for place in (5, 20, 40):
        weights = found.weights[place]
        loc = sum(w * p.loc for w, p in zip(weights, posteriors, strict=True))
        scale = sum(w * p.scale for w, p in zip(weights, posteriors, strict=True))
        combined = GaussianPosterior(MODEL, posteriors[0].scaling, loc=loc, scale=scale)
        own = losses(combined, combined.draws(6, seed=2), PART).marginal_nll
        assert found.marginal_nll[place] == pytest.approx(own, abs=1e-12)


def test_an_edge_is_the_barrier_of_a_pair():
    posteriors = [normal(seed) for seed in range(3)]
    found = simplex_barrier(posteriors, PART, num_draws=5)
    middle = found.weights.index([0.5, 0.5, 0.0])
    draws = couple(posteriors[:2], num_draws=5)
    own = losses(posteriors[0], draws.interpolate([0.5, 0.5]), PART).marginal_nll
    assert found.marginal_nll[middle] == pytest.approx(own, abs=1e-12)


def test_one_posterior_three_times_is_flat():
    found = simplex_barrier([normal(1)] * 3, PART, num_draws=4)
    assert found.height == pytest.approx(0, abs=1e-9)


def test_points():
    points = [SamplePosterior.from_draws(MODEL, normal(seed).loc[None, None]) for seed in range(3)]
    found = simplex_barrier(points, PART)
    assert found.path == "straight line"
    center = sum(p.draws()[0] for p in points) / 3
    expected = losses(points[0], center[None], PART).marginal_nll
    assert found.marginal_nll[3] == pytest.approx(expected, abs=1e-12)


@pytest.mark.thorough
def test_the_same_bits_for_the_same_seed():
    posteriors = [normal(seed) for seed in range(4)]
    first, again, other = (
        simplex_barrier(posteriors, PART, num_draws=3, seed=s) for s in (1, 1, 2)
    )
    assert first == again
    assert first.weights != other.weights
