"""Loss barriers: none where there is none, closed forms where there are some, every convention by
its definition."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnn_symm.alignment import align
from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import Dataset, Preprocessing, Provenance, Scaling, Split
from bnn_symm.diagnostics.barriers.barriers import Barrier, BarrierCurve, barrier
from bnn_symm.diagnostics.barriers.interpolation import couple, losses
from bnn_symm.errors import BnnSymmError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel, Bernoulli, Categorical, Gaussian, Poisson, Prior
from bnn_symm.posteriors import GaussianPosterior, SamplePosterior
from bnn_symm.symmetry import symmetry_group
from tests.models.cases import normal

# Roundings of double precision in sums of numbers of order one.
NONE = 1e-9


def dataset(
    x: Tensor,
    y: Tensor,
    *,
    test: tuple[Tensor, Tensor] | None = None,
    task="classification",
    y_mean=0.0,
    y_scale=1.0,
) -> Dataset:
    shape = tuple(x.shape[1:])
    scaling = Scaling(
        x_mean=np.zeros(shape), x_scale=np.ones(shape), y_mean=y_mean, y_scale=y_scale
    )
    preprocessing = Preprocessing(
        task=task,
        kind="array",
        columns=(),
        target="y",
        class_labels=(),
        input_shape=shape,
        feature_names=(),
        scaling=scaling,
    )
    train = Split(x=x, y=y)
    return Dataset(
        name="made up",
        task=task,
        train=train,
        validation=train.take(slice(0, 0)),
        test=train if test is None else Split(x=test[0], y=test[1]),
        num_outputs=3 if task == "classification" else 1,
        preprocessing=preprocessing,
        provenance=Provenance(source="made up", licence="CC0", sha256="", split_seed=0),
    )


def labels(number: int, classes: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(classes, (number,), generator=torch.Generator().manual_seed(seed))


def model_of(
    activation: str = "tanh", likelihood=None, outputs: int = 3, **keywords
) -> BayesianModel:
    net = build_network(
        MLPConfig(widths=(4,), activation=activation, **keywords),
        input_shape=(3,),
        num_outputs=outputs,
    )
    return BayesianModel(net.double(), Prior(), likelihood or Categorical())


def gaussian(
    model: BayesianModel, seed: int, size: float = 1.0, scaling: Scaling | None = None
) -> GaussianPosterior:
    number = model.num_parameters
    scale = (0.5 * normal(number, seed=seed + 100) - 1.5).exp()
    return GaussianPosterior(
        model, scaling or Scaling.identity((3,)), loc=size * normal(number, seed=seed), scale=scale
    )


DATA = dataset(normal(12, 3), labels(12), test=(normal(9, 3, seed=1), labels(9, seed=1)))


def curves(result: Barrier) -> tuple[BarrierCurve, BarrierCurve]:
    return result.test, result.train


def above(tau: list[float], values: list[float]) -> list[float]:
    return [v - (1 - t) * values[0] - t * values[-1] for t, v in zip(tau, values, strict=True)]


# -- no barrier


@pytest.mark.parametrize("kind", ["normals", "points", "moment", "assignment", "independent"])
def test_there_is_none_between_a_posterior_and_itself(kind) -> None:
    model = model_of()
    coupling = kind if kind in ("moment", "assignment", "independent") else "moment"
    chains, draws = (1, 1) if kind == "points" else (2, 4)
    posterior = SamplePosterior.from_draws(model, normal(chains, draws, model.num_parameters))
    if kind == "normals":
        posterior = gaussian(model, 1)
    result = barrier(posterior, posterior, DATA, num_draws=8, num_tau=3, coupling=coupling)
    for curve in curves(result):
        assert curve.height == pytest.approx(0.0, abs=NONE)
        assert curve.above_mean == pytest.approx(0.0, abs=NONE)
        assert curve.midpoint == pytest.approx(0.0, abs=NONE)
        assert curve.expected_height == pytest.approx(0.0, abs=NONE)
        assert curve.error_height == pytest.approx(0.0, abs=NONE)
        assert curve.standard_error == pytest.approx(0.0, abs=NONE)
        np.testing.assert_allclose(curve.marginal_nll, curve.marginal_nll[0], rtol=1e-12)
    assert result.end_nll == pytest.approx(result.test.marginal_nll[-1], rel=1e-12)


def test_a_permutation_changes_the_draws_at_the_end_but_not_the_loss() -> None:
    model = model_of()
    first, second = gaussian(model, 0), gaussian(model, 1, size=2.0)
    # Uneven scales: a mean that is permuted without its scale would be another posterior.
    second.scale[:10] *= 6.0
    permuted = second.permute(symmetry_group(model.net).random("other order"))
    own, other = (
        losses(first, couple([first, end], num_draws=1000).draws[1], DATA.test).marginal_nll
        for end in (second, permuted)
    )
    assert other != own
    assert other == pytest.approx(own, rel=0.04)


@pytest.mark.thorough
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_there_is_none_to_its_own_permutation_after_aligning(activation) -> None:
    model = model_of(activation)
    posterior = gaussian(model, 0, size=3.0)
    # Targets that the posterior mean predicts, so that what lies between two copies of it is worse.
    x = normal(40, 3)
    data = dataset(x, model.outputs(posterior.loc, x).argmax(1))
    permuted = posterior.permute(symmetry_group(model.net).random("plant"))
    naive = barrier(posterior, permuted, data, num_draws=10, num_tau=5)
    assert naive.height > 0.05
    assert naive.end_nll == pytest.approx(
        naive.test.marginal_nll[0], rel=0.2
    )  # the same, at other draws
    aligned = align(posterior, permuted).apply(permuted)
    after = barrier(posterior, aligned, data, num_draws=10, num_tau=5)
    for curve in curves(after):
        assert abs(curve.height) <= NONE
        assert abs(curve.above_mean) <= NONE
        assert abs(curve.midpoint) <= NONE
        assert abs(curve.error_height) <= NONE


# -- closed forms


def linear_posteriors(loc: tuple[float, float], scale: tuple[float, float], noise: float):
    """y ~ Normal(w x, noise), w normal: the marginal prediction is Normal(m x, s^2 x^2 +
    noise^2)."""
    net = nn.Linear(1, 1, bias=False)
    model = BayesianModel(net.double(), Prior(), Gaussian(noise=noise))
    return [
        GaussianPosterior(
            model,
            Scaling.identity((1,)),
            loc=torch.tensor([m], dtype=torch.float64),
            scale=torch.tensor([s], dtype=torch.float64),
        )
        for m, s in zip(loc, scale, strict=True)
    ]


class SquaredSlope(nn.Module):
    """Logit w^2 x: two modes with an uninformative middle."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.square()


