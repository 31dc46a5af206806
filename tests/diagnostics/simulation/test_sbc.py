"""Simulation-based calibration: exact samplers pass; broken ones fail, with the reason."""

import dataclasses
import math
from dataclasses import dataclass

import jaxtyping
import numpy as np
import pytest
import torch

from bnn_symm.alignment.samples import prior_draws
from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import DataConfig, Dataset, Split, load_dataset
from bnn_symm.diagnostics.simulation.sbc import (
    simulate,
    simulation_based_calibration,
    summarize_simulations,
)
from bnn_symm.diagnostics.simulation.sbc_simulation import FitSimulation, Quantities, SimulatedFit
from bnn_symm.errors import ConfigError, FitDiverged, InvalidData
from bnn_symm.inference import MAP, NUTS, MeanFieldVI
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Poisson, Prior
from bnn_symm.posteriors import GaussianPosterior, Posterior, SamplePosterior
from bnn_symm.randomness import key_seed, torch_generator
from bnn_symm.symmetry import permutation_spec
from tests.models.cases import CASES

NOISE = 0.7
WEIGHTS = ("head.weight[0, 0]", "head.bias[0]")


@pytest.fixture(autouse=True)
def unchecked(request):
    """Thousands of evaluations of two numbers spend most of their time in the checks of
    annotations."""
    if "checked" in request.fixturenames:
        yield
        return
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def checked():
    """Asked for by a test that runs with the checks."""


def line(offset: float = 0.0, noise: float | str = NOISE) -> tuple[BayesianModel, Dataset]:
    """A line through 20 points: standardized, so that slope and bias do not know each other, unless
    all are moved."""
    data = load_dataset(DataConfig(name="gap", validation_fraction=0.0), dtype=torch.float64)
    x = torch.linspace(-1.7, 1.7, 20, dtype=torch.float64)[:, None] + offset
    data = dataclasses.replace(data, train=Split(x=x, y=torch.zeros(20, dtype=torch.float64)))
    net = build_network(MLPConfig(widths=()), input_shape=(1,), num_outputs=1).double()
    return BayesianModel(net, Prior(), Gaussian(noise=noise)), data


@dataclass(frozen=True)
class Conjugate:
    """The posterior of a line in closed form, or one that is wrong in a known way."""

    scale: float = 1.0
    shift: float = 0.0
    prior: bool = False
    correlation: float = 0.0
    mean_field: bool = False
    chains: int = 2
    draws: int = 20

    def fit(self, model: BayesianModel, dataset: Dataset, *, seed: int) -> Posterior:
        x = torch.cat([dataset.train.x, torch.ones(len(dataset.train), 1)], 1).double()
        precision = torch.eye(2).double()
        mean = torch.zeros(2).double()
        if not self.prior:
            precision = precision + x.T @ x / NOISE**2
            mean = torch.linalg.solve(precision, x.T @ dataset.train.y / NOISE**2)
        if self.mean_field:
            return GaussianPosterior(
                model, dataset.scaling, loc=mean, scale=precision.diag().rsqrt(), seed=seed
            )
        noise = torch.randn(
            self.chains, self.draws, 2, generator=torch_generator(seed), dtype=torch.float64
        )
        for i in range(1, self.draws):
            fresh = math.sqrt(1 - self.correlation**2) * noise[:, i]
            noise[:, i] = self.correlation * noise[:, i - 1] + fresh
        covariance = torch.linalg.inv(precision)
        root = torch.linalg.cholesky(covariance)
        moved = mean + self.shift * covariance.diag().sqrt()
        return SamplePosterior.from_draws(
            model, moved + self.scale * noise @ root.T, dataset.scaling
        )


def check(method, *, offset: float = 0.0, number: int = 80, num_draws: int = 15, **options):
    model, data = line(offset)
    return simulation_based_calibration(
        method, model, data, num_simulations=number, num_draws=num_draws, seed=0, **options
    )


def shapes(found) -> dict[str, str]:
    return {own.name: own.shape for own in found.quantities}


