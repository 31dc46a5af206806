"""A run whose sampler stops itself: its files, its record, and what it refuses."""

import pytest

from bnn_symm.errors import ConfigError
from bnn_symm.runs import load_run
from bnn_symm.runs.directory.run_directory import RunDirectory
from tests.runs.fits import fit

pytestmark = pytest.mark.thorough

KEYS = [
    "data.name=gap",
    "data.validation_fraction=0.5",
    "architecture.widths=[3]",
    "likelihood.noise=0.2",
    "warm_start=[{name: deep_ensemble, num_members: 2, num_steps: 300, learning_rate: 0.05, "
    "chain_method: sequential}]",
    "inference={name: hmc, num_chains: 2, num_warmup: 10, num_draws: 40, max_num_steps: 1, "
    "compile: false, gain_test: {margin: 0.4, clip: 1.0, looks: 3}}",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("runs") / "run", KEYS)


def test_a_run_that_stops_itself_is_complete_and_says_why(run):
    found = run.record["gain_test"]
    assert run.status == "complete"
    assert found["verdict"] in ("no_gain", "settled")
    draws = found["looks"][-1]["num_draws"]
    assert draws < 40
    assert run.posterior.shape[:2] == (2, draws)
    assert len(found["looks"]) == [10, 20, 40].index(draws) + 1
    assert load_run(run.path).posterior.shape[:2] == (2, draws)
    assert not RunDirectory(run.path).checkpoint.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["data.validation_fraction=0"], "needs a validation split"),
        (["warm_start=[]"], "compares the draws with the ensemble"),
        (
            ["warm_start=[{name: deep_ensemble, num_members: 2, early_stopping: {patience: 3}}]"],
            "which also stopped deep_ensemble early; set its early_stopping=null",
        ),
        (["warm_start=[]", "initial={run}", "data.split_seed=1"], "another data section"),
    ],
)
def test_a_test_that_would_not_be_valid_is_refused(change, message, run, tmp_path):
    keys = [key.format(run=run.path) if "{run}" in key else key for key in change]
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path / "run", [*KEYS, *keys])
