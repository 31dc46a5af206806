"""SGLD, SGHMC and cyclical SGHMC against the laws that their own recursions have on Gaussian
targets."""

import dataclasses
import math

import jaxtyping
import numpy as np
import pytest
import torch

from bnn_symm.data import Dataset, Split, load_dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference import MAP, SGHMC, SGLD, Callback, CyclicalSGHMC, FitState, RMSprop
from bnn_symm.inference.callbacks import Callbacks
from bnn_symm.inference.minibatches import Minibatches
from bnn_symm.inference.optimization.optimizer import AdamStepper, OptimizationProblem
from bnn_symm.inference.training_loop import train
from bnn_symm.models import BayesianModel, Gaussian, Prior
from bnn_symm.posteriors import DrawChunk
from bnn_symm.testing.exact_targets import NOISE


@pytest.fixture
def unchecked():
    """Thousands of steps on a few numbers spend most of their time in the checks of annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


ONE = {"num_chains": 1, "chain_method": "sequential"}
TWO = {"num_chains": 2, "chain_method": "sequential"}


def linear_regression(x: torch.Tensor, y: torch.Tensor) -> tuple[BayesianModel, Dataset]:
    """Without a bias, noise NOISE, weights Normal(0, 1) a priori, and no validation split."""
    none = Split(x=x[:0], y=y[:0])
    data = load_dataset("diabetes", dtype=torch.float64)
    scaling = dataclasses.replace(data.preprocessing.scaling, y_scale=1.0, y_mean=0.0)
    preprocessing = dataclasses.replace(data.preprocessing, scaling=scaling)
    data = dataclasses.replace(
        data, preprocessing=preprocessing, train=Split(x=x, y=y), validation=none, test=none
    )
    net = torch.nn.Linear(x.shape[1], 1, bias=False).double()
    return BayesianModel(net, Prior(), Gaussian(noise=NOISE)), data


def stationary(a_matrix: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The covariance S = A S A^T + noise of z' = A z + noise, for a batch of matrices, by
    doubling."""
    covariance, power = noise, a_matrix
    for _ in range(40):
        covariance = covariance + power @ covariance @ np.swapaxes(power, -1, -2)
        power = power @ power
    return covariance


def recursion(precision, root, decay, noise_estimate=0.0):
    """Of (w, q) in each coordinate: A and the covariance of the noise of one step.

    q' = (1 - a) q - h lambda w + r and w' = w + h q' with r ~ Normal(0, 2 (a - b)).
    """
    stay = np.full_like(precision, 1 - decay)
    rows = [[1 - root**2 * precision, root * stay], [-root * precision, stay]]
    a_matrix = np.moveaxis(np.array(rows), -1, 0)
    direction = np.stack([root, np.ones_like(root)], -1)
    noise = 2 * (decay - noise_estimate) * direction[:, :, None] * direction[:, None, :]
    return a_matrix, noise


def relative_error(
    a_matrix: np.ndarray, covariance: np.ndarray, which: int, thinning: int, number: int
) -> float:
    """Exact relative standard error of the mean square of `number` draws, pooled over coordinates.

    Of a Gaussian process with autocorrelations rho_k it is sqrt(2 / n (1 + 2 sum (1 - k / n)
    rho_k^2)).
    """
    step = np.linalg.matrix_power(a_matrix, thinning)
    cross, total = covariance, np.ones(len(a_matrix))
    for k in range(1, number):
        cross = step @ cross
        total += 2 * (1 - k / number) * (cross[:, which, which] / covariance[:, which, which]) ** 2
    return float(np.sqrt(2 / number * total.sum()) / len(total))


def test_the_discretized_law_of_sgld_is_the_textbooks():
    precision = np.array([1.5, 20.0, 60.0])
    eps = 0.03
    a_matrix, noise = recursion(precision, np.full(3, math.sqrt(eps / 2)), 1.0)
    np.testing.assert_allclose(
        stationary(a_matrix, noise)[:, 0, 0],
        1 / (precision * (1 - eps * precision / 4)),
        rtol=1e-12,
    )


PRECISIONS = np.repeat([2.0, 10.0, 40.0], 60)


def gaussian_target(scale: float = 1.0) -> tuple[BayesianModel, Dataset, torch.Tensor]:
    """Independent weights with PRECISIONS, one training point for each; and their means."""
    precisions = torch.from_numpy(PRECISIONS)
    x = torch.diag(NOISE * (precisions - 1).sqrt()) * scale
    y = torch.linspace(-1, 1, len(x)).double()
    model, data = linear_regression(x, y)
    return model, data, x.diag() * y / NOISE**2 / precisions


class States(Callback):
    """Records all reported states in order."""

    def __init__(self):
        self.reported = []

    def on_state(self, chain, state, *, essential=False):
        self.reported.append((chain, state()))


