import math

import numpy as np
import pytest
import torch
from scipy import optimize, special

from bnn_symm.errors import ConfigError
from bnn_symm.models import Bernoulli, Categorical, Ordinal
from bnn_symm.models.likelihoods import num_columns
from bnn_symm.posteriors import Predictive
from tests.models.cases import CASES, normal
from tests.models.reference import ordinal_probabilities, reference

# More draws than are handled at once, and no multiple of it.
CHAINS, DRAWS, POINTS = 2, 37, 4
LOCATION, SCALE = 50.0, 7.0
ONE_COLUMN = [name for name, case in CASES.items() if num_columns(case.likelihood) == 1]
SEVERAL = [name for name, case in CASES.items() if hasattr(case.likelihood, "marginal")]
REGRESSION = [name for name in ONE_COLUMN if CASES[name].likelihood.task == "regression"]
COUNTS = [name for name, case in CASES.items() if case.likelihood.task == "count"]
CLASSES = ["categorical", "bernoulli", "ordinal"]


def predictive(name: str, **keywords) -> Predictive:
    case = CASES[name]
    outputs = 0.7 * normal(CHAINS, DRAWS, POINTS, case.num_outputs, seed=1) + normal(
        POINTS, case.num_outputs
    )
    latents = {
        latent: 0.5 * normal(CHAINS, DRAWS, seed=2) - 1 for latent in case.likelihood.latents
    }
    if name in REGRESSION:
        keywords = {"location": LOCATION, "scale": SCALE, **keywords}
    return Predictive(outputs=outputs, latents=latents, likelihood=case.likelihood, **keywords)


def components(p: Predictive):
    """scipy's distributions (draw, point) of the target in its own units."""
    latents = {name: value.flatten() for name, value in p.latents.items()}
    return reference(p.likelihood, p.outputs.flatten(0, 1), latents, p.location, p.scale)


def class_probabilities(p: Predictive) -> np.ndarray:
    """(draw, point, class)."""
    outputs = p.outputs.flatten(0, 1).numpy()
    if isinstance(p.likelihood, Ordinal):
        latents = {name: value.flatten() for name, value in p.latents.items()}
        return ordinal_probabilities(p.likelihood, p.outputs.flatten(0, 1), latents)
    if isinstance(p.likelihood, Categorical):
        return special.softmax(outputs, axis=-1)
    return np.concatenate([1 - special.expit(outputs), special.expit(outputs)], axis=-1)


def log_densities(p: Predictive, y: torch.Tensor) -> np.ndarray:
    """(draw, point), brute force."""
    if p.is_classification:
        return np.log(class_probabilities(p)[:, np.arange(POINTS), y.numpy()])
    own = p.location + p.scale * y.numpy()
    mixture = components(p)
    return mixture.logpmf(own) if p.likelihood.task == "count" else mixture.logpdf(own)


@pytest.mark.parametrize("name", ONE_COLUMN)
def test_log_prob_is_the_log_of_the_mean_density(name) -> None:
    p, y = predictive(name), CASES[name].targets(POINTS)
    expected = log_densities(p, y)
    np.testing.assert_allclose(
        p.draw_log_prob(y).flatten(0, 1).numpy(), expected, rtol=1e-10, atol=1e-12
    )
    mixture = special.logsumexp(expected, axis=0) - math.log(CHAINS * DRAWS)
    np.testing.assert_allclose(p.log_prob(y).numpy(), mixture, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        p.expected_log_prob(y).numpy(), expected.mean(0), rtol=1e-10, atol=1e-12
    )
    assert bool((p.expected_log_prob(y) < p.log_prob(y)).all())


@pytest.mark.parametrize("name", CASES)
def test_expected_log_prob_equals_log_prob_when_the_draws_agree(name) -> None:
    p, y = predictive(name), CASES[name].targets(POINTS)
    agreeing = Predictive(
        outputs=p.outputs[:1, :1].expand_as(p.outputs),
        latents={key: value[:1, :1].expand_as(value) for key, value in p.latents.items()},
        likelihood=p.likelihood,
    )
    torch.testing.assert_close(
        agreeing.expected_log_prob(y), agreeing.log_prob(y), rtol=1e-10, atol=1e-12
    )


