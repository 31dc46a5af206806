"""The ELBO part of `diagnose`: plain data, sentences, a table and a figure."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from bnn_symm.analyses.elbo import describe_elbo
from bnn_symm.analyses.posterior_scales import describe_posterior_scales
from bnn_symm.diagnostics.elbo.interpretation import ElboVerdict, interpret_elbo
from bnn_symm.inference import MeanFieldVI
from bnn_symm.io.atomic import json_text
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.report.text.elbo import draw_elbo, elbo_text
from tests.golden import golden
from tests.models.cases import normal
from tests.runs.fits import fit, overrides

ENDS = {"low": -0.1, "high": 0.1}
NUMBERS = ("value", "standard_error", "expected_log_likelihood", "kl")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        import bnn_symm.diagnostics  # noqa: F401

        patch.setattr(sys.modules["bnn_symm.diagnostics.elbo.elbo"], "_MAX_SAMPLES", 60)
        return fit(tmp_path_factory.mktemp("elbo") / "run", overrides("local"))


@pytest.fixture
def content(run):
    return describe_elbo(run)


@pytest.mark.thorough
def test_it_is_the_elbo_of_the_run_and_its_parts_add_up(run, content):
    metrics = run.metrics
    assert content["value"] == metrics["elbo"]
    assert content["standard_error"] == metrics["elbo_standard_error"]
    assert content["kl"] == metrics["kl"]
    assert content["reason"] is None
    assert math.fsum(own["kl"] for own in content["by_layer"].values()) == pytest.approx(
        content["kl"]
    )
    assert math.fsum(own["share"] for own in content["by_layer"].values()) == pytest.approx(1)
    for own in content["by_layer"].values():
        assert math.fsum(part["kl"] for part in own["by_tensor"].values()) == pytest.approx(
            own["kl"]
        )
    assert list(content["by_layer"]) == ["layers.0", "head", "likelihood"]
    assert content["pruned"]["num_units"] == 4
    found = content["symmetrized"]
    assert found["kind"] == "exact"
    assert found["log_order"] == pytest.approx(math.log(24))
    assert found["value"] == content["value"] + found["mutual_information"]


def test_it_is_plain_data_that_json_takes_and_gives_back(content):
    assert json.loads(json_text(content)) == json.loads(json.dumps(content))


def test_the_picture_is_drawn(content, tmp_path):
    (path,) = draw_elbo(content, tmp_path, title="gap")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_draws_have_scales_and_a_reason_in_place_of_numbers(tmp_path):
    content = describe_elbo(fit(tmp_path / "run", overrides("hmc")))
    assert all(
        content[name] is None for name in (*NUMBERS, "by_layer", "pruned", "symmetrized", "next")
    )
    assert content["reason"].startswith("hmc gives draws and no density")
    assert elbo_text(content) == f"elbo: {content['reason']}"
    assert "over 2 chains together" in content["posterior_scales"]["note"]
    assert draw_elbo(content, tmp_path, title="hmc")
    json_text(content)


def test_a_point_has_no_scales(tmp_path):
    content = describe_elbo(fit(tmp_path / "run", overrides("map")))
    assert content["posterior_scales"]["reason"] == "one draw has no standard deviation"
    assert draw_elbo(content, tmp_path, title="map") == []


@pytest.mark.thorough
def test_an_asymmetric_run_has_no_gap(tmp_path):
    keys = [
        *overrides("weight"),
        "architecture.symmetry={kind: weight_asymmetric, fixed_per_row: 1}",
    ]
    keys = [key.replace("data.name=gap", "data={name: diabetes, limit: 60}") for key in keys]
    content = describe_elbo(fit(tmp_path / "run", keys))
    assert content["symmetrized"]["mutual_information"] == 0
    assert "Nothing can be permuted" in content["verdicts"]["symmetry"]
    assert "symmetrized ELBO" not in elbo_text(content).split("symmetry: ")[1].split("\n", 1)[1]


def test_without_a_posterior_the_conclusion_is_all_there_is():
    assert (
        elbo_text({"conclusion": "has no posterior", "reason": "has no posterior"})
        == "elbo: has no posterior"
    )


# -- verdicts


def kinds(content, widths=(4,), **changes):
    """Return the kinds of the verdicts on changed content, and the advice."""
    verdicts, advice = interpret_elbo({**content, **changes}, widths)
    assert all(verdict.text.endswith(".") for verdict in verdicts.values())
    return {name: verdict.kind for name, verdict in verdicts.items()}, advice


def layer(kl: float, parameters: int, share: float) -> dict:
    return {
        "kl": kl,
        "share": share,
        "num_parameters": parameters,
        "nats_per_parameter": kl / parameters,
        "bits_per_parameter": kl / parameters / math.log(2),
        "at_prior": kl / parameters < 0.01,
        "by_tensor": {},
    }


def test_text(content):
    known = {"value": -90.0, "standard_error": 0.5, "per_point": -1.5, "kl": 10.0}
    known |= {"expected_log_likelihood": -80.0, "temperature": 1.0, "points": 60}
    group = {"num_units": 4, "pruned": 1, "reverted": 1, "silent": 0, "fraction": 0.25}
    pruned = {**content["pruned"], "fraction": 0.25, "groups": {"layers.0": group}}
    symmetrized = {"mutual_information": 1.5, "value": -88.5, "by_group": {}}
    for name in ("mutual_information", "value"):
        symmetrized |= {f"{name}_{end}": symmetrized[name] + x for end, x in ENDS.items()}
    edited = {
        **content,
        **known,
        "by_layer": {"layers.0": layer(0.1, 1000, 0.01), "head": layer(9.9, 10, 0.99)},
        "pruned": pruned,
        "symmetrized": {**content["symmetrized"], **symmetrized},
    }
    verdicts, advice = interpret_elbo(edited, (4,))
    sentences = {name: verdict.text for name, verdict in verdicts.items()}
    text = elbo_text({**edited, "verdicts": sentences, "next": advice})
    assert text + "\n" == golden("elbo")


def test_layers_at_the_prior(content):
    layers = {"first": layer(0.1, 1000, 0.01), "last": layer(9.9, 10, 0.99)}
    (verdicts, _) = interpret_elbo({**content, "kl": 10.0, "by_layer": layers}, None)
    assert verdicts["kl"].kind is ElboVerdict.SOME_AT_PRIOR
    assert verdicts["kl"].numbers["layer"] == "last"
    assert verdicts["kl"].numbers["at_prior"] == ["first"]
    found, advice = kinds(content, kl=0.1, by_layer={"first": layers["first"]})
    assert found["kl"] is ElboVerdict.ALL_AT_PRIOR
    assert advice == ElboVerdict.ALL_AT_PRIOR.value[1]
    assert kinds(content, kl=0.0)[0]["kl"] is ElboVerdict.EQUALS_PRIOR


def test_many_pruned_units_ask_for_a_smaller_network(content):
    group = {
        "num_units": 4,
        "pruned": 3,
        "reverted": 1,
        "silent": 3,
        "fraction": 0.75,
        "pruned_units": [0, 1, 2],
    }
    pruned = {**content["pruned"], "fraction": 0.75, "groups": {"layers.0": group}}
    found, advice = kinds(content, pruned=pruned)
    assert found["pruned"] is ElboVerdict.MANY_PRUNED
    assert (advice or "").endswith("widths=[1]")
    assert "widths" not in (kinds(content, None, pruned=pruned)[1] or "widths")


@pytest.mark.parametrize(
    ("kind", "gap", "error", "expected"),
    [
        ("exact", 3.17, 0.005, ElboVerdict.SEPARATE),
        ("exact", 3.17, 0.05, ElboVerdict.OVERLAP_UNCLEAR),
        ("exact", 1.0, 0.01, ElboVerdict.OVERLAP),
        ("exact", 3.13, 0.1, ElboVerdict.OVERLAP_UNCLEAR),
        ("lower bound", 1.0, 0.01, ElboVerdict.OVERLAP_UNBOUNDED),
        ("lower bound", 3.17, 0.005, ElboVerdict.SEPARATE),
        ("lower bound", 3.17, 0.05, ElboVerdict.OVERLAP_UNBOUNDED),
    ],
)
def test_what_the_gap_means_is_decided_by_the_ends_of_its_interval(
    content, kind, gap, error, expected
):
    ends = {"mutual_information_low": gap - error, "mutual_information_high": gap + error}
    known = {"kind": kind, "mutual_information": gap, "log_order": math.log(24)}
    found = {**content["symmetrized"], **known, **ends}
    assert kinds(content, symmetrized=found)[0]["symmetry"] is expected


def test_a_tempered_fit_has_its_own_verdict(content):
    assert kinds(content, temperature=0.1)[0]["elbo"] is ElboVerdict.TEMPERED


# -- scales


def test_scales_are_quantiles_of_the_posterior(run):
    found = describe_posterior_scales(run.posterior)
    where = run.model.slices()["layers.0.weight"].start, run.model.slices()["layers.0.bias"].stop
    sd = run.posterior.scale[slice(*where)].double().numpy()
    own = found["layers"]["layers.0"]
    np.testing.assert_allclose(own["sd"], np.quantile(sd, found["quantiles"]))
    assert own["prior_sd"] == [1.0, 1.0]
    assert own["narrowed"] == pytest.approx(np.median(sd))
    assert own["num_constant"] == 0


def test_weights_that_never_change_are_left_out_and_counted(run):
    draws = normal(2, 5, run.model.num_parameters).float()
    draws[..., :3] = 1.0
    found = describe_posterior_scales(SamplePosterior.from_draws(run.model, draws))
    assert found["layers"]["layers.0"]["num_constant"] == 3
    assert min(found["layers"]["layers.0"]["sd"]) > 0
    constant = describe_posterior_scales(
        SamplePosterior.from_draws(run.model, torch.ones_like(draws))
    )
    assert constant["reason"] == "no weight ever changes"
    json_text(constant)


# -- what it is for


@pytest.mark.slow
def test_with_little_data_units_coincide_and_with_much_they_do_not(tmp_path):
    """The gap is not constant: it is the loss of mean-field inference where units overlap."""
    keys = [
        "data.name=gap",
        "architecture={widths: [3], activation: tanh}",
        "likelihood.name=gaussian",
    ]
    keys += ["inference={name: mean_field_vi, num_steps: 1500}"]
    gaps = []
    for limit, noise in ((10, 2.0), (None, 0.1)):
        extra = [f"likelihood.noise={noise}", *([] if limit is None else [f"data.limit={limit}"])]
        run = fit(tmp_path / f"run{limit}", [*keys, *extra])
        assert isinstance(run.config.inference, MeanFieldVI)
        found = describe_elbo(run)["symmetrized"]
        gaps.append(found["mutual_information"] / found["log_order"])
    assert gaps[0] < 0.2
    assert gaps[1] > 0.8