def slope_posteriors(
    loc: tuple[float, float], scale: tuple[float, float]
) -> list[GaussianPosterior]:
    model = BayesianModel(SquaredSlope().double(), Prior(), Bernoulli())
    return [
        GaussianPosterior(
            model,
            Scaling.identity((1,)),
            loc=torch.tensor([m], dtype=torch.float64),
            scale=torch.tensor([s], dtype=torch.float64),
        )
        for m, s in zip(loc, scale, strict=True)
    ]


def between(ends: tuple[float, float], tau: float) -> float:
    return (1 - tau) * ends[0] + tau * ends[1]


X = normal(6, 1, seed=3)
Y = 0.8 * X[:, 0] + 0.1 * normal(6, seed=4)
CLASSES = (X[:, 0] > 0).long()


def linear_nll(loc: float, scale: float, noise: float) -> float:
    variance = scale**2 * X[:, 0].square() + noise**2
    return float(
        (
            0.5 * (Y - loc * X[:, 0]).square() / variance + 0.5 * (2 * math.pi * variance).log()
        ).mean()
    )


def slope_nll(loc: float, scale: float) -> float:
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    logit = torch.from_numpy((loc + scale * node) ** 2)[:, None] * X[:, 0] * (2 * CLASSES - 1)
    likelihood = (torch.from_numpy(weight / weight.sum())[:, None] * logit.sigmoid()).sum(0)
    return float(-likelihood.log().mean())