# Student's tails, and the narrow components of a mixture, need other grids.
@pytest.mark.parametrize("name", ["gaussian-fixed", "gaussian-learned", "heteroscedastic"])
def test_density_in_own_units_integrates_to_one(name) -> None:
    # One point, a grid of targets: the trapezium rule on a smooth density that ends at 0 is exact
    # far beyond 1e-8.
    p = predictive(name)
    one = Predictive(
        outputs=p.outputs[:, :, :1].expand(-1, -1, 4001, -1),
        latents=p.latents,
        likelihood=p.likelihood,
        location=LOCATION,
        scale=SCALE,
    )
    sd, mean = float(p.standard_deviation()[0]), float(p.mean()[0])
    own = torch.linspace(mean - 20 * sd, mean + 20 * sd, 4001, dtype=torch.float64)
    density = one.log_prob((own - LOCATION) / SCALE).exp()
    assert float(torch.trapezoid(density, own)) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("name", CLASSES)
def test_class_quantities_are_those_of_the_definition(name) -> None:
    p = predictive(name)
    each = class_probabilities(p)
    mean = each.mean(0)
    entropy = -(mean * np.log(mean)).sum(-1)
    expected_entropy = -(each * np.log(each)).sum(-1).mean(0)
    np.testing.assert_allclose(p.probabilities().numpy(), mean, rtol=1e-10)
    np.testing.assert_allclose(p.entropy().numpy(), entropy, rtol=1e-10)
    np.testing.assert_allclose(p.expected_entropy().numpy(), expected_entropy, rtol=1e-10)
    np.testing.assert_allclose(
        p.mutual_information().numpy(), entropy - expected_entropy, rtol=1e-8
    )
    assert bool((p.mutual_information() > 0).all())
    assert bool((p.entropy() < math.log(mean.shape[-1])).all())


def test_mutual_information_tells_disagreement_from_noise() -> None:
    opposed = torch.tensor([[[[40.0]]], [[[-40.0]]]], dtype=torch.float64)
    p = Predictive(outputs=opposed, latents={}, likelihood=Bernoulli())
    assert float(p.mutual_information()) == pytest.approx(math.log(2), abs=1e-12)
    assert float(p.expected_entropy()) == pytest.approx(0.0, abs=1e-12)
    certain = Predictive(outputs=0 * opposed, latents={}, likelihood=Bernoulli())
    assert float(certain.mutual_information()) == 0.0
    assert float(certain.entropy()) == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize("name", [*REGRESSION, *COUNTS])
def test_mean_and_spread_obey_the_law_of_total_variance(name) -> None:
    p = predictive(name)
    each = components(p)
    means, variances = each.mean(), each.var()
    np.testing.assert_allclose(p.draw_mean().flatten(0, 1).numpy(), means, rtol=1e-12)
    np.testing.assert_allclose(p.mean().numpy(), means.mean(0), rtol=1e-12)
    np.testing.assert_allclose(p.epistemic_sd().numpy(), means.std(0), rtol=1e-10)
    aleatoric = np.sqrt(np.broadcast_to(variances, means.shape).mean(0))
    np.testing.assert_allclose(p.aleatoric_sd().numpy(), aleatoric, rtol=1e-10)
    total = (variances + means**2).mean(0) - means.mean(0) ** 2  # E[y^2] - E[y]^2 of the mixture
    np.testing.assert_allclose(p.standard_deviation().numpy(), np.sqrt(total), rtol=1e-8)


