"""Coupled draws: which path is which, and what it costs; losses of draws against the posterior's
own scores."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Scaling, Split
from bnn_symm.diagnostics import score
from bnn_symm.diagnostics.barriers.interpolation import couple, losses
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.models import BayesianModel, Prior
from bnn_symm.posteriors import GaussianPosterior, SamplePosterior
from bnn_symm.symmetry import symmetry_group
from tests.models.cases import CASES, normal

MODEL = CASES["categorical"].model()
LENGTH = MODEL.num_parameters
NO_SCALING = Scaling.identity((2,))


def gaussian(seed: int, model: BayesianModel = MODEL) -> GaussianPosterior:
    number = model.num_parameters
    scale = (0.5 * normal(number, seed=seed + 100)).exp()
    return GaussianPosterior(
        model, NO_SCALING, loc=normal(number, seed=seed), scale=scale, seed=seed
    )


def samples(seed: int, chains: int = 2, draws: int = 6) -> SamplePosterior:
    spread, center = (0.5 * normal(LENGTH, seed=seed)).exp(), normal(LENGTH, seed=seed + 50)
    return SamplePosterior.from_draws(
        MODEL, center + spread * normal(chains, draws, LENGTH, seed=seed + 200)
    )


def cost(first: Tensor, second: Tensor) -> float:
    return float((first - second).square().sum())


# -- normals


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_means_and_standard_deviations_of_normals_are_linear(tau) -> None:
    first, second = gaussian(1), gaussian(2)
    pairs = couple([first, second], num_draws=9, seed=4)
    assert pairs.path == "wasserstein"
    between = GaussianPosterior(
        MODEL,
        NO_SCALING,
        loc=(1 - tau) * first.loc + tau * second.loc,
        scale=(1 - tau) * first.scale + tau * second.scale,
    )
    torch.testing.assert_close(
        pairs.interpolate([1 - tau, tau]), between.draws(9, seed=4), rtol=1e-12, atol=1e-12
    )


def test_normals_have_the_same_noise_whatever_permuted_them() -> None:
    first, second = gaussian(1), gaussian(2)
    permutation = symmetry_group(MODEL.net).random(3)
    moved = second.permute(permutation)
    pairs = couple([first, moved], num_draws=5)
    noise = [(own - p.loc) / p.scale for own, p in zip(pairs.draws, (first, moved), strict=True)]
    torch.testing.assert_close(noise[0], noise[1], rtol=1e-9, atol=1e-9)
    assert not torch.equal(pairs.draws[1], moved.draws(5))


def test_more_draws_begin_with_the_same_ones() -> None:
    few, many = (couple([gaussian(1), gaussian(2)], num_draws=n, seed=1) for n in (3, 8))
    for own, other in zip(few.draws, many.draws, strict=True):
        assert torch.equal(own, other[:3])
    other_seed = couple([gaussian(1), gaussian(2)], num_draws=3, seed=2)
    assert not torch.equal(few.draws[0], other_seed.draws[0])


def test_a_point_of_the_simplex_is_the_weighted_sum() -> None:
    triple = couple([gaussian(1), gaussian(2), gaussian(3)], num_draws=4)
    assert len(triple.draws) == 3
    expected = 0.2 * triple.draws[0] + 0.5 * triple.draws[1] + 0.3 * triple.draws[2]
    torch.testing.assert_close(triple.interpolate([0.2, 0.5, 0.3]), expected)
    with pytest.raises(ValueError, match="zip"):
        triple.interpolate([0.5, 0.5])


# -- points and draws


def test_points_move_on_a_straight_line() -> None:
    ends = normal(2, LENGTH)
    first, second = (SamplePosterior.from_draws(MODEL, end[None, None]) for end in ends)
    for coupling in ("moment", "assignment", "independent"):
        pairs = couple([first, second], num_draws=50, coupling=coupling)
        assert pairs.path == "straight line"
        torch.testing.assert_close(
            pairs.interpolate([0.75, 0.25]), (0.75 * ends[0] + 0.25 * ends[1])[None]
        )
        assert torch.equal(pairs.interpolate([1.0, 0.0]), ends[:1])
        assert torch.equal(pairs.interpolate([0.0, 1.0]), ends[1:])


@pytest.mark.parametrize("coupling", ["moment", "assignment", "independent"])
def test_paths_of_draws_carry_the_name_of_their_coupling(coupling) -> None:
    first, second = samples(1), samples(2)
    pairs = couple([first, second], num_draws=7, coupling=coupling, seed=3)
    assert pairs.path == coupling
    assert torch.equal(pairs.interpolate([1.0, 0.0]), first.draws(7, seed=3))
    assert pairs.draws[1].shape == (7, LENGTH)


def test_no_more_draws_are_coupled_than_the_smaller_holds() -> None:
    pairs = couple([samples(1, 2, 6), samples(2, 1, 5)], num_draws=50)
    assert [len(own) for own in pairs.draws] == [5, 5]


def test_the_moment_map_ends_at_the_moments_of_the_second() -> None:
    first, second = samples(1), samples(2)
    pairs = couple([first, second], num_draws=12)  # all that there are, so that moments are exact
    end, middle = pairs.interpolate([0.0, 1.0]), pairs.interpolate([0.5, 0.5])
    torch.testing.assert_close(end.mean(0), second.mean())
    torch.testing.assert_close(end.std(0), second.standard_deviation())
    torch.testing.assert_close(middle.mean(0), (first.mean() + second.mean()) / 2)
    torch.testing.assert_close(
        middle.std(0), (first.standard_deviation() + second.standard_deviation()) / 2
    )
    # The shape stays the first's: its draws, shifted and scaled.
    assert torch.equal(end.argsort(0), pairs.draws[0].argsort(0))


def test_the_moment_map_between_a_normal_and_draws() -> None:
    first, second = gaussian(1), samples(2)
    pairs = couple([first, second], num_draws=12, seed=5)
    assert pairs.path == "moment"
    noise = (first.draws(12, seed=5) - first.loc) / first.scale
    torch.testing.assert_close(pairs.draws[1], second.mean() + second.standard_deviation() * noise)


def test_the_moment_map_of_a_constant_coordinate_is_a_shift() -> None:
    values = normal(1, 6, LENGTH)
    values[..., 0] = 2.0
    first = SamplePosterior.from_draws(MODEL, values)
    second = samples(3)
    end = couple([first, second], num_draws=6).draws[1]
    assert bool(torch.isfinite(end).all())
    torch.testing.assert_close(end[:, 0], second.mean()[0].expand(6))


@pytest.mark.parametrize("seed", range(5))
def test_assigned_draws_are_the_same_draws_and_never_cost_more(seed) -> None:
    first, second = samples(seed), samples(seed + 10)
    free, assigned = (
        couple([first, second], num_draws=8, coupling=coupling, seed=seed)
        for coupling in ("independent", "assignment")
    )
    assert torch.equal(assigned.draws[0], free.draws[0])
    assert sorted(map(tuple, assigned.draws[1].tolist())) == sorted(
        map(tuple, free.draws[1].tolist())
    )
    assert cost(*assigned.draws) < cost(*free.draws)  # by chance never equal


def test_assignment_of_shuffled_draws_finds_them() -> None:
    values = normal(1, 8, LENGTH)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    first, second = (SamplePosterior.from_draws(MODEL, v) for v in (values, values[:, order]))
    pairs = couple([first, second], num_draws=8, coupling="assignment")
    assert torch.equal(*pairs.draws)


def test_other_parameters_are_refused() -> None:
    net = build_network(MLPConfig(widths=(4,)), input_shape=(2,), num_outputs=3).double()
    other = gaussian(1, BayesianModel(net, Prior(), MODEL.likelihood))
    with pytest.raises(IncompatiblePosteriors, match="different parameters"):
        couple([gaussian(1), other], num_draws=2)


# -- losses


@pytest.mark.parametrize(
    "name", ["categorical", "bernoulli", "gaussian-fixed", "gaussian-learned", "poisson"]
)
def test_losses_of_a_posteriors_own_draws_are_its_scores(name) -> None:
    case = CASES[name]
    model = case.model()
    scaled = name.startswith("gaussian")
    scaling = (
        Scaling(x_mean=np.zeros(2), x_scale=np.ones(2), y_mean=3.0, y_scale=2.0)
        if scaled
        else NO_SCALING
    )
    draws = 0.3 * normal(1, 6, model.num_parameters)
    posterior = SamplePosterior.from_draws(model, draws, scaling)
    part = Split(x=normal(20, 2), y=case.targets(20))
    found, expected = losses(posterior, draws[0], part), score(posterior, part)
    assert expected is not None
    assert found.log_likelihood.shape == (6, 20)
    assert found.marginal_nll == pytest.approx(expected["nll"], rel=1e-12)
    assert found.expected_nll == pytest.approx(expected["expected_nll"], rel=1e-12)
    assert found.marginal_nll < found.expected_nll
    if "accuracy" in expected:
        assert found.error == pytest.approx(1 - expected["accuracy"], abs=1e-12)
        assert found.ece == pytest.approx(expected["ece"], abs=1e-6)
    else:
        assert found.error == pytest.approx(expected["rmse"], rel=1e-12)
        assert found.ece is None


def test_losses_do_not_depend_on_how_points_are_cut(monkeypatch) -> None:
    from bnn_symm.posteriors import posterior as module

    part = Split(x=normal(20, 2), y=CASES["categorical"].targets(20))
    draws = normal(4, LENGTH)
    whole = losses(gaussian(1), draws, part)
    monkeypatch.setattr(module, "_OUTPUTS_PER_PREDICTIVE", 4 * 3 * 7)
    parts = losses(gaussian(1), draws, part)
    torch.testing.assert_close(parts.log_likelihood, whole.log_likelihood)
    assert (parts.error, parts.ece) == pytest.approx((whole.error, whole.ece))
