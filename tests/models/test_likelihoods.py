import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from bnn_symm.errors import ConfigError
from bnn_symm.models import (
    AnyLikelihood,
    Bernoulli,
    Categorical,
    Gaussian,
    GaussianMixture,
    HeteroscedasticGaussian,
    NegativeBinomial,
    Ordinal,
    Poisson,
    StudentT,
    Weibull,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
    check_task,
    default_likelihood,
    resolve_likelihood,
)
from bnn_symm.models.likelihoods import condition
from tests.models.cases import CASES, normal
from tests.models.reference import ordinal_probabilities, reference

OUTPUT = st.floats(-8, 8)
EXAMPLES = settings(max_examples=40, deadline=None)


def log_prob(likelihood, outputs: list[float], y: float | int, **latents: float) -> float:
    """The log density of one point, reached through a batch of two draws."""
    tensor = torch.tensor([[outputs], [[value + 1.0 for value in outputs]]], dtype=torch.float64)
    values = {
        name: torch.tensor([value, value], dtype=torch.float64) for name, value in latents.items()
    }
    target = torch.tensor([y]) if isinstance(y, int) else torch.tensor([y], dtype=torch.float64)
    result = likelihood.log_prob(tensor, target, values)
    assert result.shape == (2, 1)
    return float(result[0, 0])


@EXAMPLES
@given(outputs=st.lists(OUTPUT, min_size=2, max_size=5), data=st.data())
def test_categorical_is_log_softmax(outputs, data) -> None:
    y = data.draw(st.integers(0, len(outputs) - 1))
    expected = stats.multinomial.logpmf(
        [int(i == y) for i in range(len(outputs))], n=1, p=special.softmax(outputs)
    )
    assert log_prob(Categorical(), outputs, y) == pytest.approx(
        float(expected), rel=1e-10, abs=1e-10
    )


@EXAMPLES
@given(logit=OUTPUT, y=st.integers(0, 1))
def test_bernoulli_is_scipys_at_the_sigmoid_of_the_logit(logit, y) -> None:
    expected = stats.bernoulli.logpmf(y, special.expit(logit))
    assert log_prob(Bernoulli(), [logit], y) == pytest.approx(float(expected), rel=1e-9, abs=1e-12)


@EXAMPLES
@given(mean=OUTPUT, y=OUTPUT, noise=st.floats(0.01, 5))
def test_gaussian_with_fixed_and_with_learned_noise_is_scipys_normal(mean, y, noise) -> None:
    expected = pytest.approx(float(stats.norm.logpdf(y, mean, noise)), rel=1e-10, abs=1e-10)
    assert log_prob(Gaussian(noise=noise), [mean], y) == expected
    assert log_prob(Gaussian(), [mean], y, log_noise=math.log(noise)) == expected


