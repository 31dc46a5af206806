"""What runs on the CPU runs on a GPU unchanged: fits of every method, and what is done with them
afterwards."""

import copy
import dataclasses

import pytest
import torch

from bnn_symm.cli import main
from bnn_symm.models import BayesianModel
from bnn_symm.runs import Run, fit_run, load_config, load_run

from .test_contract import METHODS, name_of

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

NETWORK = "architecture={widths: [4], norm: layer, dropout: 0.2}"
ASYMMETRIC = (
    "architecture={widths: [6], symmetry: {kind: weight_asymmetric, fixed_per_row: [0, 2]}}"
)


def log_density(model: BayesianModel, flat: torch.Tensor, run: Run) -> float:
    flat, train = flat.to(model.device), run.dataset().train.to(model.device)
    return float(model.log_likelihood(flat, train.x, train.y).sum() + model.log_prior(flat))


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_a_fit_ends_is_opened_and_predicts(tmp_path, method):
    """Its log density is that of the CPU to 1e-4: a hundred terms in float32, summed in another
    order."""
    config = load_config(None, ["data.name=iris", NETWORK, "device=cuda"])
    run = fit_run(dataclasses.replace(config, inference=method), tmp_path / "run")
    assert run.status == "complete"
    assert run.metrics is not None
    opened = load_run(run.path)
    assert opened.model.device.type == "cuda"
    x = run.dataset().test.x
    probabilities = opened.posterior.predict(x).probabilities()
    assert torch.isfinite(probabilities).all()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(len(x), dtype=torch.float64))
    flat = next(opened.posterior.iter_draws())[0]
    on_cpu = BayesianModel(
        copy.deepcopy(opened.model.net).cpu(), opened.model.prior, opened.model.likelihood
    )
    assert log_density(opened.model, flat, run) == pytest.approx(
        log_density(on_cpu, flat, run), rel=1e-4
    )


def test_the_same_numbers_are_drawn_as_on_the_cpu(tmp_path):
    """Noise comes from the CPU: twenty steps of VI in float64 differ by rounding, which Adam's
    division of gradients by their own size makes larger, to at most 1e-6 of weights of about 1."""
    keys = ["data.name=iris", "architecture.widths=[4]", "dtype=float64", "inference.num_steps=20"]
    one, other = (
        fit_run(load_config(None, [*keys, f"device={device}"]), tmp_path / device)
        .posterior.draws(3)
        .cpu()
        for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("network", [NETWORK, ASYMMETRIC], ids=["standard", "asymmetric"])
@pytest.mark.parametrize(
    "method", ["{name: mean_field_vi, num_steps: 30}", "{name: hmc, num_warmup: 30, num_draws: 30}"]
)
def test_commands_take_it(tmp_path, capsys, network, method):
    """Also those that derive symmetries and permute weights."""
    for seed in (0, 1):
        keys = ["data.name=iris", network, f"inference={method}", "device=cuda", f"seed={seed}"]
        fit_run(load_config(None, keys), tmp_path / str(seed))
    first, second = (str(tmp_path / str(seed)) for seed in (0, 1))
    assert main(["evaluate", first, "--json"]) == 0
    assert main(["diagnose", first, "--json"]) == 0
    if "mean_field" in method:
        assert main(["barrier", first, second, "-o", str(tmp_path / "barrier"), "--quiet"]) == 0
        assert main(["align", first, second, "-o", str(tmp_path / "aligned"), "--quiet"]) == 0
