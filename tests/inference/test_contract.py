"""What every method promises, whatever it computes: one battery for all."""

import dataclasses
from typing import get_args

import numpy as np
import pytest
import torch

from bnn_symm.architectures import (
    CNNConfig,
    MLPConfig,
    SymmetryConfig,
    asymmetrize,
    build_network,
    drop_inputs,
    fingerprint,
)
from bnn_symm.data import load_dataset
from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference import (
    HMC,
    MAP,
    NUTS,
    SGHMC,
    SGLD,
    SWAG,
    AnyMethod,
    Callback,
    ChEESHMC,
    CyclicalSGHMC,
    DeepEnsemble,
    FitState,
    LaplaceApproximation,
    LowRankVI,
    MCDropout,
    MeanFieldVI,
    RMSprop,
    SymmetrizedVI,
)
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import DrawChunk, Posterior

CHAINS = {"num_chains": 2, "num_warmup": 20, "num_draws": 25}
SEQUENTIAL = {"num_chains": 2, "chain_method": "sequential", "learning_rate": 0.01, "log_every": 7}
MINIBATCHES = {"num_warmup": 20, "num_draws": 10, "thinning": 2, **SEQUENTIAL}
PYRO = {**CHAINS, "engine": "pyro", "chain_method": "sequential"}
METHODS = [
    MeanFieldVI(num_steps=60, log_every=7, num_draws=5),
    MeanFieldVI(num_steps=60, log_every=7, num_draws=5, estimator="weight", num_samples=3),
    MeanFieldVI(num_steps=60, log_every=7, num_draws=5, estimator="flipout", num_samples=3),
    LowRankVI(num_steps=60, log_every=7, num_draws=5),
    LowRankVI(
        num_steps=60,
        log_every=7,
        num_draws=5,
        estimator="flipout",
        num_samples=3,
        learn_diagonal=False,
    ),
    SymmetrizedVI(num_steps=60, log_every=7, num_draws=5, exact_up_to=3, num_information_samples=2),
    MAP(num_steps=60, log_every=7),
    DeepEnsemble(num_steps=60, log_every=7, num_members=2, chain_method="sequential"),
    LaplaceApproximation(num_steps=60, log_every=7, num_draws=5),
    LaplaceApproximation(num_steps=60, log_every=7, num_draws=5, structure="last_layer"),
    SWAG(num_steps=60, log_every=7, num_draws=5, rank=3),
    MCDropout(num_steps=60, log_every=7, num_draws=5),
    HMC(max_num_steps=10, **CHAINS),
    NUTS(max_tree_depth=3, **CHAINS),
    NUTS(max_tree_depth=3, adaptation="per_chain", mass_matrix="dense", **CHAINS),
    ChEESHMC(num_chains=4, num_warmup=20, num_draws=25, max_num_steps=10),
    SGLD(preconditioner=RMSprop(), schedule="polynomial", **MINIBATCHES),
    SGHMC(batch_size=32, **MINIBATCHES),
    CyclicalSGHMC(num_cycles=2, cycle_steps=20, exploration=0.5, draws_per_cycle=3, **SEQUENTIAL),
    HMC(max_num_steps=10, **PYRO),
    NUTS(max_tree_depth=3, **PYRO),
]


def name_of(method) -> str:
    parts = [
        method.name,
        *(getattr(method, name, "") for name in ("estimator", "structure", "adaptation", "engine")),
    ]
    return "-".join(part for part in parts if part)


every_method = pytest.mark.parametrize("method", METHODS, ids=name_of)


@pytest.fixture(scope="module")
def problem():
    data = load_dataset("iris")
    net = build_network(
        MLPConfig(widths=(4,), norm="layer", dropout=0.2),
        input_shape=data.input_shape,
        num_outputs=3,
    )
    return BayesianModel(net, Prior(), Categorical()), data


def all_draws(posterior: Posterior) -> torch.Tensor:
    return torch.cat(list(posterior.iter_draws()))