@EXAMPLES
@given(mean=OUTPUT, log_sd=st.floats(-4, 4), y=OUTPUT)
def test_heteroscedastic_gaussian_takes_its_noise_from_the_second_output(mean, log_sd, y) -> None:
    expected = stats.norm.logpdf(y, mean, math.exp(log_sd))
    got = log_prob(HeteroscedasticGaussian(), [mean, log_sd], y)
    assert got == pytest.approx(float(expected), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(("log_sd", "bounded"), [(500.0, 10.0), (-500.0, -10.0)])
def test_heteroscedastic_noise_is_bounded_where_exp_would_overflow(log_sd, bounded) -> None:
    got = log_prob(HeteroscedasticGaussian(), [0.0, log_sd], 1.0)
    assert got == pytest.approx(float(stats.norm.logpdf(1.0, 0.0, math.exp(bounded))), rel=1e-10)


@EXAMPLES
@given(log_rate=st.floats(-6, 6), y=st.integers(0, 60))
def test_poisson_is_scipys_at_the_exponential_of_the_output(log_rate, y) -> None:
    expected = stats.poisson.logpmf(y, math.exp(log_rate))
    assert log_prob(Poisson(), [log_rate], float(y)) == pytest.approx(
        float(expected), rel=1e-10, abs=1e-10
    )


NUMBERS = [name for name, case in CASES.items() if case.likelihood.task != "classification"]


VALUES = torch.tensor([-3.0, -0.1, 0.0, 0.9, 1.0, 2.5, 40.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "name", [name for name in NUMBERS if not hasattr(CASES[name].likelihood, "marginal")]
)
def test_densities_and_distribution_functions_are_scipys(name) -> None:
    likelihood = CASES[name].likelihood
    outputs = normal(4, len(VALUES), CASES[name].num_outputs)
    latents = {latent: normal(4, seed=4) for latent in likelihood.latents}
    expected = reference(likelihood, outputs, latents)
    torch.testing.assert_close(
        likelihood.cdf(outputs, VALUES, latents).numpy(),
        expected.cdf(VALUES.numpy()),
        rtol=1e-9,
        atol=1e-13,
    )
    y = VALUES.clamp(min=0).floor() if likelihood.task == "count" else VALUES
    density = expected.logpmf if likelihood.task == "count" else expected.logpdf
    if likelihood.task == "survival":
        y = VALUES.abs() + 0.1
        survival = likelihood.log_prob(outputs, torch.stack([y, 0 * y], 1), latents)
        np.testing.assert_allclose(survival.numpy(), expected.logsf(y.numpy()), rtol=1e-8)
        levels = [likelihood.quantile(outputs, level, latents).numpy() for level in (0.1, 0.5)]
        np.testing.assert_allclose(levels, [expected.ppf(level) for level in (0.1, 0.5)])
    second = None if condition(likelihood) is None else torch.ones_like(y)
    targets = y if second is None else torch.stack([y, second], 1)
    np.testing.assert_allclose(
        likelihood.log_prob(outputs, targets, latents).numpy(), density(y.numpy()), rtol=1e-8
    )


EXPOSED = [name for name, case in CASES.items() if condition(case.likelihood) == "exposure"]


@pytest.mark.parametrize("name", EXPOSED)
def test_an_exposure_multiplies_the_mean_of_counts(name) -> None:
    likelihood = CASES[name].likelihood
    outputs, y = normal(4, 6, CASES[name].num_outputs), CASES[name].targets(6)
    latents = {latent: normal(4, seed=4) for latent in likelihood.latents}
    shifted = outputs.clone()
    shifted[..., 0] += y[:, 1].log()
    expected = reference(likelihood, shifted, latents)
    np.testing.assert_allclose(
        likelihood.log_prob(outputs, y, latents), expected.logpmf(y[:, 0].numpy()), rtol=1e-8
    )


def test_a_poisson_count_with_an_exposure_is_that_of_as_many_points_pooled() -> None:
    # The log likelihoods of counts that are pooled differ by a constant.
    counts = torch.tensor([2.0, 0.0, 3.0], dtype=torch.float64)
    pooled = torch.stack([counts.sum(), torch.tensor(3.0)])[None].double()
    outputs = torch.tensor([0.3, -0.5], dtype=torch.float64)[:, None, None]
    single = Poisson().log_prob(outputs.expand(2, 3, 1), counts, {}).sum(-1)
    together = Poisson(exposure=True).log_prob(outputs, pooled, {})[:, 0]
    torch.testing.assert_close(single.diff(), together.diff())


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["poisson-exposure", "zero-inflated-exposure", "lognormal-fixed"])
def test_densities_of_two_columns_are_one_graph_for_the_compiler(name) -> None:
    likelihood = CASES[name].likelihood
    outputs, y = normal(6, CASES[name].num_outputs), CASES[name].targets(6)
    latents = {latent: torch.tensor(0.1).double() for latent in likelihood.latents}

    def density(outputs, y):
        return likelihood.log_prob(outputs, y, latents)

    compiled = torch.compile(density, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(outputs, y), density(outputs, y))


@pytest.mark.parametrize("kind", ["weibull-learned", "lognormal-learned"])
@pytest.mark.parametrize("event", [0.0, 1.0])
def test_gradients_of_extreme_times_are_finite(kind, event) -> None:
    likelihood = CASES[kind].likelihood
    outputs = torch.tensor([[0.0], [3.0], [-3.0]], requires_grad=True)
    latents = {name: torch.tensor(0.5, requires_grad=True) for name in likelihood.latents}
    times = torch.tensor([1e-6, 40.0, 20.0])
    y = torch.stack([times, torch.full((3,), event)], dim=1)
    value = likelihood.log_prob(outputs, y, latents).sum()
    for gradient in torch.autograd.grad(value, [outputs, *latents.values()]):
        assert torch.isfinite(gradient).all()


def test_ordinal_probabilities_are_differences_of_logistic_distribution_functions() -> None:
    likelihood = CASES["ordinal"].likelihood
    outputs = 3 * normal(5, 6, 1)
    latents = {latent: normal(5, seed=k) for k, latent in enumerate(likelihood.latents)}
    assert list(latents) == ["log_gap_1", "log_gap_2"]  # of four classes
    np.testing.assert_allclose(
        likelihood.probabilities(outputs, latents).numpy(),
        ordinal_probabilities(likelihood, outputs, latents),
        rtol=1e-9,
    )


def test_extreme_scores_of_ordered_classes_keep_their_digits() -> None:
    outputs = torch.tensor([[60.0], [-60.0]], dtype=torch.float64).requires_grad_()
    latents = {name: torch.tensor(0.0, dtype=torch.float64) for name in ("log_gap_1", "log_gap_2")}
    # Cutpoints -1, 0 and 1. P(y = 1) = sigmoid(-60) - sigmoid(-61) = exp(-60) (1 - exp(-1)).
    value = CASES["ordinal"].likelihood.log_prob(outputs, torch.tensor([1, 2]), latents)
    inner = -60 + math.log(1 - math.exp(-1))
    assert value.tolist() == pytest.approx([inner, inner], rel=1e-12)
    (slope,) = torch.autograd.grad(value.sum(), outputs)
    assert slope.flatten().tolist() == pytest.approx([-1.0, 1.0], rel=1e-9)


@pytest.mark.parametrize("name", ["negative-binomial-learned", "zero-inflated-learned"])
def test_a_small_dispersion_is_poisson_in_float32_too(name) -> None:
    case = CASES[name]
    outputs, y = normal(3, 20, case.num_outputs), case.targets(20)
    poisson = Poisson() if case.num_outputs == 1 else ZeroInflatedPoisson()
    expected = poisson.log_prob(outputs, y, {})
    latents = {"log_dispersion": torch.full((3,), math.log(1e-6))}
    got = case.likelihood.log_prob(outputs.float(), y.float(), latents)
    torch.testing.assert_close(got.double(), expected, rtol=2e-5, atol=2e-5)


def test_many_degrees_of_freedom_are_gaussian_in_float32_too() -> None:
    outputs, y = normal(3, 20, 1), normal(20, seed=1)
    expected = Gaussian(noise=0.5).log_prob(outputs, y, {})
    student = StudentT(noise=0.5, degrees_of_freedom=1e7)
    got = student.log_prob(outputs.float(), y.float(), {})
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("excess", [1e-4, 0.3, 3.0, 1e5])
def test_the_cdf_of_many_points_equals_that_of_scipy(excess) -> None:
    value = torch.linspace(-40, 40, 5000, dtype=torch.float64).sinh()
    outputs = torch.zeros(2, len(value), 1, dtype=torch.float64)
    student = StudentT()
    latents = {
        "log_noise": torch.tensor([0.0, -3.0]).double(),
        "log_excess": torch.tensor(excess).log(),
    }
    latents["log_excess"] = latents["log_excess"].expand(2).double()
    found = student.cdf(outputs, value, latents)
    df = 2 + latents["log_excess"].exp().numpy()[:, None]
    scale = np.exp([[0.0], [-3.0]])
    expected = special.stdtr(df, value.numpy() / scale)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "ordinal"])