@pytest.mark.thorough
def test_an_exact_sampler_passes():
    found = check(Conjugate(), number=100)
    assert found.kind == "sbc"
    assert found.calibrated is True
    assert repr(found) == "SbcResult(kind='sbc', simulations=100, failures=0, calibrated=True)"
    assert found.conclusion.startswith("calibrated: in 100 simulations ranks of all 8 quantities")
    assert found.ranks.shape == found.values.shape == (100, 8)
    # The ESS of 40 independent draws is rarely estimated below 15.
    assert (found.num_draws == 15).mean() > 0.95
    assert found.ranks.min() == 0
    assert found.ranks.max() == 15
    assert (np.floor(found.values * (found.num_draws + 1)) == found.ranks).all()
    # 4 standard errors of the mean of 100 uniform numbers.
    assert (abs(found.values.mean(0) - 0.5) < 4 / math.sqrt(12 * 100)).all()


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        (Conjugate(scale=0.6), {"too narrow"}),
        pytest.param(Conjugate(scale=2.0), {"too wide"}, marks=pytest.mark.thorough),
        pytest.param(Conjugate(shift=1.0), {"too high"}, marks=pytest.mark.thorough),
        pytest.param(Conjugate(shift=-1.0), {"too low"}, marks=pytest.mark.thorough),
    ],
)
def test_a_broken_sampler_fails_and_is_told_how(method, wanted):
    found = check(method, number=100)
    assert found.calibrated is False
    assert {shapes(found)[name] for name in WEIGHTS} == wanted
    assert "not calibrated" in found.conclusion
    assert wanted.pop() in found.conclusion
    assert found.band is not None
    assert not found.band.holds(found.values[:, found.names.index(WEIGHTS[0])])


@pytest.mark.thorough
def test_a_sampler_that_forgets_the_data_is_caught_by_the_log_likelihood_alone():
    found = check(Conjugate(prior=True))
    assert found.calibrated is False
    wrong = {name for name, shape in shapes(found).items() if shape != "calibrated"}
    assert wrong == {"log likelihood"}


@pytest.mark.thorough
def test_correlated_draws_are_thinned_by_their_ess():
    found = check(Conjugate(correlation=0.8, chains=1, draws=150), number=60, num_draws=99)
    assert found.calibrated is True
    column = found.num_draws[:, found.names.index("head.bias[0]")]
    # ESS = 150 (1 - 0.8) / (1 + 0.8) = 17, give or take its own estimation.
    assert 10 < np.median(column) < 28
    assert found.quantities[found.names.index("head.bias[0]")].num_draws[1] == int(
        np.median(column)
    )


@pytest.mark.thorough
def test_mean_field_vi_of_dependent_weights_has_a_wrong_spread_and_a_right_location():
    found = check(Conjugate(mean_field=True), offset=3.0)
    assert found.kind == "vsbc"
    assert {shapes(found)[name] for name in WEIGHTS} == {"too narrow"}
    weights = [own for own in found.quantities if own.name in WEIGHTS]
    assert all(own.symmetric for own in weights)
    assert all(own.spread > 3 for own in weights)
    assert "Location: " in found.conclusion


@pytest.mark.thorough
def test_mean_field_is_calibrated_where_weights_do_not_depend_on_each_other():
    found = check(Conjugate(mean_field=True))
    assert (found.kind, found.calibrated) == ("vsbc", True)
    assert "no bias detected" in found.conclusion


@pytest.mark.thorough
def test_ties_are_broken_evenly():
    model, data = line()
    pairs = [simulate(model, data.train, key_seed(0, "simulation", i)) for i in range(60)]
    truths = {y.numpy().tobytes(): theta for theta, y in pairs}

    class Frozen:
        """Every draw is the truth itself, found by the targets that it made."""

        def fit(self, model, dataset, *, seed):
            theta = truths[dataset.train.y.numpy().tobytes()]
            return SamplePosterior.from_draws(model, theta.expand(2, 6, 2), dataset.scaling)

    found = simulation_based_calibration(
        Frozen(), model, data, num_simulations=60, num_draws=9, seed=0
    )
    assert (found.num_draws == 9).all()
    assert set(np.unique(found.ranks)) == set(range(10))
    assert found.calibrated is True