LINEAR = ((0.8, 0.7), (0.02, 2.0), 0.2)
SLOPE = ((2.0, -1.5), (0.3, 0.2))
CLOSED: dict[
    str, tuple[Callable[[], list[GaussianPosterior]], Dataset, Callable[[float], float]]
] = {
    "linear": (
        lambda: linear_posteriors(*LINEAR),
        dataset(X, Y, task="regression"),
        lambda tau: linear_nll(between(LINEAR[0], tau), between(LINEAR[1], tau), LINEAR[2]),
    ),
    "logistic": (
        lambda: slope_posteriors(*SLOPE),
        dataset(X, CLASSES),
        lambda tau: slope_nll(between(SLOPE[0], tau), between(SLOPE[1], tau)),
    ),
}


# Of the logistic model fewer draws do: the slope is never far from its mode.
@pytest.mark.parametrize(
    ("name", "num_draws"),
    [("linear", 150), pytest.param("logistic", 50, marks=pytest.mark.thorough)],
)
def test_height_is_the_closed_form_within_its_monte_carlo_error(name, num_draws) -> None:
    make, data, exact = CLOSED[name]
    repeats = [
        barrier(*make(), data, num_draws=num_draws, num_tau=5, seed=seed) for seed in range(6)
    ]
    fine = np.linspace(0, 1, 1001)
    expected = max(above(list(fine), [exact(float(t)) for t in fine]))
    assert expected > 0.3
    # Refining finds the maximum but for a piece of the parabola at its top, and the mean over draws
    # in the logarithm is biased upwards by its relative variance over twice their number: together
    # below 0.03 here.
    assert_near([one.height for one in repeats], expected, 0.03)
    for tau in (0.0, 0.5, 1.0):
        assert_near(
            [one.test.marginal_nll[one.test.tau.index(tau)] for one in repeats], exact(tau), 0.03
        )
    for one in repeats:
        assert one.train == one.test  # the same points


def assert_near(values: list[float], expected: float, bias: float) -> None:
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    assert abs(float(np.mean(values)) - expected) < 4 * error + bias


@pytest.mark.parametrize("name", CLOSED)
def test_losses_are_those_of_the_very_draws(name) -> None:
    """No Monte Carlo error is left when the same draws are taken."""
    make, data, _ = CLOSED[name]
    first, second = make()
    result = barrier(first, second, data, num_draws=7, num_tau=3, seed=2)
    noise = (first.draws(7, seed=2) - first.loc) / first.scale
    for tau, marginal, expected in zip(
        result.test.tau, result.test.marginal_nll, result.test.expected_nll, strict=True
    ):
        w = (
            between((first.loc, second.loc), tau)
            + between((first.scale, second.scale), tau) * noise
        )
        if name == "linear":
            log_likelihood = torch.distributions.Normal(w * X[:, 0], LINEAR[2]).log_prob(Y)
        else:
            log_likelihood = torch.nn.functional.logsigmoid(
                w.square() * X[:, 0] * (2 * CLASSES - 1)
            )
        assert marginal == pytest.approx(
            float(-log_likelihood.exp().mean(0).log().mean()), rel=1e-9
        )
        assert expected == pytest.approx(float(-log_likelihood.mean()), rel=1e-9)


# -- mixtures


@pytest.mark.thorough
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([0.1, 1.0, 4.0]),
    kind=st.sampled_from(["normals", "draws"]),
)
def test_the_mixture_has_no_barrier(seed, size, kind) -> None:
    model = model_of("relu")
    first, second = (gaussian(model, seed + i, size=size) for i in (0, 1))
    if kind == "draws":
        first, second = (
            SamplePosterior.from_draws(model, p.draws(4)[None]) for p in (first, second)
        )
    result = barrier(first, second, DATA, num_draws=4, num_tau=3, seed=seed)
    for curve in curves(result):
        assert curve.mixture_height <= NONE
        assert max(above(curve.tau, curve.mixture_nll)) == curve.mixture_height
        assert curve.mixture_nll[0] == curve.marginal_nll[0]
        assert curve.mixture_nll[-1] == curve.marginal_nll[-1]


