"""A power cut loses no draw that was reported as written; the resumed fit is bitwise identical."""

import contextlib
import os
import shutil

import numpy as np
import pytest

from bnn_symm.errors import InvalidRun
from bnn_symm.posteriors import DrawLog
from bnn_symm.randomness import numpy_generator
from bnn_symm.runs import load_run, resume_run
from bnn_symm.runs.directory.run_directory import RunDirectory
from tests.runs.directory.test_run_files import RECORD

from .fits import IRIS, fit, history, same_bits
from .power_cuts import Recorder

pytestmark = pytest.mark.thorough

_OFTEN = "checkpoint.every=0.01"
_DRAWS = "num_draws: 24, num_chains: 2, chain_method: sequential"
FITS = {
    "hmc": [f"inference={{name: hmc, max_num_steps: 4, num_warmup: 8, {_DRAWS}}}"],
    "sgld": [f"inference={{name: sgld, num_warmup: 8, batch_size: 32, {_DRAWS}}}"],
    "mean_field_vi": ["inference={name: mean_field_vi, num_steps: 30, num_draws: 4, log_every: 5}"],
    "warm_start": [
        "inference={name: map, num_steps: 20, log_every: 5}",
        "warm_start=[{name: map, num_steps: 10}]",
        "checkpoint.keep=[5]",
    ],
}


def _recorded(folder, name):
    """Return a fit, its recorded states, and the same fit without interruption."""
    keys = [*IRIS, _OFTEN, *FITS[name]]
    home = folder / "disk"
    home.mkdir()
    recorder = Recorder(home)
    append = DrawLog.append

    def promise(self, *chunks):
        append(self, *chunks)
        for chunk in chunks:
            recorder.promised[chunk.chain] = chunk.first + len(chunk.positions)

    DrawLog.append = promise
    try:
        with recorder.recording():
            fit(home / "run", keys)
    finally:
        DrawLog.append = append
    return recorder, load_run(home / "run")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    known = {}

    def get(name):
        if name not in known:
            known[name] = _recorded(tmp_path_factory.mktemp(name), name)
        return known[name]

    return get


def _cut(recorder, number, seed, folder):
    recorder.moments[number].restore(folder, numpy_generator(seed, "power cut", number))
    return folder / "run"


def _check(path, moment, undisturbed):
    """Check that all reported draws can be loaded; return whether there is a run."""
    if not path.exists():
        assert moment.promised == {}
        return False
    run = load_run(path)
    assert run.status in ("interrupted", "complete")
    if run.status == "interrupted":
        chains = run.directory.fit_state().draws if not run.directory.is_finished() else {}
        whole = undisturbed.posterior
        for chain, wanted in moment.promised.items():
            if run.directory.is_finished():
                break
            positions = np.asarray(chains[chain].positions)
            assert len(positions) >= wanted
            np.testing.assert_array_equal(positions, whole.read(chain, 0, len(positions)).numpy())
    with contextlib.suppress(InvalidRun):  # Raised if there is no state yet.
        assert np.isfinite(run.posterior.draws().numpy()).all()
    if run.status == "complete":
        assert same_bits(run, undisturbed)
    return True


def _goes_on(path, undisturbed):
    run = load_run(path)
    if run.status != "complete":
        run = resume_run(path)
    assert same_bits(run, undisturbed)
    assert history(run) == history(undisturbed)
    assert run.metrics == undisturbed.metrics
    # A cut after the end may leave names that were removed just before.
    extra = {"lock.json", "writer.lock"}
    assert {entry.name for entry in path.iterdir()} - extra == {
        entry.name for entry in undisturbed.path.iterdir()
    }


@pytest.mark.parametrize(
    "name", ["hmc", pytest.param("sgld", marks=pytest.mark.slow), "warm_start"]
)
def test_every_moment_loads(recorded, tmp_path, name):
    recorder, undisturbed = recorded(name)
    assert len(recorder.moments) > 60
    there = []
    for number in range(0, len(recorder.moments), 4):
        path = _cut(recorder, number, 0, tmp_path / "disk")
        there.append(_check(path, recorder.moments[number], undisturbed))
        shutil.rmtree(tmp_path / "disk")
    assert there == sorted(there)  # once it is there it stays
    assert not there[0]
    assert there[-1]


_TWENTY = [pytest.param(name, i / 20, marks=pytest.mark.slow) for i in range(20) for name in FITS]


@pytest.mark.parametrize(("name", "part"), [("hmc", 0.5), ("hmc", 0.97), *_TWENTY])
def test_the_resumed_run_is_bitwise_identical(recorded, tmp_path, name, part):
    recorder, undisturbed = recorded(name)
    number = int(part * len(recorder.moments))
    path = _cut(recorder, number, 1, tmp_path / "disk")
    if _check(path, recorder.moments[number], undisturbed):
        _goes_on(path, undisturbed)


def test_a_fit_syncs_a_few_times_a_checkpoint(recorded):
    """Each written file, its folder and the history are synced; not every row of the history is."""
    recorder, undisturbed = recorded("hmc")
    assert len(recorder.moments) < 40 * len(history(undisturbed))


def test_a_run_that_was_made_is_there_with_all_its_files(tmp_path):
    """The run is complete on disk as soon as `create` returns."""
    home = tmp_path / "disk"
    home.mkdir()
    recorder = Recorder(home)
    with recorder.recording():
        run = RunDirectory.create(
            home / "new" / "run", config="seed: 0\n", record=RECORD, preprocessing={}, fixed={}
        )
        recorder.look()
        first = len(recorder.moments) - 1
    run.release()
    for seed in range(10):
        folder = tmp_path / f"cut-{seed}"
        recorder.moments[first].restore(folder, numpy_generator(seed, "power cut"))
        left = folder / "new" / "run"
        assert {"config.yaml", "run.json", "preprocessing.json", "draws", "checkpoint"} <= set(
            os.listdir(left)
        )
        assert RunDirectory(left).read_record()["status"] == "interrupted"
        RunDirectory(left).check_first_files()
