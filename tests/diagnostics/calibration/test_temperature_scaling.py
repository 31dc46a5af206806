import dataclasses
import math

import pytest
import torch
from torch import nn

from bnn_symm.data import Split, load_dataset
from bnn_symm.diagnostics import score
from bnn_symm.diagnostics.calibration.temperature_scaling import fit_temperature
from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.models import BayesianModel, Bernoulli, Categorical, Gaussian, Prior
from bnn_symm.posteriors import SamplePosterior, save_posterior
from bnn_symm.randomness import torch_generator


def linear(likelihood, num_outputs: int) -> BayesianModel:
    return BayesianModel(nn.Linear(3, num_outputs, bias=False).double(), Prior(), likelihood)


def posterior_of(model: BayesianModel, draws: int, spread: float = 0.5) -> SamplePosterior:
    noise = torch.randn(
        1, draws, model.num_parameters, generator=torch_generator(0, "draws"), dtype=torch.float64
    )
    center = 2 * torch.randn(
        model.num_parameters, generator=torch_generator(0, "center"), dtype=torch.float64
    )
    return SamplePosterior.from_draws(model, center + spread * noise)


def points(number: int) -> torch.Tensor:
    return torch.randn(number, 3, generator=torch_generator(0, "points"), dtype=torch.float64)


def targets(probabilities: torch.Tensor) -> torch.Tensor:
    return torch.multinomial(probabilities, 1, generator=torch_generator(0, "targets"))[:, 0]


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(("likelihood", "num_outputs"), [(Categorical(), 4), (Bernoulli(), 1)])
def test_it_finds_the_temperature_that_the_targets_were_drawn_with(tau, likelihood, num_outputs):
    """Within four standard errors, from the Fisher information of tau: the variance of the logits
    under softmax."""
    model = linear(likelihood, num_outputs)
    posterior = posterior_of(model, 1)
    x = points(4000)
    logits = posterior.predict(x).outputs[0, 0]
    if num_outputs == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], -1)
    p = (logits / tau).softmax(-1)
    variance = (p * logits.square()).sum(-1) - (p * logits).sum(-1).square()
    standard_error = tau**2 / math.sqrt(
        float(variance.sum())
    )  # of tau: log p has d/dtau = -(z_y - E z) / tau^2
    found = fit_temperature(posterior, Split(x=x, y=targets(p)))
    assert abs(found.logit_temperature - tau) < 4 * standard_error
    assert standard_error < 0.1 * tau  # an error that means something
    assert found.points == 4000
    assert not found.is_bounded


@pytest.mark.parametrize(("likelihood", "num_outputs"), [(Categorical(), 4), (Bernoulli(), 1)])
def test_it_minimizes_the_nll_of_the_mixture(likelihood, num_outputs):
    model = linear(likelihood, num_outputs)
    posterior = posterior_of(model, 30, spread=3.0)
    x = points(200)
    mixture = posterior.predict(x).probabilities()
    part = Split(x=x, y=targets(mixture.sqrt()))  # flatter than predicted
    found = fit_temperature(posterior, part)

    def nll(tau):
        power = mixture ** (1 / tau)
        return -float((power / power.sum(-1, keepdim=True))[torch.arange(200), part.y].log().mean())

    assert found.nll_before == pytest.approx(nll(1.0), abs=1e-12)
    assert found.nll == pytest.approx(nll(found.logit_temperature), abs=1e-12)
    grid = [nll(math.exp(i / 100)) for i in range(-300, 301)]
    # The best of a grid with steps of 1 % lies within half a step of the minimum.
    assert found.nll <= min(grid) <= found.nll + 1e-4
    assert found.logit_temperature > 1.2
    assert found.nll < found.nll_before - 0.01


def test_draws_that_disagree_do_not_come_to_vote():
    """With every draw's own logits divided, two of three draws that are right would be counted as
    votes for tau = 0."""
    model = BayesianModel(nn.Linear(1, 1, bias=False).double(), Prior(), Bernoulli())
    weights = torch.tensor([0.25, 0.25, -2.0], dtype=torch.float64)
    posterior = SamplePosterior.from_draws(model, weights.reshape(1, 3, 1))
    part = Split(x=torch.ones(4, 1, dtype=torch.float64), y=torch.ones(4, dtype=torch.long))
    p = float(torch.sigmoid(weights).mean())
    assert p < 0.5 < float((weights > 0).double().mean())
    found = fit_temperature(posterior, part)
    assert found.is_bounded
    assert found.logit_temperature > 99
    odds = (p / (1 - p)) ** (1 / found.logit_temperature)
    assert found.nll == pytest.approx(math.log1p(1 / odds), abs=1e-12)


def test_scores_are_those_of_the_scaled_mixture_and_draws_stay():
    posterior = posterior_of(linear(Categorical(), 4), 5)
    x = points(50)
    mixture = posterior.predict(x).probabilities()
    part = Split(x=x, y=targets(mixture))
    found = dataclasses.replace(fit_temperature(posterior, part), logit_temperature=2.5)
    scaled = found.apply(posterior)
    power = mixture ** (1 / 2.5)
    wanted = power / power.sum(-1, keepdim=True)
    torch.testing.assert_close(scaled.predict(x).probabilities(), wanted)
    got = score(scaled, part)
    assert got["nll"] == pytest.approx(-float(wanted[torch.arange(50), part.y].log().mean()))
    assert got["accuracy"] == score(posterior, part)["accuracy"]
    assert torch.equal(scaled.draws(), posterior.draws())
    assert torch.equal(scaled.mean(), posterior.mean())
    assert scaled.shape == posterior.shape
    with pytest.raises(ConfigError, match="TemperatureScaledPosterior"):
        save_posterior(scaled, "anywhere.nc")


def test_points_that_are_all_right_drive_it_to_the_end_of_the_range():
    posterior = posterior_of(linear(Categorical(), 4), 1)
    x = points(20)
    found = fit_temperature(
        posterior, Split(x=x, y=posterior.predict(x).probabilities().argmax(-1))
    )
    assert found.is_bounded
    assert found.logit_temperature < 0.011
    assert "an end of its range" in found.conclusion


def test_what_it_is_not_for():
    data = load_dataset("gap")
    model = BayesianModel(nn.Linear(1, 1), Prior(), Gaussian(noise=0.1))
    numbers = SamplePosterior.from_draws(model, torch.zeros(1, 1, 2))
    with pytest.raises(ConfigError, match="class probabilities, and likelihood gaussian has none"):
        fit_temperature(numbers, data.validation)
    empty = Split(x=points(1)[:0], y=torch.zeros(0, dtype=torch.long))
    with pytest.raises(
        InvalidData, match=r"which has no points; fit with data\.validation_fraction=0\.1"
    ):
        fit_temperature(posterior_of(linear(Categorical(), 4), 1), empty)