def test_the_mixture_of_draws_is_a_posterior_of_both() -> None:
    """At 1/4: three copies of the draws of one and one of the other's; the expected NLL is on the
    chord."""
    model = model_of()
    first, second = gaussian(model, 1), gaussian(model, 2)
    result = barrier(first, second, DATA, num_draws=5, num_tau=5, seed=6)
    ends = couple([first, second], num_draws=5, seed=6).draws
    for tau, copies in ((0.25, (3, 1)), (0.5, (1, 1)), (0.75, (1, 3))):
        stacked = torch.cat(
            [own.repeat(number, 1) for own, number in zip(ends, copies, strict=True)]
        )
        for curve, part in zip(curves(result), (DATA.test, DATA.train), strict=True):
            mixture = losses(first, stacked, part)
            at = curve.tau.index(tau)
            assert curve.mixture_nll[at] == pytest.approx(mixture.marginal_nll, rel=1e-12)
            chord = (1 - tau) * curve.expected_nll[0] + tau * curve.expected_nll[-1]
            assert mixture.expected_nll == pytest.approx(chord, rel=1e-12)
            # Strictly below its chord, unless both predict alike.
            assert above(curve.tau, curve.mixture_nll)[at] < -1e-3


# -- conventions


@pytest.fixture(scope="module")
def result() -> Barrier:
    model = model_of()
    return barrier(
        gaussian(model, 1, size=2.0),
        gaussian(model, 2, size=2.0),
        DATA,
        num_draws=12,
        num_tau=5,
        seed=1,
    )


def test_heights_are_what_they_are_called(result) -> None:
    for curve in curves(result):
        marginal, ends = curve.marginal_nll, (curve.marginal_nll[0] + curve.marginal_nll[-1]) / 2
        assert curve.height == pytest.approx(max(above(curve.tau, marginal)), abs=1e-12)
        assert curve.expected_height == pytest.approx(
            max(above(curve.tau, curve.expected_nll)), abs=1e-12
        )
        assert curve.error_height == pytest.approx(max(above(curve.tau, curve.error)), abs=1e-12)
        assert curve.above_mean == pytest.approx(max(marginal) - ends, abs=1e-12)
        half = curve.tau.index(0.5)
        assert curve.midpoint == pytest.approx(marginal[half] - ends, abs=1e-12)
        # At the middle chord and mean are one, so no height is below the midpoint's; ends count, so
        # none is negative.
        assert curve.midpoint == pytest.approx(above(curve.tau, marginal)[half], abs=1e-12)
        assert curve.height >= max(curve.midpoint, 0.0)
        # The ends differ, and an end is on its chord but above the mean, or below.
        assert curve.above_mean >= abs(marginal[0] - marginal[-1]) / 2 - 1e-12
        assert curve.above_mean != pytest.approx(curve.height, abs=1e-6)


def test_the_height_of_a_barrier_is_that_of_the_test_part(result) -> None:
    assert result.height == result.test.height
    assert result.standard_error == result.test.standard_error
    assert result.test.marginal_nll != result.train.marginal_nll
    model = model_of()
    own = gaussian(model, 2, size=2.0).draws(12, seed=1)
    assert result.end_nll == losses(gaussian(model, 1), own, DATA.test).marginal_nll
    assert (result.path, result.num_draws) == ("wasserstein", 12)


def test_every_curve_has_a_value_at_every_position(result) -> None:
    for curve in curves(result):
        number = len(curve.tau)
        for values in (
            curve.marginal_nll,
            curve.expected_nll,
            curve.error,
            curve.ece,
            curve.mixture_nll,
            curve.band,
        ):
            assert len(values) == number
            assert all(math.isfinite(value) for value in values)
        assert all(
            m <= e + 1e-12 for m, e in zip(curve.marginal_nll, curve.expected_nll, strict=True)
        )
        assert all(0 <= e <= 1 for e in curve.error)


