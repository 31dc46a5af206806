"""SWAG against the paper's formulas on iterates of torch's own SGD."""

import math

import numpy as np
import pytest
import torch

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference import SWAG
from bnn_symm.inference.minibatches import Minibatches
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import torch_generator
from bnn_symm.testing import Interruption, all_draws, without_times


def still(steps: int) -> dict[str, float]:
    """Return SWAG settings with a number of SGD steps, from the initial position as the mode."""
    return {"num_steps": steps + 1, "collect_fraction": steps / (steps + 1), "learning_rate": 1e-14}


@pytest.fixture(scope="module")
def problem():
    data = load_dataset("iris", dtype=torch.float64)
    net = build_network(
        MLPConfig(widths=(3,)), input_shape=data.input_shape, num_outputs=3
    ).double()
    return BayesianModel(net, Prior(), Categorical()), data


@pytest.mark.parametrize(("temperature", "clip_norm"), [(1.0, None), (0.5, 0.2)])
def test_draws_are_those_of_the_moments_of_sgd(problem, temperature, clip_norm):
    model, data = problem
    start = SamplePosterior.from_draws(model, model.initial(1)[None, None])
    method = SWAG(
        collect_every=5,
        collect_learning_rate=0.1,
        rank=4,
        batch_size=16,
        num_draws=6,
        temperature=temperature,
        clip_norm=clip_norm,
        **still(40),
    )
    posterior = method.fit(model, data, seed=3, initial=start)
    position = torch.nn.Parameter(model.initial(1))
    sgd = torch.optim.SGD([position], lr=0.1, momentum=0.9)
    size = len(data.train)
    batches = Minibatches(data.train, 16, 3)
    iterates, clipped = [], 0
    for step in range(1, 41):
        sgd.zero_grad()
        x, y = batches.take(step)
        # T U / N on a minibatch
        loss = (
            -model.log_likelihood(position, x, y).mean()
            - temperature * model.log_prior(position) / size
        )
        loss.backward()
        if clip_norm is not None:
            clipped += float(torch.nn.utils.clip_grad_norm_([position], clip_norm)) > clip_norm
        sgd.step()
        if step % 5 == 0:
            iterates.append(position.detach().numpy().copy())
    assert clip_norm is None or clipped > 5
    iterates = np.array(iterates)
    mean, variance = iterates.mean(0), (iterates**2).mean(0) - iterates.mean(0) ** 2
    # Deviations are from the mean of the iterates up to and with each, as in the paper's algorithm
    # 1.
    deviations = [iterates[i] - iterates[: i + 1].mean(0) for i in range(len(iterates))][-4:]
    assert posterior.shape == (1, 6, model.num_parameters)
    for number, draw in enumerate(all_draws(posterior)):
        noise = torch.randn(
            len(mean) + 4, generator=torch_generator(3, "draw", number), dtype=torch.float64
        ).numpy()
        own, shared = noise[: len(mean)], noise[len(mean) :]
        wanted = (
            mean
            + np.sqrt(variance / 2) * own
            + np.array(deviations).T @ shared / math.sqrt(2 * (4 - 1))
        )
        np.testing.assert_allclose(draw.numpy(), wanted, rtol=0, atol=1e-9)


def test_covariance_of_draws_is_half_of_the_sum_of_both(problem):
    """In the directions of largest variance, within five standard errors of a variance, sqrt(2 /
    n)."""
    model, data = problem
    start = SamplePosterior.from_draws(model, model.initial(1)[None, None])
    number = 3000
    settings = {
        "collect_every": 3,
        "collect_learning_rate": 0.1,
        "rank": 5,
        "num_draws": number,
        "log_every": 1,
    }
    recorder = Interruption()
    SWAG(**still(60), **settings).fit(model, data, seed=0, initial=start, callbacks=[recorder])
    state = recorder.fit_state().states[0]  # the last reported state precedes the last step
    posterior = SWAG(**still(59), **settings).fit(model, data, seed=0, initial=start)
    deviations = torch.from_numpy(state["deviations"])
    covariance = (
        torch.diag(torch.from_numpy(state["squares"] / state["count"])) / 2
        + deviations.T @ deviations / 8
    )
    values, vectors = torch.linalg.eigh(covariance)
    projected = (all_draws(posterior) - torch.from_numpy(state["mean"])) @ vectors
    assert (projected.square().mean(0) / values - 1).abs().max() < 5 * math.sqrt(2 / number)