def test_class_probabilities_are_the_exponential_of_the_density_of_each_class(name) -> None:
    case = CASES[name]
    outputs = 5 * normal(2, 3, 6, case.num_outputs)
    latents = {latent: normal(2, 3, seed=4) for latent in case.likelihood.latents}
    probabilities = case.likelihood.probabilities(outputs, latents)
    for label in range(probabilities.shape[-1]):
        expected = case.likelihood.log_prob(outputs, torch.full((6,), label), latents).exp()
        torch.testing.assert_close(probabilities[..., label], expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 3, 6).double())


def test_extreme_logits_stay_finite() -> None:
    outputs = torch.tensor([[800.0], [-800.0]], dtype=torch.float64)
    got = Bernoulli().log_prob(outputs, torch.tensor([0, 1]), {})
    assert got.tolist() == [-800.0, -800.0]
    classes = torch.tensor([[800.0, 0.0]], dtype=torch.float64)
    assert Categorical().log_prob(classes, torch.tensor([1]), {}).tolist() == [-800.0]


def test_number_of_network_outputs() -> None:
    assert Categorical().num_net_outputs(7) == 7
    assert Bernoulli().num_net_outputs(2) == 1
    assert Gaussian().num_net_outputs(1) == 1
    assert HeteroscedasticGaussian().num_net_outputs(1) == 2
    assert StudentT().num_net_outputs(1) == 1
    assert GaussianMixture(num_components=4).num_net_outputs(1) == 12
    assert Ordinal().num_net_outputs(5) == 1
    assert Poisson().num_net_outputs(1) == 1
    assert NegativeBinomial().num_net_outputs(1) == 1
    assert ZeroInflatedPoisson().num_net_outputs(1) == 2
    assert ZeroInflatedNegativeBinomial().num_net_outputs(1) == 2


def test_bernoulli_refuses_three_classes_and_says_what_to_use() -> None:
    with pytest.raises(
        ConfigError, match=r"needs 2 classes, the data have 3.*likelihood\.name=categorical"
    ):
        Bernoulli().num_net_outputs(3)