# Rate times precision up to 0.8 in the stiffest direction: its variance is off by tens of per cent.
ETA = 0.02
LONG = {"num_warmup": 300, "num_draws": 400, "thinning": 3, "log_every": 3, **ONE}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("preconditioner", [None, RMSprop(damping=0.01)], ids=["plain", "rmsprop"])
@pytest.mark.parametrize(
    "method",
    [
        SGLD(**LONG),
        SGHMC(momentum_decay=0.2, **LONG),
        pytest.param(
            SGHMC(momentum_decay=0.5, noise_estimate=0.1, **LONG), marks=pytest.mark.thorough
        ),
        pytest.param(
            SGHMC(momentum_decay=0.3, temperature=0.2, tempering="posterior", **LONG),
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["sgld", "sghmc", "noise estimate", "cold"],
)
def test_full_batch_draws_have_the_law_of_the_recursion(method, preconditioner):
    """Mean squares of 60 coordinates and 400 draws, within 4 of their exact standard errors (some 1
    to 2 %)."""
    model, data, mean = gaussian_target()
    eta = ETA / 25 if preconditioner else ETA  # scales are around 25
    method = dataclasses.replace(
        method, learning_rate=eta * len(data.train), preconditioner=preconditioner
    )
    states = States()
    posterior = method.fit(model, data, seed=0, callbacks=[states])
    deviations = (posterior.draws().double() - mean).numpy()
    scales = np.ones(len(PRECISIONS))
    if preconditioner:
        sampling = [state for _, state in states.reported if state["step"] >= method.num_warmup]
        assert all(
            np.array_equal(state["mean_square"], sampling[0]["mean_square"]) for state in sampling
        )
        corrected = sampling[0]["mean_square"] / (1 - 0.99**method.num_warmup)
        scales = 1 / (0.01 + np.sqrt(corrected))
        assert scales.max() > 2 * scales.min()
    temperature = method.temperature
    root = np.sqrt(temperature * method.learning_rate / len(data.train) * scales)
    momentum = isinstance(method, SGHMC)
    decay, estimate = (method.momentum_decay, method.noise_estimate) if momentum else (1.0, 0.0)
    # Tempered as a whole, the target's precision is lambda / T.
    precisions = PRECISIONS / temperature
    a_matrix, noise = recursion(precisions, root, decay, estimate)
    law = stationary(a_matrix, noise)
    for precision in np.unique(precisions):
        own = precisions == precision
        error = relative_error(a_matrix[own], law[own], 0, method.thinning, method.num_draws)
        found = (deviations[:, own] ** 2 / law[own, 0, 0]).mean()
        assert abs(found - 1) <= 4 * error, (precision, found, error)
    # The test can distinguish this distribution from the posterior itself.
    assert (law[own, 0, 0] * precision).mean() - 1 > 8 * error or estimate
    if momentum:
        rows = [
            row["kinetic_temperature"]
            for row in posterior.history
            if row["step"] > method.num_warmup
        ]
        wanted = temperature * (1 - decay / 2) * law[:, 1, 1].mean()
        error = relative_error(a_matrix, law, 1, 3, len(rows))
        assert abs(np.mean(rows) / wanted - 1) <= 4 * error


@pytest.mark.thorough
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "method",
    [SGLD(learning_rate=1e-4 * 256), SGHMC(learning_rate=5e-5 * 256, momentum_decay=0.5)],
    ids=lambda method: method.name,
)
def test_minibatches_add_no_more_than_their_noise(method):
    """Linear regression, a sixteenth of the data a step: the exact mean, and a spread between two
    exact laws.

    The lower law is that of all data at every step, the upper one that of batches drawn anew at
    every step, whose gradients have at the mean the covariance C = N^2 / B (N - B) / (N - 1)
    Cov(gradient of a point). Batches of a shuffle fall in between, for those of an epoch cancel.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 6, generator=generator, dtype=torch.float64)
    y = x @ torch.linspace(-1, 1, 6).double() + NOISE * torch.randn(
        256, generator=generator, dtype=torch.float64
    )
    model, data = linear_regression(x, y)
    eta, batch = method.learning_rate / 256, 16
    steps = {"num_warmup": 200, "num_draws": 500, "thinning": 4, "log_every": 100}
    method = dataclasses.replace(method, batch_size=batch, **steps, **ONE)
    posterior = method.fit(model, data, seed=1)
    precision = (x.T @ x / NOISE**2 + torch.eye(6)).numpy()
    mean = np.linalg.solve(precision, (x.T @ y / NOISE**2).numpy())
    residual = (x @ torch.from_numpy(mean) - y)[:, None] * x / NOISE**2
    gradients = 256**2 / batch * (256 - batch) / 255 * np.cov(residual.T.numpy(), ddof=0)
    decay, h, one = (
        (method.momentum_decay if isinstance(method, SGHMC) else 1.0),
        math.sqrt(eta),
        np.eye(6),
    )
    a_matrix = np.block(
        [[one - eta * precision, h * (1 - decay) * one], [-h * precision, (1 - decay) * one]]
    )
    into = np.vstack([h * one, one])
    laws = [
        stationary(a_matrix, into @ r @ into.T)
        for r in (2 * decay * one, 2 * decay * one + eta * gradients)
    ]
    deviations = posterior.draws().double().numpy() - mean
    # Whitened by the posterior: the mean of six squares over the draws, and its standard error,
    # from the upper law.
    found = float(np.einsum("di,ij,dj->", deviations, precision, deviations) / deviations.size)
    lower, upper = (float(np.trace(precision @ law[:6, :6]) / 6) for law in laws)
    step, cross = np.linalg.matrix_power(a_matrix, method.thinning), laws[1]
    root = np.linalg.cholesky(precision)
    total = 0.0
    sums = np.zeros((6, 6))
    for k in range(200):
        own = root.T @ cross[:6, :6] @ root
        total += (1 if k == 0 else 2) * np.square(own).sum()
        sums += own if k == 0 else own + own.T
        cross = step @ cross
    error = math.sqrt(2 * total / 500) / 6
    assert upper - lower > 4 * error
    assert lower - 4 * error <= found <= upper + 4 * error
    means = root.T @ deviations.mean(0)
    assert (np.abs(means) <= 4 * np.sqrt(sums.diagonal() / 500)).all()


class TwoModes(torch.nn.Module):
    """Outputs tanh(w)^2, whatever the input: w and -w are one function."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.w.tanh().square().expand(len(x), 1)


@pytest.mark.thorough
@pytest.mark.usefixtures("unchecked")
def test_cycles_visit_both_modes_where_small_steps_stay_in_one():
    """Between the modes at +-1.03 lie 23 nats: by diffusion no chain of any length here would
    cross."""
    _, data = linear_regression(torch.zeros(16, 1).double(), torch.full((16,), 0.6).double())
    model = BayesianModel(TwoModes().double(), Prior(), Gaussian(noise=0.35))
    mode = math.atanh(math.sqrt(0.6))
    cycles = CyclicalSGHMC(
        learning_rate=2.0,
        momentum_decay=0.2,
        num_cycles=6,
        cycle_steps=200,
        draws_per_cycle=5,
        **TWO,
    )
    draws = cycles.fit(model, data, seed=0).draws().reshape(2, 6, 5)
    # Each cycle samples one mode: five standard deviations of Laplace's approximation about it.
    sd = (16 / 0.35**2 * (2 * math.sqrt(0.6) * 0.4) ** 2 + 1) ** -0.5
    assert ((draws.abs() - mode).abs() < 5 * sd).all()
    signs = draws[:, :, 0].sign()
    assert (draws.sign() == signs[:, :, None]).all()
    assert ((signs > 0).any(1) & (signs < 0).any(1)).all()
    steady = SGHMC(learning_rate=0.1, num_warmup=200, num_draws=50, thinning=20, **ONE)
    stuck = steady.fit(model, data, seed=0).draws()
    assert (stuck.sign() == stuck[0].sign()).all()


def test_minibatches_are_those_of_the_methods_that_optimize():
    _, data = linear_regression(torch.arange(23.0).double()[:, None], torch.zeros(23).double())
    seen = []

    def objective(step, x, y):
        seen.append(x)
        return value.square().sum(), {}

    value = torch.ones(1, requires_grad=True)
    settings = MAP(num_steps=11, batch_size=5)
    problem = OptimizationProblem(
        settings=settings,
        tensors={"value": value},
        objective=objective,
        validate=lambda step: {"validation_nll": None},
        train=data.train,
        seed=7,
    )
    train(AdamStepper(problem), Callbacks())
    batches = Minibatches(data.train, 5, 7)
    assert len(seen) == 11
    for step in (10, *range(11)):  # in any order
        assert torch.equal(batches.take(step)[0], seen[step])
    for size in (5, 600):
        assert SGLD().points_per_gradient(size) == settings.__class__().points_per_gradient(size)


class Everything(Callback):
    """Records all reports of a fit."""

    def __init__(self):
        self.rows, self.chunks, self.states = [], [], []

    def on_history(self, row):
        self.rows.append(dict(row))

    def on_draws(self, chunk):
        self.chunks.append(chunk)

    def on_state(self, chain, state, *, essential=False):
        self.states.append((chain, state()))

    def draws(self):
        found = {}
        for chain in (0, 1):
            own = [chunk for chunk in self.chunks if chunk.chain == chain]
            stats = {"step_size": np.concatenate([chunk.stats["step_size"] for chunk in own])}
            found[chain] = DrawChunk(
                chain, 0, np.concatenate([chunk.positions for chunk in own]), stats
            )
        return found


SHORT = {"batch_size": 50, "log_every": 3, **TWO}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "method",
    [
        SGLD(
            num_warmup=8,
            num_draws=4,
            thinning=3,
            schedule="polynomial",
            preconditioner=RMSprop(),
            **SHORT,
        ),
        SGHMC(num_warmup=8, num_draws=4, thinning=3, preconditioner=RMSprop(), **SHORT),
        CyclicalSGHMC(
            num_cycles=2,
            cycle_steps=10,
            exploration=0.5,
            draws_per_cycle=2,
            preconditioner=RMSprop(),
            **SHORT,
        ),
    ],
    ids=lambda method: method.name,
)
def test_it_resumes_bitwise_identically_from_every_reported_state(method):
    """Of either chain, in every phase: draws and rows beyond the state are made again."""
    model, data, _ = gaussian_target()
    method = dataclasses.replace(method, learning_rate=0.5)
    whole = Everything()
    posterior = method.fit(model, data, seed=0, callbacks=[whole])
    assert len(whole.states) == 2 * math.ceil(method.num_steps / 3)
    assert all(len(chunk.positions) == 1 for chunk in whole.chunks)
    for chain, state in whole.states[::2]:
        fit_state = FitState({chain: state}, whole.draws(), list(whole.rows))
        back = method.truncate_to_checkpoint(fit_state)
        again = method.fit(model, data, seed=0, fit_state=back)
        assert torch.equal(again.draws(), posterior.draws())
        assert np.array_equal(again.sample_stats["step_size"], posterior.sample_stats["step_size"])
        times = {"seconds": 0.0}
        assert [row | times for row in again.history] == [row | times for row in posterior.history]
    # A state that builds on draws which are lost is none to go on from.
    chain, last = whole.states[-1]
    assert last["drawn"] > 0
    assert (
        method.truncate_to_checkpoint(FitState({chain: last}, {}, list(whole.rows))) == FitState()
    )


