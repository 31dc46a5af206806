import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from sklearn import metrics

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Scaling, Split
from bnn_symm.diagnostics import crps, expected_calibration_error, rps, score
from bnn_symm.diagnostics.measures import FURTHER_SCORES, SCORES
from bnn_symm.diagnostics.scores.score_intervals import scores_with_intervals
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Ordinal, Poisson, Prior
from bnn_symm.posteriors import Predictive, SamplePosterior
from bnn_symm.randomness import torch_generator
from tests.models.cases import CASES
from tests.models.reference import reference


def randn(*shape, key="scores"):
    return torch.randn(*shape, generator=torch_generator(0, key), dtype=torch.float64)


def posterior_of(likelihood, num_outputs, scaling=None):
    net = build_network(MLPConfig(widths=()), input_shape=(2,), num_outputs=num_outputs).double()
    model = BayesianModel(net, Prior(), likelihood)
    return SamplePosterior.from_draws(model, randn(2, 5, model.num_parameters), scaling)


def test_class_scores_equal_scikit_learns():
    posterior = posterior_of(Categorical(), 3)
    y = torch.arange(40) % 3
    part = Split(x=randn(40, 2, key="x"), y=y)
    scores = score(posterior, part)
    probabilities = posterior.predict(part.x).probabilities().numpy()
    assert scores["points"] == 40
    assert scores["nll"] == pytest.approx(metrics.log_loss(y, probabilities), rel=1e-9)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(y, probabilities.argmax(1)))
    assert scores["auc"] == pytest.approx(
        metrics.roc_auc_score(y, probabilities, multi_class="ovr"), abs=1e-9
    )
    assert scores["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(y, probabilities.argmax(1))
    )
    one_hot = np.eye(3)[y]
    assert scores["brier"] == pytest.approx(
        ((probabilities - one_hot) ** 2).sum(1).mean(), rel=1e-9
    )
    assert scores["expected_nll"] > scores["nll"]


@pytest.mark.parametrize(("likelihood", "num_outputs"), [(Categorical(), 3), (Gaussian(), 1)])
def test_every_score_has_a_name(likelihood, num_outputs):
    part = Split(x=randn(6, 2, key="x"), y=torch.arange(6) % num_outputs)
    scores = score(posterior_of(likelihood, num_outputs), part)
    names = [name for name in (*SCORES, *FURTHER_SCORES) if name in scores]
    assert list(scores) == ["points", *names]
    assert {"points", "nll", "expected_nll"} < set(scores)


def test_calibration_error_by_hand():
    # Two bins in use: confidence 0.9 with accuracy 1/2 (2 points), 0.6 with accuracy 1 (2 points).
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]).double()
    error = expected_calibration_error(probabilities, torch.tensor([0, 1, 1, 1]))
    assert error == pytest.approx(0.5 * 0.4 + 0.5 * 0.4, abs=1e-6)


def test_regression_scores_are_in_the_targets_own_units():
    scaling = Scaling(x_mean=np.zeros(2), x_scale=np.ones(2), y_mean=10.0, y_scale=4.0)
    posterior = posterior_of(Gaussian(noise=0.5), 1, scaling)
    part = Split(x=randn(30, 2, key="x"), y=randn(30, key="y"))
    scores = score(posterior, part)
    mean = 10 + 4 * posterior.predict(part.x).outputs.squeeze(-1).flatten(0, 1).numpy()
    target = 10 + 4 * part.y.numpy()
    density = stats.norm(mean, 2.0).pdf(target).mean(0)
    assert scores["nll"] == pytest.approx(-np.log(density).mean(), rel=1e-9)
    assert scores["rmse"] == pytest.approx(
        metrics.root_mean_squared_error(target, mean.mean(0)), rel=1e-9
    )
    assert scores["r2"] == pytest.approx(metrics.r2_score(target, mean.mean(0)), rel=1e-9)
    flat = Split(x=part.x, y=torch.zeros(30).double())
    assert score(posterior, flat)["r2"] is None
    low, high = posterior.predict(part.x).quantiles([0.05, 0.95]).numpy()
    assert scores["coverage_90"] == pytest.approx(((low <= target) & (target <= high)).mean())


@pytest.mark.thorough
def test_crps_of_a_gaussian_mixture_is_the_integral():
    predictive = Predictive(
        outputs=randn(1, 6, 4, 1),
        latents={},
        likelihood=Gaussian(noise=0.7),
        location=1.0,
        scale=3.0,
    )
    target = torch.tensor([-2.0, 0.5, 1.0, 9.0]).double()
    values = crps(predictive, target)
    mean = predictive.draw_mean().flatten(0, 1).numpy()
    for i in range(4):

        def square(z, i=i):
            return (stats.norm(mean[:, i], 2.1).cdf(z).mean() - (z >= float(target[i]))) ** 2

        wanted = sum(
            integrate.quad(square, a, b, epsabs=1e-10, limit=200)[0]
            for a, b in ((-40, float(target[i])), (float(target[i]), 40))
        )
        assert float(values[i]) == pytest.approx(wanted, abs=1e-6)


def test_crps_of_one_normal_is_the_closed_form_of_gneiting_and_raftery():
    predictive = Predictive(
        outputs=torch.zeros(1, 1, 1, 1).double(), latents={}, likelihood=Gaussian(noise=1.0)
    )
    z = 0.8
    wanted = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi)
    assert float(crps(predictive, torch.tensor([z], dtype=torch.float64))) == pytest.approx(
        wanted, abs=1e-12
    )