@pytest.mark.parametrize("name", SEVERAL)
def test_the_distributions_of_columns_are_the_marginals_of_all_together(name) -> None:
    p = predictive(name, location=LOCATION, scale=SCALE)
    y = CASES[name].targets(POINTS)
    joint = p.likelihood.distribution(p.outputs, p.latents)
    draws = p.draw_log_prob(y)
    expected = joint.log_prob(y) - len(p.columns) * math.log(SCALE)
    torch.testing.assert_close(draws, expected, rtol=1e-9, atol=1e-12)
    sd = SCALE * joint.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    for number, own in enumerate(p.columns):
        torch.testing.assert_close(own.draw_mean(), LOCATION + SCALE * p.outputs[..., number])
        aleatoric = sd[..., number].square().mean((0, 1)).sqrt().expand(POINTS)
        torch.testing.assert_close(own.aleatoric_sd(), aleatoric)
        torch.testing.assert_close(own.in_own_units(y[:, number]), p.in_own_units(y)[:, number])
    with pytest.raises(ConfigError, match="target columns"):
        p.mean()


def test_a_large_location_does_not_swallow_the_spread_in_float32() -> None:
    p = predictive("gaussian-fixed")
    far = Predictive(
        outputs=p.outputs.float(), latents={}, likelihood=p.likelihood, location=1e9, scale=SCALE
    )
    torch.testing.assert_close(far.epistemic_sd(), p.epistemic_sd(), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(far.mean() - 1e9, p.mean() - LOCATION, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*REGRESSION, *COUNTS])
def test_cdf_is_the_mean_of_the_draws_distribution_functions(name) -> None:
    p = predictive(name)
    for value in p.mean() + p.standard_deviation() * torch.tensor([[-4.0], [-0.5], [0.0], [2.0]]):
        expected = components(p).cdf(value.numpy()).mean(0)
        np.testing.assert_allclose(p.cdf(value).numpy(), expected, rtol=1e-9, atol=1e-14)


LEVELS = (1e-4, 0.025, 0.5, 0.9, 0.9999)


@pytest.mark.parametrize("name", REGRESSION)
def test_quantiles_of_numbers_are_the_roots_of_the_distribution_function(name) -> None:
    p = predictive(name)
    each, quantiles = components(p), p.quantiles(LEVELS)
    assert quantiles.shape == (len(LEVELS), POINTS)
    low = float((p.mean() - 200 * p.standard_deviation()).min())
    high = float((p.mean() + 200 * p.standard_deviation()).max()) + 1e3
    for level, row in zip(LEVELS, quantiles, strict=True):
        for point in range(POINTS):

            def excess(value: float, level: float = level, point: int = point) -> float:
                return float(each.cdf(value).mean(0)[point]) - level

            expected = optimize.brentq(excess, low, high, xtol=1e-9)
            sd = float(p.standard_deviation()[point])
            assert float(row[point]) == pytest.approx(expected, abs=1e-6 * sd)


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, pytest.param(torch.float64, marks=pytest.mark.thorough)],
    ids=str,
)
@pytest.mark.parametrize("shift", [pytest.param(-3.0, marks=pytest.mark.thorough), 0.0, 2.0])
@pytest.mark.parametrize("name", COUNTS)
def test_quantiles_of_counts_are_the_exact_integers(name, shift, dtype) -> None:
    p = predictive(name)
    outputs = p.outputs.clone()
    outputs[..., 0] += shift
    latents = {key: value.to(dtype) for key, value in p.latents.items()}
    p = Predictive(outputs=outputs.to(dtype), latents=latents, likelihood=p.likelihood)
    wide = {key: value.flatten().double() for key, value in p.latents.items()}
    each = reference(p.likelihood, p.outputs.flatten(0, 1).double(), wide)
    counts = np.arange(1000)
    cdf = np.stack([each.cdf(count).mean(0) for count in counts])
    levels = (0.002, 0.025, 0.3, 0.51, 0.77, 0.975, 0.99)
    # A level that a count meets to within float32's rounding could fall on either side; none of
    # these does.
    assert min(np.abs(cdf - level).min() for level in levels) > 1e-6
    for level, row in zip(levels, p.quantiles(levels), strict=True):
        np.testing.assert_array_equal(row.numpy(), (cdf >= level).argmax(0))


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_levels_outside_the_open_interval_are_refused(level) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        predictive("gaussian-fixed").quantiles([0.5, level])