@pytest.mark.parametrize("num_tau", [2, 4, 5, 11])
def test_positions_are_ascending_with_both_ends_and_the_middle_and_fine_at_the_top(num_tau) -> None:
    make, data, _ = CLOSED["logistic"]
    curve = barrier(*make(), data, num_draws=20, num_tau=num_tau).test
    assert curve.tau == sorted(set(curve.tau))
    assert (curve.tau[0], curve.tau[-1]) == (0.0, 1.0)
    assert 0.5 in curve.tau
    for tau in np.linspace(0, 1, num_tau):
        assert min(abs(tau - own) for own in curve.tau) < 1e-9
    heights = above(curve.tau, curve.marginal_nll)
    top = int(np.argmax(heights))
    assert 0 < top < len(heights) - 1
    coarse = max(1 / (num_tau - 1), 0.5) / 2 if num_tau == 2 else 1 / (num_tau - 1)
    # Three times halved: at least one neighbor of the maximum is an eighth of the step away, the
    # other a quarter.
    steps = sorted([curve.tau[top] - curve.tau[top - 1], curve.tau[top + 1] - curve.tau[top]])
    assert steps[0] <= coarse / 4 + 1e-9
    assert steps[1] <= coarse / 2 + 1e-9
    assert len(curve.tau) <= num_tau + 1 + 6


def test_a_single_position_is_refused_or_completed() -> None:
    make, data, _ = CLOSED["logistic"]
    try:
        curve = barrier(*make(), data, num_draws=5, num_tau=1).test
    except BnnSymmError:
        return
    assert curve.tau[-1] == 1.0


def test_the_same_seed_gives_the_same_bits() -> None:
    model = model_of()
    state = torch.get_rng_state()

    def run(seed: int) -> Barrier:
        return barrier(
            gaussian(model, 1), gaussian(model, 2), DATA, num_draws=6, num_tau=3, seed=seed
        )

    assert run(1) == run(1)
    assert run(1).test.marginal_nll != run(2).test.marginal_nll
    assert torch.equal(torch.get_rng_state(), state)


def test_swapping_the_ends_mirrors_the_curve() -> None:
    first, second = CLOSED["logistic"][0]()
    data = CLOSED["logistic"][1]
    there, back = (
        barrier(a, b, data, num_draws=6, num_tau=5).test
        for a, b in ((first, second), (second, first))
    )
    np.testing.assert_allclose([1 - t for t in reversed(back.tau)], there.tau, atol=1e-9)
    np.testing.assert_allclose(list(reversed(back.marginal_nll)), there.marginal_nll, rtol=1e-9)
    assert back.height == pytest.approx(there.height, abs=1e-12)
    assert there.height > 0.05


# -- standard errors


@pytest.mark.thorough
def test_the_standard_error_is_that_of_other_draws_and_points() -> None:
    """Against the spread of the height over independent draws and points, to a factor of 3, and
    usually much nearer."""
    heights, errors = [], []
    for seed in range(24):
        x = normal(15, 1, seed=1000 + seed)
        y = (torch.sigmoid(4 * x[:, 0]) > normal(15, seed=2000 + seed).sigmoid()).long()
        one = barrier(
            *slope_posteriors((2.0, -2.0), (0.3, 0.3)),
            dataset(x, y),
            num_draws=12,
            num_tau=3,
            seed=seed,
        )
        heights.append(one.height)
        errors.append(one.standard_error)
    spread, typical = float(np.std(heights, ddof=1)), float(np.median(errors))
    assert min(errors) > 0
    assert spread / 3 < typical < 3 * spread


def test_bands_are_zero_at_the_ends_and_positive_between(result) -> None:
    for curve in curves(result):
        assert curve.band[0] == curve.band[-1] == 0.0
        assert min(curve.band[1:-1]) > 0
        assert curve.standard_error > 0


def test_points_have_the_error_of_the_data_only() -> None:
    model = model_of()
    first, second = (
        SamplePosterior.from_draws(model, 2 * normal(1, 1, model.num_parameters, seed=s))
        for s in (1, 2)
    )
    result = barrier(first, second, DATA, num_draws=50, num_tau=5)
    assert (result.path, result.num_draws) == ("straight line", 1)
    assert result.test.standard_error > 0
    assert result.test.marginal_nll == pytest.approx(result.test.expected_nll, rel=1e-12)
    # One point of data as well: nothing is left to vary.
    single = dataset(normal(1, 3), labels(1))
    assert barrier(first, second, single, num_tau=3).standard_error == pytest.approx(0.0, abs=NONE)


# -- targets, draws, and what is refused


