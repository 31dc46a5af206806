"""A hundred kills lose no draw that was reported as written, and every fit is bitwise identical."""

import os
import signal
import struct
import sys
import traceback

import numpy as np
import pytest

from bnn_symm.posteriors import DrawLog
from bnn_symm.randomness import numpy_generator
from bnn_symm.runs import fit_run, load_config, load_run, resume_run

from .fits import IRIS, fit, history, same_bits

_CHAINS = "num_warmup: 20, num_draws: 100, num_chains: 2, chain_method: sequential, batch_size: 32"
FITS = {
    "sgld": [f"inference={{name: sgld, {_CHAINS}}}"],
    "sghmc": [f"inference={{name: sghmc, {_CHAINS}}}"],
    "sgmclmc": [f"inference={{name: sgmclmc, {_CHAINS}}}"],
    "map": ["inference={name: map, num_steps: 200, log_every: 5}"],
    "mean_field_vi": [
        "inference={name: mean_field_vi, num_steps: 100, num_draws: 5, log_every: 5}"
    ],
}
_REPORT = struct.Struct("<ii")


def _child(path, keys, pipe):
    """Fit or resume, and report every draw once it is on disk; never return."""
    append = DrawLog.append

    def reported(self, *chunks):
        append(self, *chunks)
        for chunk in chunks:
            os.write(pipe, _REPORT.pack(chunk.chain, chunk.first + len(chunk.positions)))

    DrawLog.append = reported
    status = 1
    try:
        if path.exists():
            resume_run(path)
        else:
            fit_run(load_config(None, keys), path)
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def _run(path, keys, seconds):
    """Return the draws that a fit reported before a kill, by chain, and whether it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(path, keys, writing)
    os.close(writing)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    reported: dict[int, int] = {}
    with os.fdopen(reading, "rb") as reports:
        while report := reports.read(_REPORT.size):  # until the pipe closes, which a kill does
            chain, stop = _REPORT.unpack(report)
            reported[chain] = stop
    signal.setitimer(signal.ITIMER_REAL, 0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return reported, os.waitstatus_to_exitcode(status) != 0


@pytest.fixture
def alarm():
    """Kill the only child of this process after a time."""

    def kill(*_):
        for name in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{name}/children") as children:
                for child in children.read().split():
                    os.kill(int(child), signal.SIGKILL)

    former = signal.signal(signal.SIGALRM, kill)
    yield
    signal.signal(signal.SIGALRM, former)


def _kill_again_and_again(folder, name, kills, alarm_seconds):
    keys = [*IRIS, "checkpoint.every=0.05", *FITS[name]]
    undisturbed = fit(folder / "undisturbed", keys)
    whole = undisturbed.posterior
    chance = numpy_generator(0, "acknowledged draws", name)
    done, number, lost = 0, 0, 0
    while done < kills:
        path, promised = folder / f"run-{number}", {}
        number += 1
        killed = True
        while killed and done < kills:
            reported, killed = _run(path, keys, float(chance.uniform(0.001, alarm_seconds)))
            promised |= reported
            done += killed
            if killed and path.exists():
                run = load_run(path)
                if run.status == "complete":
                    killed = False  # after its last word: there is nothing left to resume
                    break
                if run.directory.is_finished():
                    continue
                chains = run.directory.fit_state().draws
                for chain, wanted in promised.items():
                    positions = np.asarray(chains[chain].positions)
                    lost += max(0, wanted - len(positions))
                    np.testing.assert_array_equal(
                        positions, whole.read(chain, 0, len(positions)).numpy()
                    )
        if killed:
            _run(path, keys, 600.0)
        run = load_run(path)
        assert run.status == "complete"
        assert same_bits(run, undisturbed)
        assert history(run) == history(undisturbed)
        assert run.metrics == undisturbed.metrics
    print(f"{name}: {done} kills of {number} fits, {lost} draws lost")
    assert lost == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_a_hundred_kills(tmp_path, name, alarm):
    _kill_again_and_again(tmp_path, name, 25, 4.0)
