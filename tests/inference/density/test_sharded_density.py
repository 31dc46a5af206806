"""Several processes that share the data compute what one computes, to rounding, and the same bits
in each of them."""

import typing
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bnn_symm.architectures import MLPConfig, asymmetrize, build_network
from bnn_symm.data import Split, load_dataset
from bnn_symm.errors import ConfigError, ProcessLost
from bnn_symm.inference import HMC, NUTS, AnyMethod, Callback, ChEESHMC
from bnn_symm.inference.density import density
from bnn_symm.inference.density.compiled import CompilerWarning, has_compiler
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.density.sharded import ShardedDensity
from bnn_symm.inference.mcmc import batched_chains
from bnn_symm.inference.parallel.process_group import ProcessGroup, join_process_group
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.testing import exact_posterior, linear_regression
from tests.ranks import run_ranks

pytestmark = pytest.mark.thorough

METHODS = {
    "hmc": HMC(num_warmup=5, num_draws=5, max_num_steps=10),
    "nuts": NUTS(num_warmup=5, num_draws=5, max_tree_depth=4, target_accept_prob=0.6),
    "chees": ChEESHMC(num_chains=4, num_warmup=5, num_draws=5, max_num_steps=10),
}
# Beside five of warm-up and five draws, ten from the start with step sizes that stay; ChEES wants a
# warm-up.
STEADY: dict[str, Any] = {
    "num_warmup": 0,
    "num_draws": 10,
    "adapt_step_size": False,
    "initial_step_size": 0.03,
}
TEN_TRANSITIONS = METHODS | {
    f"{name}-steady": replace(METHODS[name], **STEADY) for name in ("hmc", "nuts")
}


def problem(kind: str = "iris", dtype: torch.dtype = torch.float64):
    """Return a classification or regression problem, with fixed entries for some kinds."""
    data = load_dataset("gap" if kind == "gap" else "iris", dtype=dtype)
    net = build_network(
        MLPConfig(widths=(5, 4), activation="tanh"),
        input_shape=data.input_shape,
        num_outputs=data.num_outputs,
    )
    if kind == "asymmetric":
        net = asymmetrize(net, kind="weight_asymmetric")
    likelihood = Gaussian(noise="learned") if kind == "gap" else Categorical()
    return BayesianModel(net.to(dtype), Prior(name="laplace"), likelihood), data


def starts(model: BayesianModel, number: int = 3) -> torch.Tensor:
    return torch.stack([model.initial(seed) for seed in range(number)])


KEYWORDS: dict[str, Any] = {"temperature": 0.3, "prior_weight": 1 / 0.3, "compile": False}


def in_one(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    model, data = problem(kind, dtype)
    return TemperedDensity(model, data.train, like=starts(model), **KEYWORDS)(starts(model))


def sharded(
    group: ProcessGroup, kind: str, dtype: torch.dtype, should_stop: Any = lambda: False
) -> ShardedDensity:
    model, data = problem(kind, dtype)
    part = group.share(data.train)
    return ShardedDensity(
        model, part, group=group, should_stop=should_stop, like=starts(model), **KEYWORDS
    )


# kind, dtype, what a pass may keep
CASES = [
    ("iris", torch.float64, 500_000_000),
    ("gap", torch.float64, 500_000_000),
    ("asymmetric", torch.float64, 10_000),
    ("iris", torch.float32, 500_000_000),
]


def keep_densities(folder: Path) -> None:
    with join_process_group() as group:
        for number, (kind, dtype, pass_bytes) in enumerate(CASES):
            density._PASS_BYTES = pass_bytes
            found = sharded(group, kind, dtype)
            assert found.passes == 1 if pass_bytes > 1_000_000 else found.passes > 2
            assert not found.can_be_inlined
            energies, gradients = found(starts(problem(kind, dtype)[0]))
            name = f"{number}-{group.size}-{group.rank}.npz"
            np.savez(folder / name, energies=energies.numpy(), gradients=gradients.numpy())


@pytest.fixture(scope="module")
def densities(tmp_path_factory):
    folder = tmp_path_factory.mktemp("densities")
    for size in (2, 3):
        run_ranks(keep_densities, folder, size=size)
    return folder


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("number", range(3))
def test_value_and_gradient_are_those_of_one_process(densities, number, size):
    energies, gradients = in_one(CASES[number][0], torch.float64)
    found = [np.load(densities / f"{number}-{size}-{rank}.npz") for rank in range(size)]
    np.testing.assert_allclose(found[0]["energies"], energies.numpy(), rtol=1e-12)
    scale = gradients.abs().max().item()
    np.testing.assert_allclose(
        found[0]["gradients"], gradients.numpy(), rtol=1e-12, atol=1e-12 * scale
    )
    for other in found[1:]:
        np.testing.assert_array_equal(other["energies"], found[0]["energies"])
        np.testing.assert_array_equal(other["gradients"], found[0]["gradients"])


def test_in_single_precision_sums_run_in_double(densities):
    """A share's gradient has the rounding of float32, 1e-7 times some dozens of points; its value
    has that too."""
    energies, gradients = in_one("iris", torch.float64)
    found = np.load(densities / "3-2-0.npz")
    assert (found["energies"].dtype, found["gradients"].dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(found["energies"], energies.numpy(), rtol=1e-5)
    np.testing.assert_allclose(
        found["gradients"], gradients.numpy(), rtol=1e-4, atol=1e-5 * gradients.abs().max()
    )


def keep_compiled_fit(folder: Path) -> None:
    model, data = problem()
    with join_process_group() as group, warnings.catch_warnings():
        warnings.simplefilter("error", CompilerWarning)
        posterior = replace(METHODS["nuts"], compile=True).fit(model, data, seed=3, group=group)
        np.save(folder / f"{group.rank}.npy", posterior.draws().numpy())


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_compiled_it_is_the_same(tmp_path):
    """What a process has of the density is compiled, the sum over processes is not."""
    run_ranks(keep_compiled_fit, tmp_path)
    model, data = problem()
    alone = METHODS["nuts"].fit(model, data, seed=3).draws().numpy()
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), alone, rtol=1e-9, atol=1e-9)