def test_regression_is_in_the_targets_own_units() -> None:
    model = model_of(likelihood=Gaussian(noise=0.3), outputs=1)
    x, y = normal(10, 3), normal(10, seed=5)

    def run(y_mean: float, y_scale: float) -> BarrierCurve:
        data = dataset(x, y, task="regression", y_mean=y_mean, y_scale=y_scale)
        first, second = (gaussian(model, seed, scaling=data.scaling) for seed in (1, 2))
        return barrier(first, second, data, num_draws=6, num_tau=3).test

    plain, scaled = run(0.0, 1.0), run(100.0, 10.0)
    assert plain.ece == scaled.ece == []
    np.testing.assert_allclose(scaled.error, 10 * np.array(plain.error), rtol=1e-9)
    np.testing.assert_allclose(
        scaled.marginal_nll, np.array(plain.marginal_nll) + math.log(10), rtol=1e-9
    )
    assert scaled.height == pytest.approx(plain.height, abs=1e-9)
    draws = gaussian(model, 1).draws(6)
    mean = torch.stack([model.outputs(draw, x)[:, 0] for draw in draws]).mean(0)
    assert plain.error[0] == pytest.approx(float((mean - y).square().mean().sqrt()), rel=1e-9)


def test_counts_and_a_learned_noise_have_barriers_too() -> None:
    x = normal(8, 3)
    counts = dataset(x, torch.tensor([0.0, 1, 2, 0, 3, 1, 0, 5]).double(), task="count")
    numbers = dataset(x, normal(8, seed=5), task="regression")
    for likelihood, data in ((Poisson(), counts), (Gaussian(), numbers)):
        model = model_of(likelihood=likelihood, outputs=1)
        first, second = gaussian(model, 1), gaussian(model, 2)
        curve = barrier(first, second, data, num_draws=4, num_tau=3).test
        assert all(
            math.isfinite(value)
            for value in (*curve.marginal_nll, *curve.error, curve.standard_error)
        )
        assert curve.ece == []
        assert curve.mixture_height <= NONE
        expected = losses(first, first.draws(4), data.test)
        assert curve.marginal_nll[0] == expected.marginal_nll


@pytest.mark.parametrize("coupling", ["moment", "assignment", "independent"])
def test_paths_of_draws(coupling) -> None:
    model = model_of()
    first, second = (
        SamplePosterior.from_draws(model, normal(2, 4, model.num_parameters, seed=s))
        for s in (1, 2)
    )
    result = barrier(first, second, DATA, num_draws=50, num_tau=3, coupling=coupling)
    assert (result.path, result.num_draws) == (coupling, 8)
    end = result.test.marginal_nll[-1]
    assert result.end_nll == losses(second, second.draws(), DATA.test).marginal_nll
    if coupling == "moment":  # ends at draws of another shape
        assert end != pytest.approx(result.end_nll, rel=1e-6)
    else:  # the second's own draws, in some order
        assert end == pytest.approx(result.end_nll, rel=1e-12)


def test_other_parameters_are_refused() -> None:
    other = BayesianModel(
        build_network(MLPConfig(widths=(5,)), input_shape=(3,), num_outputs=3).double(),
        Prior(),
        Categorical(),
    )
    with pytest.raises(IncompatiblePosteriors, match="different parameters"):
        barrier(gaussian(model_of(), 1), gaussian(other, 1), DATA)


def test_other_fixed_entries_are_refused() -> None:
    models = [
        model_of(
            symmetry=SymmetryConfig(
                kind="weight_asymmetric", fixed_per_row=(0, 1), mask="random", seed=seed
            )
        )
        for seed in (0, 1)
    ]
    with pytest.raises(IncompatiblePosteriors):
        barrier(gaussian(models[0], 1), gaussian(models[1], 2), DATA, num_draws=3, num_tau=3)


def test_a_data_set_without_test_points_is_refused_in_words() -> None:
    model = model_of()
    empty = dataset(DATA.train.x, DATA.train.y, test=(DATA.test.x[:0], DATA.test.y[:0]))
    with pytest.raises(BnnSymmError):
        barrier(gaussian(model, 1), gaussian(model, 2), empty, num_draws=3, num_tau=3)