def test_ordinal_refuses_two_classes_other_numbers_of_them_and_an_unknown_number() -> None:
    with pytest.raises(ConfigError, match=r"3 or more classes, the data have 2.*bernoulli"):
        Ordinal().num_net_outputs(2)
    with pytest.raises(ConfigError, match=r"num_classes is 4, but the data have 5"):
        Ordinal(num_classes=4).num_net_outputs(5)
    with pytest.raises(ConfigError, match=r"write Ordinal\(num_classes=K\)"):
        _ = Ordinal().latents
    assert resolve_likelihood(Ordinal(), "classification", 5) == Ordinal(num_classes=5)


@pytest.mark.parametrize("value", [2.0, 1.0, -3.0])
def test_an_infinite_variance_is_refused(value) -> None:
    with pytest.raises(ConfigError, match=r"degrees_of_freedom.*greater than 2"):
        StudentT(degrees_of_freedom=value)


def test_canonical_outputs_of_a_mixture_do_not_depend_on_the_numbering_of_components() -> None:
    likelihood, outputs = CASES["mixture"].likelihood, normal(4, 5, 9)
    renumbered = outputs.unflatten(-1, (3, 3))[..., [2, 0, 1]]
    renumbered[..., 2, :] += 1.5  # a common shift of the logits
    renumbered = renumbered.flatten(-2)
    y = normal(5, seed=2)
    torch.testing.assert_close(
        likelihood.log_prob(outputs, y, {}), likelihood.log_prob(renumbered, y, {})
    )
    canonical = likelihood.canonical_outputs(outputs)
    torch.testing.assert_close(canonical, likelihood.canonical_outputs(renumbered))
    torch.testing.assert_close(
        likelihood.log_prob(canonical, y, {}), likelihood.log_prob(outputs, y, {})
    )


TASKS = {
    "classification": Categorical,
    "regression": Gaussian,
    "count": Poisson,
    "survival": Weibull,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_likelihood_fits_its_own_task_only(case) -> None:
    tasks = {
        "categorical": "classification",
        "bernoulli": "classification",
        "ordinal": "classification",
        "gaussian": "regression",
        "heteroscedastic_gaussian": "regression",
        "multivariate_gaussian": "regression",
        "student_t": "regression",
        "heteroscedastic_student_t": "regression",
        "gaussian_mixture": "regression",
        "poisson": "count",
        "negative_binomial": "count",
        "zero_inflated_poisson": "count",
        "zero_inflated_negative_binomial": "count",
        "weibull": "survival",
        "lognormal": "survival",
    }
    own = tasks[case.likelihood.name]
    for task, default in TASKS.items():
        if task == own:
            check_task(case.likelihood, task)
            continue
        with pytest.raises(ConfigError) as caught:
            check_task(case.likelihood, task)
        message = str(caught.value)
        assert message.startswith(
            f"likelihood {case.likelihood.name} is for {own}, but the data are {task}"
        )
        assert f"set likelihood.name={default().name}" in message
        assert f"data.task={own}" in message


def test_every_likelihood_is_a_case() -> None:
    kinds = get_args(get_args(AnyLikelihood)[0])
    assert {type(case.likelihood) for case in CASES.values()} == set(kinds)


def test_default_likelihoods_fit_their_tasks() -> None:
    for task, kind in TASKS.items():
        assert default_likelihood(task) == kind()
        check_task(default_likelihood(task), task)
    assert list(default_likelihood("regression").latents) == ["log_noise"]


def test_only_learned_noise_is_a_latent_variable() -> None:
    assert Gaussian(log_noise_mean=0.2, log_noise_sd=0.4).latents == {"log_noise": (0.2, 0.4)}
    assert Gaussian(noise=0.1).latents == {}
    assert StudentT(noise=0.1, degrees_of_freedom=4.0).latents == {}
    assert list(StudentT().latents) == ["log_noise", "log_excess"]
    assert ZeroInflatedNegativeBinomial(dispersion=0.3).latents == {}
    assert all(
        not kind().latents for kind in (Categorical, Bernoulli, HeteroscedasticGaussian, Poisson)
    )


def test_the_information_of_a_dispersion_does_not_depend_on_other_points() -> None:
    likelihood = NegativeBinomial()
    latents = {"log_dispersion": torch.tensor(0.0, dtype=torch.float64)}
    means = torch.tensor([5.0, 9_900.0, 1e6], dtype=torch.float64)
    together = likelihood.information(means.log()[:, None], latents)
    for i, mean in enumerate(means):
        alone = likelihood.information(mean.log()[None, None], latents)
        torch.testing.assert_close(together[i], alone[0], rtol=1e-12, atol=0.0)
    # At size 1, P(y > k) = (mean / (1 + mean))^(k + 1).
    for i, mean in enumerate(means.numpy()):
        counts = np.arange(int(60 * mean) + 100)
        total = ((mean / (1 + mean)) ** (counts + 1) / (1 + counts) ** 2).sum()
        assert float(together[i, 1, 1]) == pytest.approx(total - mean / (1 + mean), rel=1e-4)