def test_crps_of_counts_is_the_sum():
    predictive = Predictive(outputs=randn(1, 3, 5, 1), latents={}, likelihood=Poisson())
    target = torch.tensor([0.0, 1.0, 2.0, 5.0, 30.0]).double()
    rates = predictive.outputs.squeeze(-1).exp().flatten(0, 1).numpy()
    counts = np.arange(400)
    for i, value in enumerate(crps(predictive, target)):
        cdf = stats.poisson(rates[:, i][:, None]).cdf(counts).mean(0)
        assert float(value) == pytest.approx(
            ((cdf - (counts >= float(target[i]))) ** 2).sum(), abs=1e-6
        )


@pytest.mark.parametrize("name", ["student-learned", "mixture"])
def test_crps_of_other_mixtures_is_the_integral(name):
    case = CASES[name]
    outputs = 0.5 * randn(1, 6, 3, case.num_outputs)
    latents = {latent: 0.3 * randn(1, 6, key=latent) for latent in case.likelihood.latents}
    predictive = Predictive(
        outputs=outputs, latents=latents, likelihood=case.likelihood, location=1.0, scale=2.0
    )
    target = torch.tensor([-3.0, 1.0, 20.0]).double()
    values = crps(predictive, target)
    each = reference(
        case.likelihood, outputs[0], {key: own[0] for key, own in latents.items()}, 1.0, 2.0
    )
    u = np.linspace(-9, 9, 40_001)  # t = sinh(u), from -4e3 to 4e3
    t = np.sinh(u)
    below = np.stack([each.cdf(value).mean(0) for value in t[::20]])
    for i in range(3):
        cdf = np.interp(u, u[::20], below[:, i])
        wanted = integrate.trapezoid((cdf - (t >= float(target[i]))) ** 2 * np.cosh(u), u)
        assert float(values[i]) == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("name", ["negative-binomial-learned", "zero-inflated-fixed"])
def test_crps_of_dispersed_counts_is_the_sum(name):
    case = CASES[name]
    outputs = randn(1, 3, 4, case.num_outputs)
    latents = {latent: randn(1, 3, key=latent) for latent in case.likelihood.latents}
    predictive = Predictive(outputs=outputs, latents=latents, likelihood=case.likelihood)
    target = torch.tensor([0.0, 1.0, 5.0, 30.0]).double()
    each = reference(case.likelihood, outputs[0], {key: own[0] for key, own in latents.items()})
    counts = np.arange(600)
    cdf = np.stack([each.cdf(count).mean(0) for count in counts])
    wanted = ((cdf - (counts[:, None] >= target.numpy())) ** 2).sum(0)
    np.testing.assert_allclose(crps(predictive, target).numpy(), wanted, rtol=1e-6)


def test_a_part_without_points_has_no_scores():
    posterior = posterior_of(Categorical(), 3)
    assert score(posterior, Split(x=torch.zeros(0, 2).double(), y=torch.zeros(0).long())) is None


def test_crps_of_counts_ends_whatever_the_rates():
    outputs = torch.tensor([[90.0, 20.0, 1.0], [0.0, 20.0, 2.0]]).reshape(1, 2, 3, 1)
    values = crps(
        Predictive(outputs=outputs, latents={}, likelihood=Poisson()),
        torch.tensor([1.0, 4.8e8, 3.0]).double(),
    )
    assert values[0] == math.inf
    assert torch.isfinite(values[1:]).all()


def test_crps_does_not_lose_the_spread_to_a_large_mean():
    outputs = randn(1, 6, 4, 1).float()
    near, far = (
        crps(
            Predictive(
                outputs=outputs, latents={}, likelihood=Gaussian(noise=0.3), location=location
            ),
            torch.full((4,), location + 0.5, dtype=torch.float64),
        )
        for location in (0.0, 1e8)
    )
    torch.testing.assert_close(near, far, rtol=1e-6, atol=1e-6)


def test_rps_by_hand():
    # Cumulative probabilities 0.5, 0.8 and 1, of which those from the target on should be 1.
    probabilities = torch.tensor([[0.5, 0.3, 0.2]] * 3).double()
    values = rps(probabilities, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(values, torch.tensor([0.29, 0.29, 0.89]).double())
    # A certain prediction: the distance to the target.
    certain = rps(torch.eye(4).double()[[0, 0, 0, 0]], torch.arange(4))
    assert certain.tolist() == [0, 1, 2, 3]


def test_rps_is_the_crps_of_class_numbers():
    """CRPS(F, y) = E|Y - y| - E|Y - Y'| / 2, summed over all pairs of classes."""
    p = torch.softmax(2 * randn(30, 5, key="p"), -1)
    y, classes = torch.arange(30) % 5, torch.arange(5).double()
    near = (p * (classes - y[:, None]).abs()).sum(-1)
    pairs = torch.einsum("pa,pb,ab->p", p, p, (classes[:, None] - classes).abs())
    torch.testing.assert_close(rps(p, y), near - pairs / 2)


def test_ordered_classes_have_an_rps_and_others_have_none():
    posterior = posterior_of(Ordinal(num_classes=4), 1)
    part = Split(x=randn(25, 2, key="x"), y=torch.arange(25) % 4, weight=torch.ones(25).double())
    scores = score(posterior, part)
    p = posterior.predict(part.x).probabilities().numpy()
    brute_force = [
        sum((row[: k + 1].sum() - (target <= k)) ** 2 for k in range(4))
        for row, target in zip(p, part.y.tolist(), strict=True)
    ]
    assert scores["rps"] == pytest.approx(np.mean(brute_force), rel=1e-9)
    with_intervals = scores_with_intervals(posterior, part, num_resamples=20)["rps"]
    assert with_intervals.value == pytest.approx(scores["rps"], rel=1e-9)
    assert with_intervals.low < with_intervals.value < with_intervals.high
    assert "rps" not in score(posterior_of(Categorical(), 4), part)