def test_one_process_has_the_whole_density():
    found = sharded(ProcessGroup(), "iris", torch.float64)(starts(problem()[0]))
    for one, other in zip(found, in_one("iris", torch.float64), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_the_data_in_parts_of_nearly_one_length(size):
    part = load_dataset("iris").train
    shares = [ProcessGroup(rank, size).share(part) for rank in range(size)]
    assert torch.equal(torch.cat([share.x for share in shares]), part.x)
    assert torch.equal(torch.cat([share.y for share in shares]), part.y)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_processes_than_points_are_refused():
    part = load_dataset("iris").train.take(slice(0, 3))
    with pytest.raises(
        ConfigError, match="4 processes cannot share 3 training points; start fewer"
    ):
        ProcessGroup(0, 4).share(part)


def keep_fits(folder: Path) -> None:
    model, data = problem()
    with join_process_group() as group:
        for name, method in TEN_TRANSITIONS.items():
            posterior = method.fit(model, data, seed=3, group=group)
            np.savez(
                folder / f"{name}-{group.rank}.npz",
                draws=posterior.draws().numpy(),
                **posterior.sample_stats,
            )


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits")
    run_ranks(keep_fits, folder)
    return folder


@pytest.mark.parametrize("name", TEN_TRANSITIONS)
def test_the_first_ten_transitions_are_those_of_one_process(fits, name):
    """To 1e-12 of the largest weight.

    Measured: with step sizes that stay, HMC goes from 3e-16 at the first to 8e-14 at the tenth, as
        its trajectories
    diverge, NUTS to 2e-15. A warm-up of five makes of rounding of U, 6e-14 where U is 300, by dual
    averaging one of the step size of 2e-13: HMC ends at 3e-13, NUTS, whose steps stay more stable,
    at 1e-14, ChEES at 1e-15.
    """
    model, data = problem()
    alone = TEN_TRANSITIONS[name].fit(model, data, seed=3)
    first, other = (np.load(fits / f"{name}-{rank}.npz") for rank in range(2))
    wanted = alone.draws().numpy()
    np.testing.assert_allclose(first["draws"], wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    np.testing.assert_allclose(first["step_size"], alone.sample_stats["step_size"], rtol=1e-12)
    np.testing.assert_array_equal(first["n_steps"], alone.sample_stats["n_steps"])
    np.testing.assert_array_equal(first["diverging"], alone.sample_stats["diverging"])
    assert (
        len(np.unique(first["draws"], axis=0)) > len(first["draws"]) / 4
    )  # most transitions were accepted
    for key in first.files:
        np.testing.assert_array_equal(first[key], other[key])


class SumOfShares(TemperedDensity):
    """The density in one process, as the sum over the shares of two."""

    can_be_inlined = False

    def __init__(self, model: BayesianModel, part: Split, *, prior_weight: float, **keywords: Any):
        super().__init__(model, part, prior_weight=prior_weight, **keywords)
        shares = [ProcessGroup(rank, 2).share(part) for rank in range(2)]
        self._shares = [
            TemperedDensity(model, share, prior_weight=prior_weight / 2, **keywords)
            for share in shares
        ]

    def __call__(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (one, slope), (other, its_slope) = (share(positions) for share in self._shares)
        return one + other, slope + its_slope


@pytest.mark.parametrize("name", TEN_TRANSITIONS)
def test_what_differs_is_the_order_of_one_sum(fits, monkeypatch, name):
    """A process that adds the same two numbers has the same bits in all transitions: nothing else
    comes in between."""
    monkeypatch.setattr(batched_chains, "TemperedDensity", SumOfShares)
    model, data = problem()
    alone = TEN_TRANSITIONS[name].fit(model, data, seed=3)
    first = np.load(fits / f"{name}-0.npz")
    np.testing.assert_array_equal(first["draws"], alone.draws().numpy())
    for key, values in alone.sample_stats.items():
        np.testing.assert_array_equal(first[key], values)


def keep_moments(folder: Path) -> None:
    model, data = linear_regression()
    with join_process_group() as group:
        method = HMC(num_chains=16, num_warmup=100, num_draws=100, max_num_steps=30, compile=False)
        posterior = method.fit(model, data, seed=0, group=group)
        np.save(folder / f"{group.rank}.npy", posterior.draws().numpy())


def test_moments_are_the_exact_ones(tmp_path):
    """1,600 draws of trajectories of a quarter period are close to independent; with half of them
    effective a mean is known to sd / sqrt(800), which times 4 is the bound, and a standard
    deviation to 1 / sqrt(1600) = 2.5 %, times 4."""
    run_ranks(keep_moments, tmp_path)
    draws = np.load(tmp_path / "0.npy")
    exact = exact_posterior(linear_regression()[1])
    error = np.abs(draws.mean(0) - exact.mean.numpy()) / exact.sd.numpy()
    assert len(draws) == 1600
    assert error.max() < 4 / np.sqrt(800)
    assert np.abs(draws.std(0) / exact.sd.numpy() - 1).max() < 0.10


class _StopAfter(Callback):
    """Stops a fit after some rows of its history."""

    def __init__(self, rows: int):
        self._left = rows

    def on_history(self, row):
        self._left -= 1

    def should_stop(self):
        return self._left <= 0


def stop_then_go_apart(folder: Path) -> None:
    model, data = problem()
    at = starts(model)
    calls = 0
    with join_process_group() as group:
        found = sharded(group, "iris", torch.float64, lambda: group.rank == 1 and calls == 3)
        while not found.should_stop():
            calls += 1
            found(at)
        assert calls == 3

        callbacks = [_StopAfter(6)] if group.rank == 1 else []
        method = replace(METHODS["nuts"], num_draws=100)
        posterior = method.fit(model, data, seed=3, group=group, callbacks=callbacks)
        assert posterior.info["status"] == "interrupted"
        np.save(folder / f"{group.rank}.npy", posterior.draws().numpy())

        if group.rank == 1:  # by the last bit of one number
            at[0, 0] = torch.nextafter(at[0, 0], torch.tensor(torch.inf).double())
        with pytest.raises(ProcessLost, match="2 processes have different positions"):
            found(at)
        assert group.is_broken
        (folder / f"apart-{group.rank}").touch()


def test_they_stop_at_one_gradient_and_detect_different_positions(tmp_path):
    run_ranks(stop_then_go_apart, tmp_path)
    first, other = (np.load(tmp_path / f"{rank}.npy") for rank in range(2))
    assert 0 < len(first) < 4 * 100
    np.testing.assert_array_equal(first, other)
    assert len(list(tmp_path.glob("apart-*"))) == 2


def test_methods_that_need_one_process_are_refused():
    model, data = problem()
    group = ProcessGroup(0, 2)
    methods = [kind() for kind in typing.get_args(typing.get_args(AnyMethod)[0])]
    able = [method.name for method in methods if method.shares_data()]
    assert able == ["hmc", "nuts", "chees_hmc", "mclmc"]
    for method in [*methods, HMC(engine="pyro"), NUTS(engine="pyro")]:
        if method.shares_data():
            method.check_group(group)
            continue
        with pytest.raises(
            ConfigError, match="start it without torchrun, or use hmc, nuts, chees_hmc or mclmc"
        ) as error:
            method.fit(model, data, seed=0, group=group)
        assert (
            f"inference.name={method.name} (engine {method.engine}) runs in one process, got 2"
            in str(error.value)
        )