class Recorder(Callback):
    """Records the reports of a fit, and stops it after some calls of `should_stop`."""

    def __init__(self, stop_after: int | None = None):
        self.rows, self.chunks, self.states = [], [], {}
        self.left = stop_after

    def on_history(self, row):
        self.rows.append(dict(row))

    def on_draws(self, chunk):
        self.chunks.append(chunk)

    def on_state(self, chain, state, *, essential=False):
        self.states[chain] = state()

    def should_stop(self):
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0

    def fit_state(self) -> FitState:
        draws = {}
        for chain in {chunk.chain for chunk in self.chunks}:
            own = [chunk for chunk in self.chunks if chunk.chain == chain]
            stats = {
                name: np.concatenate([chunk.stats[name] for chunk in own]) for name in own[0].stats
            }
            draws[chain] = DrawChunk(
                chain, 0, np.concatenate([chunk.positions for chunk in own]), stats
            )
        return FitState(dict(self.states), draws, list(self.rows))


def without_times(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def test_every_method_is_in_this_battery():
    assert {type(method) for method in METHODS} == set(get_args(get_args(AnyMethod)[0]))


@every_method
def test_result_describes_itself(problem, method):
    model, data = problem
    posterior = method.fit(model, data, seed=0)
    assert posterior.info["method"] == method.name
    assert posterior.info["status"] == "complete"
    assert posterior.info["gradient_evaluations"] > 0
    assert posterior.info["seconds"] > 0
    assert posterior.shape[2] == model.num_parameters
    assert torch.isfinite(all_draws(posterior)).all()
    assert {"chain", "step", "seconds", "gradient_evaluations", "objective"} <= set(
        posterior.history[-1]
    )
    assert posterior.predict(data.test.x).outputs.shape == (*posterior.shape[:2], len(data.test), 3)


@every_method
def test_same_seed_same_bits_and_another_seed_others(problem, method):
    model, data = problem
    torch.manual_seed(1)
    first = method.fit(model, data, seed=3)
    torch.manual_seed(2)
    again = method.fit(model, data, seed=3)
    assert torch.equal(all_draws(first), all_draws(again))
    assert without_times(first.history) == without_times(again.history)
    if (
        method.name != "map"
    ):  # full batch from the network's own initial values: nothing in it is random
        assert not torch.equal(all_draws(first), all_draws(method.fit(model, data, seed=4)))


@every_method
def test_global_generators_and_the_network_are_unchanged(problem, method):
    model, data = problem
    before = [value.clone() for value in model.net.parameters()]
    torch.manual_seed(5)
    wanted = torch.rand(3), np.random.get_state()[1].tolist()  # noqa: NPY002
    torch.manual_seed(5)
    method.fit(model, data, seed=0)
    assert torch.equal(torch.rand(3), wanted[0])
    assert np.random.get_state()[1].tolist() == wanted[1]  # noqa: NPY002
    assert all(torch.equal(a, b) for a, b in zip(before, model.net.parameters(), strict=True))


@every_method
@pytest.mark.parametrize("stop_after", [3, 33, 62])
def test_a_stopped_fit_returns_a_posterior_and_resumes_bitwise_identically(
    problem, method, stop_after
):
    model, data = problem
    whole = method.fit(model, data, seed=0)
    recorder = Recorder(stop_after)
    part = method.fit(model, data, seed=0, callbacks=[recorder])
    assert torch.isfinite(all_draws(part)).all()
    if part.info["status"] == "complete":
        pytest.skip("the fit has fewer steps")
    assert part.info["status"] == "interrupted"
    rest = method.fit(
        model, data, seed=0, fit_state=method.truncate_to_checkpoint(recorder.fit_state())
    )
    assert rest.info["status"] == "complete"
    assert torch.equal(all_draws(rest), all_draws(whole))
    assert without_times(rest.history) == without_times(whole.history)
    for name, stat in getattr(whole, "sample_stats", {}).items():
        assert np.array_equal(rest.sample_stats[name], stat)
    assert rest.info["gradient_evaluations"] == whole.info["gradient_evaluations"]


@every_method
def test_float64_and_initial_posterior(problem, method):
    _, data = problem
    net = build_network(
        MLPConfig(widths=(3,), dropout=0.2), input_shape=data.input_shape, num_outputs=3
    ).double()
    model = BayesianModel(net, Prior(), Categorical())
    start = MAP(num_steps=300, learning_rate=0.05).fit(model, data, seed=0)
    posterior = dataclasses.replace(method).fit(model, data, seed=0, initial=start)
    assert all_draws(posterior).dtype == torch.float64
    # From the mode, the very first logged objective is near its best; from random values it is far
    # above it.
    cold = method.fit(model, data, seed=0)
    if method.name not in ("hmc", "nuts"):
        assert posterior.history[0]["objective"] < cold.history[0]["objective"]


@every_method
def test_convolutions_and_learned_noise_are_no_special_case(method):
    digits = load_dataset("digits", limit=60)
    net = build_network(
        CNNConfig(widths=(2,), norm="frn", dropout=0.2),
        input_shape=digits.input_shape,
        num_outputs=10,
    )
    assert (
        method.fit(BayesianModel(net, Prior(scale="fan_in"), Categorical()), digits, seed=0).shape[
            2
        ]
        > 10
    )
    gap = load_dataset("gap")
    net = build_network(
        MLPConfig(widths=(3,), dropout=0.2), input_shape=gap.input_shape, num_outputs=1
    )
    posterior = method.fit(BayesianModel(net, Prior(), Gaussian()), gap, seed=0)
    assert posterior.predict(gap.test.x).latents["log_noise"].shape == posterior.shape[:2]


@every_method
@pytest.mark.parametrize("kind", ["weight_asymmetric", "sigma_asymmetric"])
def test_asymmetric_networks_are_no_special_case(method, kind):
    """What is fixed stays so, is no coordinate, and the posterior predicts with it, whatever made
    it."""
    data = load_dataset("digits", limit=60)
    symmetry = SymmetryConfig(kind=kind)
    common = {"dropout": 0.2, "symmetry": symmetry}
    for config in (MLPConfig(widths=(8,), **common), CNNConfig(widths=(2, 3), **common)):
        net = build_network(config, input_shape=data.input_shape, num_outputs=10)
        before = fingerprint(net)
        model = BayesianModel(net, Prior(scale="fan_in"), Categorical())
        posterior = method.fit(model, data, seed=0)
        assert posterior.shape[2] == sum(value.numel() for value in net.parameters())
        assert fingerprint(net) == before
        flat = next(posterior.iter_draws())[0]
        whole = model.layer_values(model.unflatten(flat))
        wanted = torch.func.functional_call(net, whole, (data.test.x[:3],))
        torch.testing.assert_close(
            posterior.predict(data.test.x[:3]).outputs[0, 0], wanted.detach()
        )


@every_method
def test_a_residual_network_with_fixed_entries_too(method):
    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv, self.head = (
                torch.nn.Conv2d(1, 4, 3),
                torch.nn.Conv2d(4, 4, 1),
                torch.nn.Linear(4, 10),
            )

        def forward(self, x):
            hidden = self.stem(x).relu()
            return self.head((hidden + self.conv(hidden)).mean(dim=(2, 3)))

    data = load_dataset("digits", limit=60)
    net = asymmetrize(Residual(), fixed_per_row=(2, 1, 0))
    drop_inputs(net.conv, 0.2)
    posterior = method.fit(BayesianModel(net, Prior(), Categorical()), data, seed=0)
    assert posterior.shape[2] == 4 * (9 - 2 + 1) + 4 * (4 - 1 + 1) + 10 * (4 + 1)


@every_method
def test_likelihood_of_another_task_is_refused(problem, method):
    model, data = problem
    wrong = BayesianModel(model.net, Prior(), Gaussian())
    with pytest.raises(ConfigError, match="for regression, but the data are classification"):
        method.fit(wrong, data, seed=0)


@pytest.mark.parametrize(
    "method", [m for m in METHODS if hasattr(m, "learning_rate")], ids=lambda m: m.name
)
def test_a_diverging_fit_keeps_its_last_good_state(problem, method):
    model, data = problem
    constant = {"schedule": "constant"} if hasattr(method, "schedule") else {}
    wild = dataclasses.replace(method, learning_rate=1e30, **constant)
    with pytest.raises(
        FitDiverged, match=r"at step \d+; the state at step \d+ was kept; try a lower"
    ) as caught:
        wild.fit(model, data, seed=0)
    assert caught.value.posterior.info["status"] == "failed"
    assert torch.isfinite(caught.value.posterior.mean()).all()


@pytest.mark.parametrize("method", METHODS[-2:], ids=lambda m: m.name)
def test_a_start_of_density_zero_is_an_error(problem, method):
    model, _ = problem
    broken = load_dataset("iris")
    broken.train.x[0] = 1e38  # finite, but no output of the network is
    with pytest.raises(FitDiverged, match="log density is not finite where chain 0 starts"):
        method.fit(model, broken, seed=0)