def test_what_is_added_later_is_as_if_done_at_once():
    model, data = line()
    completed: list[SimulatedFit] = []
    keywords = {"seed": 3, "num_draws": 20}
    simulation_based_calibration(
        Conjugate(), model, data, num_simulations=4, on_simulation=completed.append, **keywords
    )
    again = [SimulatedFit.from_dict(one.to_dict()) for one in reversed(completed)]
    later = simulation_based_calibration(
        Conjugate(), model, data, num_simulations=6, done=again, **keywords
    )
    at_once = simulation_based_calibration(Conjugate(), model, data, num_simulations=6, **keywords)
    assert (later.values == at_once.values).all()
    assert later.simulations == tuple(range(6))
    assert later.conclusion == at_once.conclusion


def test_simulations_do_not_depend_on_their_order_or_on_global_generators():
    model, data = line()
    quantities = Quantities.choose(model, data)
    work = FitSimulation(
        method=Conjugate(), model=model, dataset=data, quantities=quantities, num_draws=9, seed=0
    )
    forwards = [work(i) for i in range(3)]
    before = torch.random.get_rng_state()
    torch.manual_seed(12345)
    assert [work(i) for i in (2, 1, 0)] == forwards[::-1]
    torch.random.set_rng_state(before)
    assert len({one.values for one in forwards}) == 3


@dataclass(frozen=True)
class Fails:
    """Fails where the targets have a positive mean, and otherwise reports that three draws
    diverged."""

    def fit(self, model, dataset, *, seed):
        if float(dataset.train.y.mean()) > 0:
            raise FitDiverged("the objective became NaN")
        exact = Conjugate().fit(model, dataset, seed=seed)
        stats = {"diverging": np.arange(40).reshape(2, 20) < 3}
        return SamplePosterior.from_draws(
            model, exact.draws().unflatten(0, (2, 20)), sample_stats=stats
        )


@pytest.mark.thorough
def test_fits_that_fail_are_counted_and_named_and_no_verdict_is_given_over_them():
    found = check(Fails(), number=40)
    assert 5 < len(found.failures) < 35
    assert set(found.failures.values()) == {"the objective became NaN"}
    assert len(found.simulations) + len(found.failures) == 40
    assert set(found.diverging.values()) == {3}
    assert found.calibrated is not True
    assert f"{len(found.failures)} of 40 simulations failed" in found.conclusion
    assert f"simulation {min(found.failures)}: the objective became NaN" in found.conclusion
    assert "draws diverged" in found.conclusion


def test_failures_alone_leave_nothing_to_tell():
    found = summarize_simulations([SimulatedFit(index=0, failure="no")], ("a", "b"))
    assert (found.calibrated, found.band, found.quantities) == (None, None, ())
    assert found.ranks.shape == (0, 2)
    assert "inconclusive: 0 simulations were ranked" in found.conclusion


def test_draws_that_are_not_finite_are_a_failure():
    class Infinite:
        def fit(self, model, dataset, *, seed):
            return SamplePosterior.from_draws(model, torch.full((1, 8, 2), torch.inf))

    assert "not finite" in check(Infinite(), number=2).failures[0]


def test_a_single_draw_is_refused():
    with pytest.raises(ConfigError, match="a single draw"):
        check(MAP(num_steps=2), number=2)


@pytest.mark.parametrize(
    ("name", "value"), [("number", 0), ("num_draws", 0), ("jobs", 0), ("level", 1.0)]
)
def test_numbers_that_mean_nothing_are_refused(name, value):
    with pytest.raises(ConfigError, match="expected"):
        check(Conjugate(), **{"number": 2, name: value})