def test_history_continues_from_the_mode(problem):
    model, data = problem
    method = SWAG(num_steps=50, collect_fraction=0.6, log_every=8)
    posterior = method.fit(model, data, seed=0)
    assert [row["step"] for row in posterior.history] == [8, 16, 20, 28, 36, 44, 50]
    assert {row["learning_rate"] for row in posterior.history[3:]} == {0.05}
    assert posterior.info["gradient_evaluations"] == 50
    assert all(
        math.isfinite(row[name])
        for row in posterior.history
        for name in ("objective", "nll", "validation_nll")
    )


@pytest.mark.thorough
@pytest.mark.parametrize("stop_after", [23, 31, 49])
def test_a_stopped_fit_resumes_bitwise_identically(problem, stop_after):
    """Before there are two iterates; with fewer of them than the rank; with more."""
    model, data = problem
    method = SWAG(
        num_steps=52, collect_fraction=32 / 52, collect_every=4, rank=4, log_every=8, num_draws=3
    )
    whole = method.fit(model, data, seed=0)
    recorder = Interruption(stop_after)
    part = method.fit(model, data, seed=0, callbacks=[recorder])
    assert part.info["status"] == "interrupted"
    assert part.shape[1] == (1 if stop_after < 28 else 3)
    rest = method.fit(
        model, data, seed=0, fit_state=method.truncate_to_checkpoint(recorder.fit_state())
    )
    assert torch.equal(all_draws(rest), all_draws(whole))
    assert without_times(rest.history) == without_times(whole.history)


def test_early_stopping_is_of_the_way_to_the_mode(problem):
    model, data = problem
    method = SWAG(
        num_steps=2010,
        learning_rate=0.1,
        collect_fraction=10 / 2010,
        collect_every=2,
        log_every=5,
        early_stopping={"patience": 2, "smoothing": 0.0},
    )
    posterior = method.fit(model, data, seed=0)
    steps = [row["step"] for row in posterior.history]
    assert steps[-1] < 2000
    assert posterior.history[-3]["learning_rate"] != 0.05
    assert [row["learning_rate"] for row in posterior.history[-2:]] == [0.05, 0.05]


def test_sgd_that_leaves_the_mode_is_an_error(problem):
    model, data = problem
    method = SWAG(num_steps=100, collect_learning_rate=1e30, log_every=5)
    with pytest.raises(
        FitDiverged,
        match=r"at step \d+; .* try a lower inference.collect_learning_rate",
    ):
        method.fit(model, data, seed=0)
    with pytest.raises(FitDiverged) as caught:
        method.fit(model, data, seed=0)
    assert torch.isfinite(caught.value.posterior.mean()).all()


def test_settings_without_any_spread_are_refused(problem):
    model, data = problem
    with pytest.raises(
        ConfigError,
        match=r"batch_size=500 uses all \d+ training points.*; set inference.batc",
    ):
        SWAG(batch_size=500).fit(model, data, seed=0)
    with pytest.raises(
        ConfigError,
        match=r"give 9 steps of SGD and fewer than two iterates, one every 5 steps; set",
    ):
        SWAG(num_steps=18, collect_every=5).fit(model, data, seed=0)


def test_iterates_are_one_an_epoch_or_enough_to_fill_the_rank():
    assert SWAG(num_steps=20_000).points_per_gradient(1294) == 129
    assert SWAG(num_steps=20_000).steps_between(1294) == 10
    assert SWAG(num_steps=4000, rank=20).steps_between(54_000) == 50
