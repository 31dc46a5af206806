import pytest

from bnn_symm.runs import fit_run, load_config
from bnn_symm.runs.dry_run import estimate_fit

pytestmark = pytest.mark.thorough

TINY = ["data.name=iris", "architecture.widths=[4]", "threads=1"]
METHODS = {
    "map": ["inference.num_steps=7"],
    "mean_field_vi": ["inference.num_steps=7", "inference.num_samples=3"],
    "deep_ensemble": ["inference.num_steps=7", "inference.chain_method=sequential"],
    "sgld": [
        "inference.num_warmup=5",
        "inference.num_draws=4",
        "inference.thinning=2",
        "inference.chain_method=sequential",
    ],
    "nuts": ["inference.num_warmup=3", "inference.num_draws=4", "inference.compile=false"],
}


@pytest.mark.parametrize("method", METHODS)
def test_the_estimate_has_the_numbers_of_the_fit(method, tmp_path):
    config = load_config(None, [*TINY, f"inference.name={method}", *METHODS[method]])
    estimate = estimate_fit(config)
    assert list(tmp_path.iterdir()) == []
    run = fit_run(config, tmp_path / "run")
    record, [stage] = run.record, estimate.stages
    assert estimate.parameters == record["num_parameters"]
    assert estimate.threads == record["threads"]
    points = (estimate.train, estimate.validation, estimate.test)
    assert points == tuple(record["dataset"][part] for part in ("train", "validation", "test"))
    if stage.is_lower_bound:
        assert method == "nuts"
        assert stage.gradient_evaluations <= record["gradient_evaluations"]
    else:
        assert stage.gradient_evaluations == record["gradient_evaluations"]


def test_every_stage_is_estimated():
    keys = ["warm_start=[{name: map, num_steps: 5}]", "inference.name=nuts"]
    first, second = estimate_fit(load_config(None, [*TINY, *keys])).stages
    assert (first.method, first.gradient_evaluations) == ("map", 5)
    assert second.draws_bytes == 4 * 500 * 35 * 4  # chains, draws, parameters, bytes