@pytest.mark.thorough
def test_simulated_parameters_and_targets_have_their_moments(checked):
    model, data = line()
    pairs = [simulate(model, data.train, seed) for seed in range(600)]
    theta = torch.stack([own for own, _ in pairs])
    residuals = torch.stack([y - model.outputs(own, data.train.x)[:, 0] for own, y in pairs])
    # 4 standard errors of means and of standard deviations of 600 (and 600 x 20) normal numbers.
    assert (theta.mean(0).abs() < 4 / math.sqrt(600)).all()
    assert ((theta.std(0) - 1).abs() < 4 / math.sqrt(1200)).all()
    assert abs(float(residuals.mean())) < 4 * NOISE / math.sqrt(12000)
    assert abs(float(residuals.std()) / NOISE - 1) < 4 / math.sqrt(24000)
    again = simulate(model, data.train, 7)
    assert torch.equal(again[0], pairs[7][0])
    assert torch.equal(again[1], pairs[7][1])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_likelihood_makes_targets_of_its_own_kind(case, checked):
    model = case.model()
    part = Split(
        x=torch.randn(6, 2, dtype=torch.float64, generator=torch_generator(0)), y=case.targets(6)
    )
    theta, y = simulate(model, part, 0)
    assert y.dtype == part.y.dtype
    assert y.shape == part.y.shape
    quantities = Quantities(inputs=part.x[:2], weights=True)
    values = quantities.values(model, theta[None], dataclasses.replace(part, y=y))
    names = quantities.names(model)
    assert values.shape == (1, len(names))
    assert np.isfinite(values).all()
    of = dict(zip(names, values[0], strict=True))
    assert of["log prior"] == pytest.approx(float(model.log_prior(theta)))
    assert of["log likelihood"] == pytest.approx(
        float(model.log_likelihood(theta, part.x, y).sum())
    )
    assert (
        list(values[0, -model.num_net_parameters :]) == theta[: model.num_net_parameters].tolist()
    )
    norms = [value for name, value in of.items() if name.startswith("squared norm")]
    assert sum(norms) == pytest.approx(float(theta[: model.num_net_parameters].square().sum()))


def test_counts_that_overflow_are_named():
    net = build_network(MLPConfig(widths=()), input_shape=(1,), num_outputs=1).double()
    model = BayesianModel(net, Prior(scale=1e6), Poisson())
    part = Split(x=torch.ones(4, 1, dtype=torch.float64), y=torch.zeros(4, dtype=torch.float64))
    # Rates of nearly 0 and of infinity, a half of each.
    seed = next(seed for seed in range(10) if prior_draws(model, 1, 1, seed=seed).draws().sum() > 0)
    with pytest.raises(InvalidData, match=r"lower prior\.scale"):
        simulate(model, part, seed)


def test_units_that_can_be_permuted_have_quantities_that_do_not_know_their_numbers(checked):
    _, data = line()
    net = build_network(
        MLPConfig(widths=(4,), activation="tanh"), input_shape=(1,), num_outputs=3
    ).double()
    model = BayesianModel(net, Prior(), Categorical())
    quantities = Quantities.choose(model, data)
    names = quantities.names(model)
    assert "output 2 at input 1" in names
    assert "squared norm of layers.0" in names
    assert not any("[" in name for name in names)
    assert "head.bias[0]" in Quantities.choose(model, data, weights=True).names(model)
    part = dataclasses.replace(data.train, y=torch.arange(20) % 3)
    theta = model.initial(0)
    spec = permutation_spec(net, (1,))
    permuted = model.permute(theta, spec.random(0))
    assert not torch.equal(permuted, theta)
    np.testing.assert_allclose(
        quantities.values(model, permuted[None], part),
        quantities.values(model, theta[None], part),
        atol=1e-12,
    )


@pytest.mark.slow
def test_processes_give_the_same_bits():
    one, two = (check(Conjugate(), number=6, jobs=jobs) for jobs in (1, 2))
    assert (one.values == two.values).all()
    assert (one.ranks == two.ranks).all()


@pytest.mark.slow
def test_nuts_is_calibrated_on_a_line_with_unknown_noise():
    model, data = line(noise="learned")
    method = NUTS(num_chains=1, num_warmup=100, num_draws=150)
    found = simulation_based_calibration(method, model, data, num_simulations=60, seed=0, jobs=2)
    assert found.calibrated is True, found.conclusion
    assert not found.failures
    assert {"log_noise", "log likelihood", *WEIGHTS} <= set(found.names)


@pytest.mark.slow
def test_mean_field_vi_is_calibrated_if_its_family_contains_the_posterior_else_too_narrow():
    # 400 steps reach the optimum of two weights to a few per cent of a standard deviation.
    method = MeanFieldVI(num_steps=400, learning_rate=0.05)
    found = check(method, number=60, num_draws=50, jobs=2)
    assert (found.kind, found.calibrated) == ("vsbc", True), found.conclusion
    moved = check(method, offset=3.0, number=60, num_draws=50, jobs=2)
    assert {shapes(moved)[name] for name in WEIGHTS} == {"too narrow"}
    assert all(own.symmetric for own in moved.quantities if own.name in WEIGHTS)