@pytest.mark.parametrize("name", CASES)
def test_quantities_of_the_other_kind_of_target_are_type_errors(name) -> None:
    p = predictive(name)
    value = torch.zeros(POINTS, dtype=torch.float64)
    if p.is_classification:
        wrong = [
            p.mean,
            p.draw_mean,
            p.epistemic_sd,
            p.aleatoric_sd,
            p.standard_deviation,
            lambda: p.cdf(value),
            lambda: p.quantiles([0.5]),
        ]
        message = "has no mean; use probabilities"
    else:
        wrong = [p.probabilities, p.entropy, p.expected_entropy, p.mutual_information]
        message = "has no class probabilities; use mean"
    for call in wrong:
        with pytest.raises(ConfigError, match=f"a {p.likelihood.name} likelihood {message}"):
            call()


def many_copies(name: str, copies: int) -> Predictive:
    """Every draw repeated, so that samples are many at few different draws."""
    p = predictive(name)
    return Predictive(
        outputs=p.outputs[:, :3].repeat_interleave(copies, dim=1),
        latents={
            key: value[:, :3].repeat_interleave(copies, dim=1) for key, value in p.latents.items()
        },
        likelihood=p.likelihood,
        location=p.location,
        scale=p.scale,
    )


@pytest.mark.parametrize("name", [*REGRESSION, *COUNTS])
def test_sampled_targets_have_the_moments_of_every_draw(name) -> None:
    copies = 4000
    p = many_copies(name, copies)
    y = p.sample(seed=1)
    assert y.shape == (CHAINS, 3 * copies, POINTS)
    groups = y.unflatten(1, (3, copies)).double()
    each = components(p)
    mean = torch.from_numpy(each.mean()).unflatten(0, (CHAINS, 3, copies))[:, :, 0]
    variance = torch.from_numpy(np.broadcast_to(each.var(), each.mean().shape).copy())
    variance = variance.unflatten(0, (CHAINS, 3, copies))[:, :, 0]
    # The largest of 24 deviations is below 4.5 standard errors; the fourth moment of a Poisson is 3
    # v^2 + v.
    assert float(((groups.mean(2) - mean).abs() / (variance / copies).sqrt()).max()) < 4.5
    below = torch.from_numpy(each.cdf(p.draw_mean().flatten(0, 1).numpy()))
    below = below.unflatten(0, (CHAINS, 3, copies))[:, :, 0]
    error = ((groups <= mean.unsqueeze(2)).double().mean(2) - below).abs()
    assert float((error / (below * (1 - below) / copies).sqrt()).max()) < 4.5
    if "student" in name or not name.startswith(("gaussian", "hetero", "poisson")):
        return  # their fourth moment is large or infinite
    fourth = 2 * variance**2 + (variance if name == "poisson" else 0.0)
    assert float(((groups.var(2) - variance).abs() / (fourth / copies).sqrt()).max()) < 4.5


@pytest.mark.parametrize("name", CLASSES)
def test_sampled_classes_have_the_frequencies_of_every_draw(name) -> None:
    copies = 4000
    p = many_copies(name, copies)
    y = p.sample(seed=1)
    assert y.dtype == torch.int64  # class indices
    groups = y.unflatten(1, (3, copies))
    probabilities = torch.from_numpy(class_probabilities(p)).unflatten(0, (CHAINS, 3, copies))[
        :, :, 0
    ]
    for label in range(probabilities.shape[-1]):
        expected = probabilities[..., label]
        error = ((groups == label).double().mean(2) - expected).abs() / (
            expected * (1 - expected) / copies
        ).sqrt()
        assert float(error.max()) < 4.5  # the largest of 24


@pytest.mark.parametrize("name", CASES)
def test_samples_repeat_with_their_seed_and_leave_the_global_generator_alone(name) -> None:
    p = predictive(name)
    before = torch.get_rng_state()
    y = p.sample(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(y, p.sample(seed=1))
    assert not torch.equal(y, p.sample(seed=2))
