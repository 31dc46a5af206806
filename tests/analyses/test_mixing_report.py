"""The mixing part of `diagnose`: plain data, text and figures."""

import json

import numpy as np
import pytest
import torch

from bnn_symm.analyses.mixing import concatenate_chains, describe_mixing
from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.inference import NUTS, MeanFieldVI
from bnn_symm.io.atomic import json_text
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.report.text.mixing import draw_mixing, mixing_text
from bnn_symm.symmetry import permutation_spec
from tests.golden import golden

pytestmark = pytest.mark.thorough

NUMBERS = {
    "rhat_max",
    "rhat_median",
    "share_above",
    "ess_bulk_min",
    "ess_bulk_median",
    "ess_tail_min",
}


@pytest.fixture(scope="module")
def iris():
    return load_dataset("iris", dtype=torch.float64)


@pytest.fixture(scope="module")
def model(iris):
    net = build_network(MLPConfig(widths=(4,)), input_shape=iris.input_shape, num_outputs=3, seed=0)
    return BayesianModel(net.double(), Prior(), Categorical())


def permuted_chains(model: BayesianModel) -> SamplePosterior:
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(model.num_parameters, generator=generator, dtype=torch.float64)
    noise = 0.05 * torch.randn(
        3, 100, model.num_parameters, generator=generator, dtype=torch.float64
    )
    random = np.random.default_rng(0)
    stats = {
        "diverging": np.zeros((3, 100), dtype=bool),
        "energy": random.standard_normal((3, 100)),
    }
    posterior = SamplePosterior.from_draws(model, center + noise, sample_stats=stats)
    spec = permutation_spec(model.net)
    return posterior.permute_chains([spec.random(seed) for seed in range(3)])


def test_every_view_has_its_numbers_and_a_verdict(model, iris, tmp_path):
    content, traces = describe_mixing(permuted_chains(model), iris)
    content = json.loads(json_text(content))  # as it is written
    for view in ("raw", "aligned", "aligned_per_draw", "chainwise", "function"):
        assert set(content[view]) >= NUMBERS | {"status", "reason"}
    assert content["raw"]["status"] == "fail"
    assert content["function"]["status"] in ("pass", "too few draws")
    layers = content["raw"]["by_layer"]
    assert sum(own["quantities"] for own in layers.values()) == model.num_parameters
    assert max(own["rhat_max"] for own in layers.values()) == content["raw"]["rhat_max"]
    (units,) = content["raw"]["rhat_max_by_unit"].values()
    assert len(units) == 4
    assert content["modes"]["aligned"]["count"] == 1
    assert content["sampler"]["divergences"] == [0, 0, 0]
    assert content["part"] == "test"
    text = mixing_text(content)
    assert text + "\n" == golden("mixing")
    assert mixing_text({**content, "part": "train"}).count("\n") == text.count("\n") + 1
    assert [panel["values"].shape for panel in traces] == [(3, 100)] * 3
    for path in draw_mixing(content, traces, tmp_path, title="three chains"):
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_closed_form_has_no_chains_and_several_have(model, iris, tmp_path):
    fits = [
        MeanFieldVI(num_steps=200, num_draws=60).fit(model, iris, seed=seed) for seed in range(2)
    ]
    content, traces = describe_mixing(fits[0], iris)
    assert "no chains" in mixing_text(content)
    assert content["raw"] is None
    assert (traces, draw_mixing(content, traces, tmp_path, title="")) == ([], [])
    together, _ = describe_mixing(concatenate_chains(fits), iris, per_draw=False)
    assert together["raw"]["num_chains"] == 2
    assert together["chainwise"]["status"] == "pass"  # draws of a closed form are independent


def test_chains_of_several_posteriors_are_those_of_each_cut_to_the_shortest(model, iris):
    whole = permuted_chains(model)
    draws = torch.stack([whole.read(chain, 0, 40) for chain in range(2)])
    stats = {"energy": np.ones((2, 40)), "lp": np.ones((2, 40))}
    short = SamplePosterior.from_draws(model, draws, sample_stats=stats)
    found = concatenate_chains([whole, short])
    assert found.shape == (5, 40, model.num_parameters)
    assert torch.equal(found.read(2, 5, 9), whole.read(2, 5, 9))
    assert torch.equal(found.read(4, 0, 40), draws[1])
    assert {name: value.shape for name, value in found.sample_stats.items()} == {"energy": (5, 40)}


def test_an_infinite_r_hat_is_drawn_and_reported(model, iris, tmp_path):
    draws = torch.randn(
        3, 1, model.num_parameters, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    posterior = SamplePosterior.from_draws(model, draws.expand(-1, 30, -1).clone())
    content, traces = describe_mixing(posterior, iris, per_draw=False)
    assert content["frozen_chains"] == [0, 1, 2]
    assert content["function"]["rhat_max"] == np.inf
    written = json.loads(json_text(content))["function"]  # JSON has no infinity: see the reason.
    assert (written["rhat_max"], written["status"]) == (None, "fail")
    assert "R-hat is inf" in written["reason"]
    assert [path.name for path in draw_mixing(content, traces, tmp_path, title="frozen")] == [
        "traces.png",
        "rhat.png",
    ]


def test_a_single_draw_and_a_sampler_of_ours(model, iris, tmp_path):
    point = SamplePosterior.from_draws(
        model, torch.zeros(1, 1, model.num_parameters, dtype=torch.float64)
    )
    content, traces = describe_mixing(point, iris)
    assert traces == []
    assert content["raw"]["rhat_max"] is None
    assert "1 draw per chain" in content["raw"]["reason"]
    assert draw_mixing(content, traces, tmp_path, title="") == []
    method = NUTS(
        num_chains=2, num_warmup=10, num_draws=12, chain_method="sequential", max_tree_depth=4
    )
    content, _ = describe_mixing(
        method.fit(model, iris, seed=0), iris, method=method, per_draw=False
    )
    assert content["aligned_per_draw"]["verdict"] == "not computed: not requested"
    assert len(content["sampler"]["tree_depth"]) == 2
    assert max(content["sampler"]["at_max_depth"]) <= 1
