"""Whether runs may be compared weight by weight, and a directory for a posterior that was made from others."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.architectures import short_fingerprint
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.experiments.config import dump_config
from bnn_symm.experiments.run import measure, write_metrics
from bnn_symm.experiments.run_directory import RunDirectory, disk_errors
from bnn_symm.experiments.stored_run import Run
from bnn_symm.posteriors import Posterior


def check_comparable(runs: Sequence[Run]) -> list[str]:
    """Warnings about runs whose posteriors live in one parameter space.

    Returns:
        What differs and does not forbid a comparison: training data, temperature, the status of a run.

    Raises:
        IncompatiblePosteriors: if inputs, outputs, architecture, likelihood or mask fingerprint differ, naming both.
    """
    first = runs[0]
    warnings = [f"{run.path} is {run.status}; what it has reached is used" for run in runs if run.status != "complete"]
    for run in runs[1:]:
        for what, mine, theirs in (
            ("inputs of shape", first.preprocessing.input_shape, run.preprocessing.input_shape),
            ("a number of outputs of", first.record["num_outputs"], run.record["num_outputs"]),
            ("the likelihood", _short(first.config.likelihood), _short(run.config.likelihood)),
            *_architectures(first, run),
            ("the mask fingerprint", *(short_fingerprint(r.record["mask_fingerprint"]) for r in (first, run))),
        ):
            if mine != theirs:
                raise IncompatiblePosteriors(
                    f"{run.path} has {what} {theirs}, {first.path} has {mine}: their weights mean other things; "
                    f"compare runs of one architecture, likelihood and architecture.symmetry, its seed included"
                )
        warnings += _differences(first, run)
    return warnings


def _architectures(first: Run, run: Run) -> list[tuple[str, Any, Any]]:
    """Settings of the architecture that differ; of the symmetry, what is fixed is compared by its fingerprint."""
    mine, theirs = (dataclasses.asdict(r.config.architecture) for r in (first, run))
    return [
        (f"architecture.{key}", _as_typed(mine.get(key)), _as_typed(theirs.get(key)))
        for key in dict.fromkeys([*mine, *theirs])
        if key != "symmetry"
    ] + [("architecture.symmetry.kind", mine["symmetry"]["kind"], theirs["symmetry"]["kind"])]


def _as_typed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _differences(first: Run, run: Run) -> list[str]:
    found = []
    for key, what in (("sha256", "data"), ("split_seed", "a split seed")):
        mine, theirs = (str(r.record["dataset"].get(key)) for r in (first, run))
        if mine != theirs:
            found.append(f"{run.path} was trained on {what} {theirs[:12]}, {first.path} on {mine[:12]}")
    mine, theirs = first.config.inference, run.config.inference
    if (mine.temperature, mine.tempering) != (theirs.temperature, theirs.tempering):
        found.append(f"{run.path} has temperature {theirs.temperature}, {first.path} has {mine.temperature}")
    return found


def _short(settings: Any) -> str:
    return ", ".join(f"{key}={value}" for key, value in dataclasses.asdict(settings).items())


def save_derived_run(path: Path, source: Run, posterior: Posterior, derived: Mapping[str, Any]) -> None:
    """Writes a posterior that was made from others as a run of its own, to evaluate, predict with, and compare.

    Args:
        path: a directory that does not exist.
        source: the run whose configuration, preprocessing and data it keeps.
        posterior: in the parameter space of that run.
        derived: how it was made; kept in `run.json` under `derived`.

    Raises:
        InvalidRun: if the directory exists or cannot be written.
    """
    fixed = source.directory.read_fixed() if source.record["mask_fingerprint"] is not None else {}
    record = {key: value for key, value in source.record.items() if key not in ("run_schema", "status")}
    directory = RunDirectory.create(
        path,
        config=dump_config(source.config),
        record={**record, "derived": dict(derived)},
        preprocessing=source.preprocessing.to_dict(),
        fixed=fixed,
    )
    try:
        with disk_errors(path, "make room, and run the command again"):
            posterior.save(directory.posterior, max_megabytes=source.config.save.max_megabytes)
            write_metrics(directory, measure(posterior, source.dataset(), seed=source.config.seed))
            directory.finish_history(posterior.history)
            directory.update_record(status="complete")
            directory.remove_working_files()
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        if path.exists():
            directory.release()