def test_learning_rates_and_draws_are_where_they_were_asked_for():
    steady = SGHMC(
        num_warmup=4,
        num_draws=2,
        thinning=3,
        learning_rate=0.2,
        momentum_decay=0.2,
        noise_estimate=0.1,
    )
    stages = [steady.stage(step) for step in range(steady.num_steps)]
    assert [stage.is_draw for stage in stages] == [False] * 6 + [True, False, False, True]
    assert [stage.phase for stage in stages] == ["warmup"] * 4 + ["sampling"] * 6
    assert {(stage.learning_rate, stage.momentum_decay, stage.noise) for stage in stages} == {
        (0.2, 0.2, 0.2**0.5)
    }
    decaying = SGLD(learning_rate=0.2, schedule="polynomial", decay_steps=3, decay_exponent=1.0)
    assert [decaying.stage(step).learning_rate for step in (0, 3, 9)] == pytest.approx(
        [0.2, 0.1, 0.05]
    )
    cyclical = CyclicalSGHMC(
        learning_rate=0.2, num_cycles=2, cycle_steps=8, exploration=0.5, draws_per_cycle=2
    )
    stages = [cyclical.stage(step) for step in range(cyclical.num_steps)]
    assert [stage.is_draw for stage in stages] == ([False] * 5 + [True, False, True]) * 2
    assert [stage.noise for stage in stages] == ([0.0] * 4 + [0.2**0.5] * 4) * 2
    rates = [stage.learning_rate for stage in stages]
    assert rates[:8] == rates[8:]
    assert rates[:7:2] == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0.1 * (1 - 0.5**0.5)])


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            SGHMC(noise_estimate=0.1),
            r"noise_estimate is 0.1, expected less than inference.momentum_decay \(0.1\)",
        ),
        (
            SGLD(num_warmup=0, preconditioner=RMSprop()),
            "preconditioner adapts only before sampling",
        ),
        (
            CyclicalSGHMC(exploration=0.0, preconditioner=RMSprop()),
            "preconditioner adapts only before sampling",
        ),
        (
            CyclicalSGHMC(cycle_steps=20, draws_per_cycle=5),
            "draws_per_cycle is 5, but 4 of the 20 steps",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(method, message):
    model, data, _ = gaussian_target()
    with pytest.raises(ConfigError, match=message):
        method.fit(model, data, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [SGHMC(num_warmup=5, num_draws=2, thinning=2, learning_rate=0.5, num_chains=2)]
)
def test_parallel_chains_draw_what_sequential_ones_do(method):
    model, data, _ = gaussian_target()
    one, other = (
        dataclasses.replace(method, chain_method=how).fit(model, data, seed=0)
        for how in ("sequential", "parallel")
    )
    assert torch.equal(one.draws(), other.draws())
