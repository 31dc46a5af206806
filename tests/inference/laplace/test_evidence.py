"""The evidence against its closed form, and the scale of the prior at its maximum."""

import dataclasses
import math

import jaxtyping
import pytest
import torch
from scipy.optimize import minimize_scalar

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.cli.fitting.fit import _text as fit_text
from bnn_symm.data import load_dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference import MAP, LaplaceApproximation
from bnn_symm.inference.laplace import evidence
from bnn_symm.inference.laplace.evidence import best_scale, log_evidence, with_prior_scale
from bnn_symm.inference.laplace.structures import plan_curvature
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior, PriorOverride
from bnn_symm.runs import fit_run, load_config, load_run
from bnn_symm.testing import (
    Interruption,
    all_draws,
    design_matrix,
    exact_targets,
    linear_regression,
    log_jacobian,
    without_times,
)
from tests.models.cases import CASES, normal

ALL = ["diagonal", "kronecker", "full"]


@pytest.fixture(autouse=True)
def unchecked():
    """Hundreds of steps on eleven numbers spend most of their time in the checks of
    annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def with_evidence(model):
    prior = dataclasses.replace(model.prior, scale="evidence")
    return BayesianModel(model.net, prior, model.likelihood)


def exact(data, scale: float) -> float:
    """Return the log evidence of linear regression, in the target's own units."""
    x, y = design_matrix(data)
    covariance = exact_targets.NOISE**2 * torch.eye(len(y)).double() + scale**2 * x @ x.T
    density = torch.distributions.MultivariateNormal(torch.zeros(len(y)).double(), covariance)
    return float(density.log_prob(y)) + log_jacobian(data)


@pytest.mark.thorough
@pytest.mark.parametrize("structure", ["kronecker", "full"])
def test_of_linear_regression_it_is_exact_and_at_its_maximum(structure):
    model, data = linear_regression()
    assert exact(data, 1.0) == pytest.approx(exact_targets.log_evidence(data) + log_jacobian(data))
    best = minimize_scalar(
        lambda log_scale: -exact(data, math.exp(log_scale)), bounds=(-4, 2), method="bounded"
    )
    method = LaplaceApproximation(num_steps=400, learning_rate=0.1, structure=structure)
    posterior = method.fit(with_evidence(model), data, seed=0)
    assert posterior.model.prior.scale == posterior.info["prior_scale"]
    # Within the tolerance of the bounded search.
    assert posterior.info["prior_scale"] == pytest.approx(math.exp(best.x), rel=1e-4)
    assert posterior.info["log_evidence"] == pytest.approx(-best.fun, abs=1e-5)
    assert posterior.info["log_evidence"] > exact(data, 0.9 * math.exp(best.x))
    assert posterior.history[-1]["prior_scale"] == pytest.approx(posterior.info["prior_scale"])


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("name", [name for name in CASES if name != "fixed-entries"])
def test_the_best_scale_maximizes_the_laplace_evidence_at_a_mode(name, structure):
    """With every likelihood, by a search over scales of the evidence itself."""
    case = CASES[name]
    model = case.model()
    data = load_dataset("iris", dtype=torch.float64)
    part = dataclasses.replace(data.train, x=normal(30, 2), y=case.targets(30))
    data = dataclasses.replace(data, train=part)
    position = 0.3 * normal(model.num_parameters, seed=1)
    plan = plan_curvature(structure, 1, model, part.x)

    def blocks(scaled):
        return plan.blocks(scaled, position, part, torch.ones_like(position), 1.0)

    def log_evidence_at(log_scale: float) -> float:
        scaled = with_prior_scale(model, math.exp(log_scale))
        prior = scaled.prior_standard_deviations(position).pow(-2)
        return log_evidence(
            scaled, position, [block.factor(prior) for block in blocks(scaled)], data
        )

    best = math.log(best_scale(model, position, blocks(model)))
    center, step = log_evidence_at(best), 0.02
    around = [log_evidence_at(best + side * step) for side in (-1, 1)]
    assert max(around) < center
    # The slope at the maximum is zero, up to the third derivative: its part of the change is small.
    assert abs(around[1] - around[0]) < 0.05 * abs(around[0] + around[1] - 2 * center)


