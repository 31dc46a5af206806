"""What the batched engine is made of: the integrator, trees, adaptation; and that chains are
independent."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from bnn_symm.errors import ConfigError, FitDiverged, IncompatiblePosteriors
from bnn_symm.inference import HMC, NUTS, ChEESHMC
from bnn_symm.inference.mcmc.adaptation import (
    Adapter,
    initial_adaptation,
    restore_arrays,
    to_arrays,
    windows,
)
from bnn_symm.inference.mcmc.chees_hmc import chees_gradient, halton
from bnn_symm.inference.mcmc.hmc_kernel import Trajectory
from bnn_symm.inference.mcmc.integrator import kinetic_energy, leapfrog, momentum_from_noise
from bnn_symm.models import BayesianModel, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.posteriors.lazy_draws import LazyDraws
from bnn_symm.testing import linear_regression


def gaussian(positions):
    """U of a standard normal, and its gradient."""
    return 0.5 * positions.square().sum(-1), positions


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    position = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    momentum = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    factor = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    dense = factor @ factor.mT + torch.eye(5, dtype=torch.float64)
    return (
        position,
        momentum,
        {"diagonal": dense.diagonal(dim1=-2, dim2=-1).clone(), "dense": dense},
    )


@pytest.mark.parametrize("shape", ["diagonal", "dense"])
def test_leapfrog_is_reversible_and_of_second_order(batch, shape):
    position, momentum, masses = batch
    mass = masses[shape]
    before = gaussian(position)[0] + kinetic_energy(momentum, mass)

    def go(step, number):
        q, r, g = position, momentum, position
        sizes = torch.full((3,), step, dtype=torch.float64)
        for _ in range(number):
            q, r, g, _ = leapfrog(gaussian, q, r, g, sizes, mass)
        return q, r, g, sizes

    errors = []
    for step, number in ((0.02, 10), (0.01, 20)):
        q, r, g, sizes = go(step, number)
        errors.append((gaussian(q)[0] + kinetic_energy(r, mass) - before).abs().max())
        for _ in range(number):
            q, r, g, _ = leapfrog(gaussian, q, r, g, -sizes, mass)
        assert torch.allclose(q, position, atol=1e-12)
        assert torch.allclose(r, momentum, atol=1e-12)
    # Half the step, a quarter of the error, up to terms of the next order.
    assert 3.5 < errors[0] / errors[1] < 4.5


@pytest.mark.parametrize("shape", ["diagonal", "dense"])
def test_momenta_have_the_covariance_of_the_mass_matrix(batch, shape):
    mass = batch[2][shape][:1]
    noise = torch.randn(40_000, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    momentum = momentum_from_noise(noise, mass.expand(40_000, *mass.shape[1:]))
    wanted = torch.linalg.inv(mass[0] if shape == "dense" else torch.diag(mass[0]))
    scale = wanted.diag().sqrt()
    # Standard error of a correlation of 40,000 pairs: 0.005 at most 0.0071 for a variance; 4.5 of
    # them.
    assert ((torch.cov(momentum.T) - wanted) / (scale[:, None] * scale)).abs().max() < 0.032


@pytest.mark.parametrize("num_warmup", [20, 60, 149, 150, 200, 500, 1000])
def test_windows_double_and_leave_a_beginning_and_an_end(num_warmup):
    found = windows(num_warmup)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))
    lengths = [stop - start for start, stop in found]
    assert all(2 * a <= b for a, b in itertools.pairwise(lengths))
    assert found[0][0] > 0
    # Enough iterations after the last to find a step size again.
    assert num_warmup - found[-1][1] >= min(25, num_warmup // 3)


def test_a_short_warm_up_has_no_window():
    assert windows(19) == []


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_variances_are_learned_within_chains_or_across_them(across, dense):
    generator = torch.Generator().manual_seed(2)
    chains, warmup = 4, 400
    offsets = (
        10.0 * torch.arange(chains, dtype=torch.float64)[:, None]
    )  # each chain in a mode of its own
    positions = torch.zeros(chains, 2, dtype=torch.float64)
    adapter = Adapter(
        num_warmup=warmup,
        target=0.8,
        adapt_step_size=False,
        adapt_mass_matrix=True,
        groups=np.zeros(chains, dtype=np.int64),
        across=across,
        state=initial_adaptation(positions, 1, 0.1, torch.ones(2).double(), dense=dense),
    )
    for _ in range(warmup):
        noise = (
            torch.randn(chains, 2, generator=generator, dtype=torch.float64)
            * torch.tensor([1.0, 3.0]).double()
        )
        adapter.learn(np.arange(chains), offsets + noise, np.full(chains, 0.8))
    start, stop = windows(warmup)[-1]
    number = chains * (stop - start)
    wanted = torch.tensor([1.0, 9.0]).double() + (
        float(offsets.var(correction=0)) if across else 0.0
    )
    found = adapter.state.inverse_mass[0]
    # Relative standard error of a variance of n numbers: sqrt(2 / n); four of them, and the
    # shrinkage by 5 / n.
    tolerance = 4 * (2 / number) ** 0.5 + 5 / number
    assert ((found.diag() if dense else found) / wanted - 1).abs().max() < tolerance


@pytest.mark.thorough
@pytest.mark.parametrize("mass_matrix", ["diagonal", "dense"])
@pytest.mark.parametrize(("scale", "temperature"), [(1e-3, 1.0), (1e-2, 0.01)])
def test_mass_matrices_begin_with_the_variances_of_the_prior(mass_matrix, scale, temperature):
    """On a posterior that is nearly its tempered prior, of scale 1e-3: half of that is a good step,
    0.5 a bad one."""
    model, data = linear_regression()
    model = BayesianModel(model.net, Prior(scale=scale), model.likelihood)
    mode = torch.zeros(1, 1, model.num_parameters, dtype=torch.float64)
    start = SamplePosterior(model, data.scaling, positions=LazyDraws.from_tensor(mode))
    fixed = {"adapt_step_size": False, "initial_step_size": 0.5, "mass_matrix": mass_matrix}
    fixed |= {
        "num_warmup": 1,
        "num_draws": 20,
        "temperature": temperature,
        "tempering": "posterior",
    }
    posterior = NUTS(**fixed).fit(model, data, seed=0, initial=start)
    assert posterior.sample_stats["acceptance_rate"].mean() > 0.8
    identity = NUTS(adapt_mass_matrix=False, **fixed).fit(model, data, seed=0, initial=start)
    assert identity.sample_stats["diverging"].all()


def test_state_goes_to_arrays_and_back():
    state = initial_adaptation(torch.randn(3, 4), 3, 0.1, torch.ones(4), dense=False)
    state.inverse_mass.mul_(2.5)
    state.seen[1] = 7
    fresh = initial_adaptation(torch.zeros(3, 4), 3, 0.3, torch.ones(4), dense=False)
    restore_arrays(fresh, "a", to_arrays(state, "a"))
    for name, value in vars(state).items():
        assert np.array_equal(np.asarray(value), np.asarray(getattr(fresh, name))), name
    with pytest.raises(IncompatiblePosteriors, match=r"has no a\.\w+: another version"):
        restore_arrays(fresh, "a", {})


@pytest.mark.thorough
@pytest.mark.parametrize(
    "method",
    [
        NUTS(num_warmup=30, num_draws=20, max_tree_depth=2, adaptation="per_chain"),
        HMC(num_warmup=30, num_draws=20, max_num_steps=8, adaptation="per_chain"),
    ],
    ids=lambda method: method.name,
)
def test_chains_that_adapt_apart_do_not_depend_on_each_other(method):
    model, data = linear_regression()
    few = dataclasses.replace(method, num_chains=2).fit(model, data, seed=0)
    many = dataclasses.replace(method, num_chains=5).fit(model, data, seed=0)
    two = few.draws().unflatten(0, (2, 20))
    # Products of a batch of another size may round otherwise, and trajectories amplify it.
    assert torch.allclose(two, many.draws().unflatten(0, (5, 20))[:2], rtol=1e-6, atol=1e-8)
    assert not torch.allclose(two[0], two[1])


def test_trees_reach_their_maximum_depth_but_do_not_exceed_it():
    model, data = linear_regression()
    tiny = {"adapt_step_size": False, "adapt_mass_matrix": False, "initial_step_size": 1e-4}
    posterior = NUTS(num_warmup=0, num_draws=5, max_tree_depth=3, **tiny).fit(model, data, seed=0)
    assert (posterior.sample_stats["n_steps"] == 2**3 - 1).all()
    assert (posterior.sample_stats["acceptance_rate"] > 0.99).all()


def test_huge_steps_diverge_and_leave_the_chain_where_it_was():
    model, data = linear_regression()
    huge = {
        "adapt_step_size": False,
        "adapt_mass_matrix": False,
        "initial_step_size": 100.0,
        "num_warmup": 0,
    }
    for method in (NUTS(num_draws=5, **huge), HMC(num_draws=5, **huge)):
        posterior = method.fit(model, data, seed=0)
        assert posterior.sample_stats["diverging"].all()
        draws = posterior.draws().unflatten(0, (4, 5))
        assert torch.equal(draws, draws[:, :1].expand_as(draws))


def test_a_start_of_density_zero_is_an_error():
    model, data = linear_regression()
    far = torch.full((1, 1, model.num_parameters), 1e200, dtype=torch.float64)
    start = SamplePosterior(model, data.scaling, positions=LazyDraws.from_tensor(far))
    with pytest.raises(FitDiverged, match="the log density is not finite where chain 0 starts"):
        NUTS().fit(model, data, seed=0, initial=start)


def test_chees_needs_chains_that_learn_together():
    model, data = linear_regression()
    with pytest.raises(ConfigError, match="num_chains of chees_hmc is 3, expected at least 4"):
        ChEESHMC(num_chains=3).fit(model, data, seed=0)
    with pytest.raises(ConfigError, match="adaptation of chees_hmc must be shared"):
        ChEESHMC(adaptation="per_chain").fit(model, data, seed=0)


def test_halton_numbers_fill_the_interval():
    numbers = [halton(i) for i in range(255)]
    assert numbers[:4] == [0.5, 0.25, 0.75, 0.125]
    assert sorted(numbers) == [i / 256 for i in range(1, 256)]


@pytest.mark.parametrize("time", [0.3, 1.2, 2.0])
def test_chees_gradient_is_that_of_its_expectation(time):
    """On a standard normal z(t) = z cos t + r sin t, so ChEES = d/2 sin^2 t in d dimensions:
    gradient d/2 sin 2t."""
    generator = torch.Generator().manual_seed(3)
    chains, size = 200_000, 2
    start, momentum = (
        torch.randn(chains, size, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    cos, sin = np.cos(time), np.sin(time)
    scales = torch.tensor([2.0, 5.0], dtype=torch.float64)
    trajectory = Trajectory(
        start=start * scales,
        end=(start * cos + momentum * sin) * scales,
        momentum=(momentum * cos - start * sin) / scales,
        inverse_mass=scales.square().expand(chains, size),
        acceptance=np.ones(chains),
        iteration=0,
    )
    # The standard deviation of a term is below 8 here: a standard error of 0.018; four of them.
    assert abs(chees_gradient(trajectory) - size / 2 * np.sin(2 * time) * 2) < 0.08
