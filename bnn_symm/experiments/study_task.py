"""One task of a study, in a process of its own: `python -m bnn_symm.experiments.study_task DIR KEY [CORES]`.

A task is one fit with what is measured of it, or one pair. It may be run any number of times, anywhere that the
directory is: what is there already is not done again. The result is on disk; the exit status is 0, or 1 with one line
on stderr. Started by a study, it ends when that does: its standard input closes.
"""

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from bnn_symm.data import Dataset
from bnn_symm.diagnostics.chain_statistics import MIN_DRAWS, chain_statistics
from bnn_symm.diagnostics.function_values import function_values
from bnn_symm.errors import BnnSymmError, FitDiverged, InvalidRun, SymmetryError
from bnn_symm.experiments.comparable import check_comparable
from bnn_symm.experiments.comparisons import pair_runs
from bnn_symm.experiments.config import parse_config
from bnn_symm.experiments.mixing_report import describe_mixing, held_out, joined
from bnn_symm.experiments.run import fit_run, resume_run
from bnn_symm.experiments.stored_run import Run, load_run, module_of
from bnn_symm.experiments.study_directory import StudyDirectory
from bnn_symm.files import write_json
from bnn_symm.inference.pyro_sampling import PyroSampler
from bnn_symm.posteriors import Posterior
from bnn_symm.symmetry import symmetry_group
from bnn_symm.threads import limit_cores, use_threads

MEASURES = "measures.json"
_STOPPED = 143  # as a process that was terminated
# Draws of each posterior behind the R-hat of a pair.
_DRAWS = 100


def main() -> int:
    """The task that the command line names."""
    directory, key = StudyDirectory(sys.argv[1]), sys.argv[2]
    if len(sys.argv) > 3:
        limit_cores(int(sys.argv[3]))
        threading.Thread(target=_end_with_the_study, daemon=True).start()
    # A network class of the user's own is found where the study was started.
    sys.path.append(os.getcwd())
    try:
        return run_task(directory, key)
    except BnnSymmError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def run_task(directory: StudyDirectory, key: str) -> int:
    """Does what is to be done under a key, unless it is done; the exit status.

    Raises:
        BnnSymmError: if it cannot be done.
    """
    plan = directory.read_plan()
    if directory.is_done(key):
        return 0
    if key in plan["cells"]:
        return _fit(directory, key, plan["cells"][key])
    if key not in plan["pairs"]:
        raise InvalidRun(f"{directory.plan} has no task {key}")
    pair = plan["pairs"][key]
    runs = [_open(directory.cell(pair[side]), plan["cells"][pair[side]]) for side in ("first", "second")]
    write_json(directory.pair(key), measure_pair(runs[0], runs[1], plan["options"]))
    return 0


def _fit(directory: StudyDirectory, key: str, raw: dict[str, Any]) -> int:
    attempt = directory.begin(key)
    path = attempt / "run"
    config = parse_config(raw)
    try:
        run = _fitted(path, config)
    except FitDiverged as error:
        # To the same bits it would do so again: that is its result.
        write_json(path / MEASURES, {"error": str(error)})
        directory.publish(path, key)
        return 0
    if run.status != "complete":
        return _STOPPED
    write_json(path / MEASURES, measure_cell(run))
    directory.publish(path, key)
    return 0


def _fitted(path: Path, config: Any) -> Run:
    """The run, from where a process that died had left it if it can go on to the same bits."""
    if not path.exists():
        return fit_run(config, path)
    with contextlib.suppress(InvalidRun):
        run = load_run(path, module=module_of(config))
        if run.status == "complete":
            return run
        if not run.record.get("diverged"):
            return resume_run(path, module=module_of(config))
    for number in range(1_000_000):  # what cannot go on is kept beside it, until the attempt is over
        with contextlib.suppress(OSError):
            path.rename(path.with_name(f"left-{number}"))
            break
    return fit_run(config, path)


def _open(path: Path, raw: dict[str, Any]) -> Run:
    return load_run(path, module=module_of(parse_config(raw)))


def measure_cell(run: Run) -> dict[str, Any]:
    """What tables say of a fit beside its metrics: its symmetry group, and of a sampler how its chains mix."""
    content: dict[str, Any] = {"error": None}
    try:
        group = symmetry_group(run.model.net, input_shape=run.preprocessing.input_shape)
        content |= {"log10_order": group.log10_order, "certificate": group.certificate}
    except SymmetryError as error:
        content |= {"log10_order": None, "certificate": f"not derived: {error}"}
    content["network_parameters"] = run.model.num_net_parameters
    method = run.config.inference
    if isinstance(method, PyroSampler):
        with use_threads(run.threads):
            content["mixing"] = describe_mixing(run.posterior, run.dataset(), method=method, per_draw=False)[0]
    return content


def measure_pair(first: Run, second: Run, options: dict[str, Any]) -> dict[str, Any]:
    """The barrier, naive and aligned, and how far the two posteriors agree when they are taken for chains.

    Raises:
        IncompatiblePosteriors: if their weights mean other things.
        InvalidRun: if one of them diverged.
    """
    for run in (first, second):
        if run.status != "complete":
            raise InvalidRun(f"{run.path} is {run.status}, and has no posterior to measure a barrier to")
    check_comparable([first, second])
    keys = ("matching", "num_draws")
    content, aligned = pair_runs(first, second, **{key: options[key] for key in keys})
    dataset = first.dataset()
    with use_threads(first.threads):
        weights, functions = agreement([first.posterior, second.posterior], dataset)
        content["rhat"] = {"raw": weights, "aligned": agreement(aligned)[0], "function": functions}
    return content


def agreement(posteriors: list[Posterior], dataset: Dataset | None = None) -> tuple[float | None, float | None]:
    """Median split R-hat of weights, and of functions at held-out points, with each posterior for a chain.

    None where there are too few draws, or where no data set says at which points to look.
    """
    together = joined(posteriors)
    chains, draws, _ = together.shape
    if draws < MIN_DRAWS:
        return None, None
    positions = np.stack([together._read(chain, 0, min(draws, _DRAWS)).cpu().numpy() for chain in range(chains)])
    found = [_median(chain_statistics(positions).rhat)]
    if dataset is not None:
        found.append(_median(chain_statistics(function_values(together, held_out(dataset)[1]).columns).rhat))
    return found[0], found[-1] if dataset is not None else None


def _median(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if defined.size else None


def _end_with_the_study() -> None:
    """Waits for the end of standard input, which comes when the process at the other end is gone."""
    with contextlib.suppress(OSError):
        while os.read(0, 1 << 16):  # not by `sys.stdin`, whose lock the end of the interpreter would wait for
            pass
    os._exit(_STOPPED)


if __name__ == "__main__":
    sys.exit(main())
