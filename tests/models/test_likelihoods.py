import math
from typing import get_args

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
    HeteroscedasticGaussian,
    Poisson,
    check_task,
    default_likelihood,
)
from tests.models.cases import CASES, normal

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


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_density_is_that_of_its_pyro_distribution(case) -> None:
    outputs, y = normal(2, 3, 5, case.num_outputs), case.targets(5)
    latents = {name: normal(2, 3, seed=4) for name in case.likelihood.latents}
    expected = case.likelihood.distribution(outputs, latents)
    assert expected.batch_shape == (2, 3, 5)
    observed = y.double() if isinstance(case.likelihood, Bernoulli) else y
    got = case.likelihood.log_prob(outputs, y, latents)
    torch.testing.assert_close(got, expected.log_prob(observed), rtol=1e-10, atol=1e-12)


NUMBERS = [name for name, case in CASES.items() if case.likelihood.task != "classification"]


@pytest.mark.parametrize("name", NUMBERS)
def test_mean_and_variance_are_those_of_the_pyro_distribution(name) -> None:
    case = CASES[name]
    outputs = normal(2, 3, 5, case.num_outputs)
    latents = {latent: normal(2, 3, seed=4) for latent in case.likelihood.latents}
    expected = case.likelihood.distribution(outputs, latents)
    torch.testing.assert_close(case.likelihood.mean(outputs, latents), expected.mean)
    torch.testing.assert_close(case.likelihood.variance(outputs, latents), expected.variance)


@pytest.mark.parametrize("name", ["gaussian-fixed", "gaussian-learned", "heteroscedastic"])
def test_gaussian_cdf_is_that_of_the_pyro_distribution(name) -> None:
    case = CASES[name]
    outputs, value = normal(2, 3, 5, case.num_outputs), normal(5, seed=6)
    latents = {latent: normal(2, 3, seed=4) for latent in case.likelihood.latents}
    expected = case.likelihood.distribution(outputs, latents).cdf(value)
    torch.testing.assert_close(
        case.likelihood.cdf(outputs, value, latents), expected, rtol=1e-9, atol=1e-14
    )


def test_poisson_cdf_is_scipys_below_zero_between_counts_and_at_them() -> None:
    value = torch.tensor([-3.0, -0.1, 0.0, 0.9, 1.0, 2.5, 40.0], dtype=torch.float64)
    outputs = normal(4, len(value), 1)
    expected = stats.poisson.cdf(value.numpy(), outputs.squeeze(-1).exp().numpy())
    got = Poisson().cdf(outputs, value, {})
    torch.testing.assert_close(got, torch.from_numpy(expected), rtol=1e-10, atol=1e-14)


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
    assert Poisson().num_net_outputs(1) == 1


def test_bernoulli_refuses_three_classes_and_says_what_to_use() -> None:
    with pytest.raises(
        ConfigError, match=r"needs 2 classes, the data have 3.*likelihood\.name=categorical"
    ):
        Bernoulli().num_net_outputs(3)


TASKS = {"classification": Categorical, "regression": Gaussian, "count": Poisson}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_likelihood_fits_its_own_task_only(case) -> None:
    tasks = {
        "categorical": "classification",
        "bernoulli": "classification",
        "ordinal": "classification",
        "gaussian": "regression",
        "heteroscedastic_gaussian": "regression",
        "student_t": "regression",
        "gaussian_mixture": "regression",
        "poisson": "count",
        "negative_binomial": "count",
        "zero_inflated_poisson": "count",
        "zero_inflated_negative_binomial": "count",
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
    assert all(
        not kind().latents for kind in (Categorical, Bernoulli, HeteroscedasticGaussian, Poisson)
    )