def iris_model(**prior):
    data = load_dataset("iris")
    net = build_network(MLPConfig(widths=(4,)), input_shape=data.input_shape, num_outputs=3)
    return BayesianModel(net, Prior(**{"scale": "evidence", **prior}), Categorical()), data


@pytest.mark.thorough
def test_it_resumes_bitwise_identically():
    model, data = iris_model()
    method = LaplaceApproximation(num_steps=40, log_every=6, structure="kronecker")
    whole = method.fit(model, data, seed=0)
    assert whole.info["prior_scale"] != 1.0
    for stop_after in (5, 20, 40):
        recorder = Interruption(stop_after=stop_after)
        part = method.fit(model, data, seed=0, callbacks=[recorder])
        assert part.info["status"] == "interrupted"
        assert part.model.prior.scale == part.info["prior_scale"]
        rest = method.fit(
            model, data, seed=0, fit_state=method.truncate_to_checkpoint(recorder.fit_state())
        )
        assert torch.equal(all_draws(rest), all_draws(whole))
        assert without_times(rest.history) == without_times(whole.history)
        assert rest.info["prior_scale"] == whole.info["prior_scale"]
        assert rest.info["log_evidence"] == whole.info["log_evidence"]


def test_a_scale_that_has_not_settled_is_reported(monkeypatch):
    monkeypatch.setattr(evidence, "_SETTLED", 1e-9)
    model, data = iris_model()
    method = LaplaceApproximation(num_steps=12, learning_rate=0.1, structure="kronecker")
    posterior = method.fit(model, data, seed=0)
    assert any("has not settled" in note for note in posterior.info["warnings"])


def test_other_methods_and_structures_refuse_it():
    model, data = iris_model()
    with pytest.raises(ConfigError, match=r"chosen by a fit with inference\.name=laplace"):
        MAP(num_steps=1).fit(model, data, seed=0)
    for keywords, message in (
        ({"structure": "last_layer"}, r"got inference\.structure=last_layer; set .*=kronecker"),
        ({"structure": "subnetwork"}, r"got inference\.structure=subnetwork; set .*=kronecker"),
        ({"temperature": 0.5}, r"defined at inference\.temperature=1, got 0\.5; set "),
    ):
        with pytest.raises(ConfigError, match=message):
            LaplaceApproximation(num_steps=1, **keywords).fit(model, data, seed=0)
    with pytest.raises(ConfigError, match=r"one scale for all parameters, got prior\.overrides"):
        iris_model(overrides={"*.bias": PriorOverride(scale=1.0)})


def test_there_is_no_evidence_of_a_part_or_of_another_temperature():
    model, data = linear_regression()
    for keywords in ({"structure": "last_layer"}, {"temperature": 0.5}):
        method = LaplaceApproximation(num_steps=1, **keywords)
        assert "log_evidence" not in method.fit(model, data, seed=0).info


@pytest.mark.thorough
def test_a_run_has_the_scale(tmp_path):
    keys = ["data.name=iris", "architecture.widths=[4]", "inference.name=laplace"]
    keys += ["inference.structure=kronecker", "inference.num_steps=60", "prior.scale=evidence"]
    run = fit_run(load_config(None, keys), tmp_path / "run")
    assert run.config.prior.scale == "evidence"
    scale = run.record["prior_scale"]
    assert run.metrics["prior_scale"] == scale != 1.0
    assert math.isfinite(run.metrics["log_evidence"])
    assert f"nats, prior.scale {scale:.4g}" in fit_text(run, "")
    again = load_run(run.path)
    assert again.model.prior.scale == again.posterior.model.prior.scale == scale


@pytest.mark.thorough
def test_the_noise_of_a_regression_keeps_its_own_prior():
    model, data = linear_regression(noise="learned")
    method = LaplaceApproximation(num_steps=300, learning_rate=0.1, structure="kronecker")
    posterior = method.fit(with_evidence(model), data, seed=0)
    likelihood = posterior.model.likelihood
    assert isinstance(likelihood, Gaussian)
    assert likelihood == model.likelihood
    assert 0.05 < posterior.info["prior_scale"] < 0.5
