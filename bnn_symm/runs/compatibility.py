"""Check whether runs can be compared weight by weight, and save posteriors derived from runs."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bnn_symm.architectures import fingerprint_of, short_fingerprint
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.formatting import number
from bnn_symm.inference import chosen_fixed_values
from bnn_symm.posteriors import Posterior
from bnn_symm.runs.configuration.config import dump_config
from bnn_symm.runs.configuration.unused_settings import dropout_rate
from bnn_symm.runs.directory.metrics import measure
from bnn_symm.runs.directory.network_record import NetworkRecord, fingerprint_of_constants
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import Run, module_of, stored_config

# Largest difference of two standardizations, in standard deviations. Splits of one data set differ
# by far less.
_MAX_STANDARDIZATION_GAP = 0.5


def check_comparable(runs: Sequence[Run], *, move_statistics: bool = False) -> list[str]:
    """Check that the posteriors of runs live in one parameter space.

    Args:
        runs: the runs; all are compared with the first.
        move_statistics: whether statistics of frozen batch norm may differ, because they are
            aligned and interpolated with the weights.

    Returns:
        Warnings about differences that do not prevent a comparison: training data, temperature,
        dropout rates, or the status of a run.

    Raises:
        IncompatiblePosteriors: if inputs, outputs, architecture, likelihood or mask fingerprint
            differ. The message names both runs.
    """
    first = runs[0]
    warnings = [
        f"{run.path} is {run.status}; its last saved state is used"
        for run in runs
        if run.status != "complete"
    ]
    for run in runs[1:]:
        for what, mine, theirs in (
            ("inputs of shape", first.preprocessing.input_shape, run.preprocessing.input_shape),
            ("features", first.preprocessing.feature_names, run.preprocessing.feature_names),
            ("target columns", *(_target_names(r) for r in (first, run))),
            ("classes", first.preprocessing.class_labels, run.preprocessing.class_labels),
            ("a factory", *(module_of(stored_config(r.directory)) for r in (first, run))),
            ("a number of outputs of", first.record["num_outputs"], run.record["num_outputs"]),
            ("the likelihood", _short(first.config.likelihood), _short(run.config.likelihood)),
            *_architectures(first, run),
            (
                "the mask fingerprint",
                *(short_fingerprint(r.record["mask_fingerprint"]) for r in (first, run)),
            ),
            (
                "constants (buffers, frozen parameters) with the fingerprint",
                *(_constants(r, move_statistics) for r in (first, run)),
            ),
            ("the stochastic parameters", *(", ".join(r.model.shapes) for r in (first, run))),
            (
                "fixed parameters with the fingerprint",
                *(_fixed_parameters(r) for r in (first, run)),
            ),
        ):
            if mine != theirs:
                raise IncompatiblePosteriors(
                    f"{run.path} has {what} {theirs}, {first.path} has {mine}: their weights are "
                    "not comparable; compare runs of one architecture, likelihood and "
                    "architecture.symmetry, its seed included"
                )
        gap = _standardization_gap(first, run)
        if gap > _MAX_STANDARDIZATION_GAP:
            raise IncompatiblePosteriors(
                f"{run.path} and {first.path} standardize their data differently, by "
                f"{number(gap, 2)} standard deviations: their weights are not comparable; fit "
                "both to data of one distribution, or with data.standardize=false"
            )
        if gap > 0:
            warnings.append(
                f"{run.path} and {first.path} standardize their data differently, by up to "
                f"{number(gap, 1)} standard deviations"
            )
        warnings += _differences(first, run)
    return warnings


def _architectures(first: Run, run: Run) -> list[tuple[str, Any, Any]]:
    """List the settings of both architectures that the meaning of the weights depends on.

    Of the symmetry section only the kind is compared: fixed entries have a fingerprint.
    """
    mine, theirs = (dataclasses.asdict(r.config.architecture) for r in (first, run))
    return [
        (f"architecture.{key}", _as_typed(mine.get(key)), _as_typed(theirs.get(key)))
        for key in dict.fromkeys([*mine, *theirs])
        if key not in ("symmetry", "dropout")
    ] + [
        (
            "architecture.symmetry.kind",
            _space(mine["symmetry"]["kind"]),
            _space(theirs["symmetry"]["kind"]),
        )
    ]


def _constants(run: Run, move_statistics: bool) -> str:
    """Return the short fingerprint of the constants of a network.

    Runs of former versions have none in their record; it is computed from the network, built again.
    """
    if move_statistics and (moving := run.model.statistics):
        return short_fingerprint(fingerprint_of_constants(run.model.net, without=moving))
    stored = run.record.get("constants_fingerprint")
    return short_fingerprint(
        stored or (fingerprint_of_constants(run.full_model.net) if module_of(run.config) else None)
    )


def _fixed_parameters(run: Run) -> str:
    """Return the short fingerprint of the parameters that get no posterior."""
    values = run.model.fixed_values()
    return short_fingerprint(fingerprint_of(values) if values else None)


def _space(kind: str) -> str:
    """Return the kind of parameter space; `init_matched` networks are standard ones."""
    return "standard" if kind == "init_matched" else kind


def _as_typed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _differences(first: Run, run: Run) -> list[str]:
    """List the differences between two runs that do not prevent a comparison."""
    notes = []
    mine, theirs = first.record["dataset"], run.record["dataset"]
    if mine.get("sha256") != theirs.get("sha256"):
        notes.append(
            f"{run.path} was trained on data {str(theirs.get('sha256'))[:12]}, {first.path} on "
            f"{str(mine.get('sha256'))[:12]}"
        )
    elif _split(first) != _split(run) and None not in (_split(first), _split(run)):
        notes.append(
            f"{run.path} was trained on another split of the data ({_split(run)}) than "
            f"{first.path} ({_split(first)}): test points of one may be training points of the "
            "other"
        )
    mine, theirs = first.config.inference, run.config.inference
    if (mine.temperature, mine.tempering) != (theirs.temperature, theirs.tempering):
        notes.append(
            f"{run.path} has temperature {theirs.temperature}, {first.path} has {mine.temperature}"
        )
    rates = [dropout_rate(r.config) for r in (first, run)]
    if all(rates) and rates[0] != rates[1]:
        notes.append(f"{run.path} has dropout rate {rates[1]:g}, {first.path} has {rates[0]:g}")
    return notes


def _split(run: Run) -> str | None:
    """Return the identity of the split of a run; None for runs whose version did not record it."""
    rows, dataset = run.record["dataset"].get("split_sha256"), run.record["dataset"]
    return (
        None if rows is None else f"rows {str(rows)[:12]}, split seed {dataset.get('split_seed')}"
    )


def _target_names(run: Run) -> tuple[str, ...]:
    """Return the names of several target columns; none for one."""
    return tuple(column.name for column in run.preprocessing.target_columns)


def _standardization_gap(first: Run, run: Run) -> float:
    """Return the largest difference of means and log scales of two runs, in standard deviations."""
    mine, theirs = first.preprocessing.scaling, run.preprocessing.scaling
    means = np.abs(mine.x_mean - theirs.x_mean) / mine.x_scale
    scales = np.abs(np.log(mine.x_scale / theirs.x_scale))
    target = [
        gap
        for own, other in zip(mine.columns, theirs.columns, strict=True)
        for gap in (
            abs(own.y_mean - other.y_mean) / own.y_scale,
            abs(math.log(own.y_scale / other.y_scale)),
        )
    ]
    target.append(abs(math.log(mine.exposure_scale / theirs.exposure_scale)))
    return max(float(means.max()), float(scales.max()), *target)


def _short(settings: Any) -> str:
    return ", ".join(f"{key}={value}" for key, value in dataclasses.asdict(settings).items())


# Keys of `run.json` that describe a fit, and do not apply to a derived run.
_FIT_KEYS = (
    *("run_schema", "status", "seconds", "gradient_evaluations", "started", "derived"),
    *("warm_start", "processes", "resumed_with_changes", "id", "files", "task"),
)
_ELBO_TERMS = ("expected_log_likelihood", "kl")


def save_derived_run(
    path: Path,
    source: Run,
    posterior: Posterior,
    derived: Mapping[str, Any],
    checkpoints: Mapping[int, Posterior] = MappingProxyType({}),
) -> None:
    """Write a posterior derived from other runs as a run of its own.

    Args:
        path: a directory that does not exist.
        source: the run whose configuration, preprocessing and data the new run inherits.
        posterior: a posterior in the parameter space of that run.
        derived: how it was derived; stored in `run.json` under `derived`.
        checkpoints: posteriors of earlier steps by step, derived in the same way.

    Raises:
        InvalidRun: if the directory exists or cannot be written.
    """
    fixed = source.directory.read_fixed() if source.record["mask_fingerprint"] is not None else {}
    record = {key: value for key, value in source.record.items() if key not in _FIT_KEYS}
    metrics = measure(posterior, source.dataset(), seed=source.config.seed)
    # The prior mean refers to the numbering of the units in the source, and a product conditions on
    # more data than the training split of this run.
    is_product = derived.get("rule") == "product"
    if is_product or source.record.get("prior_mean") is not None:
        metrics |= {key: None for key in metrics if key.startswith("elbo") or key in _ELBO_TERMS}
    if is_product:
        metrics["train"] = None
    max_megabytes = source.config.save.max_megabytes
    network = None
    if "constants_fingerprint" in record:
        kept = NetworkRecord.read(source.directory.network)
        if posterior.model is not source.model and posterior.model.statistics:
            moved = source.full_model.with_statistics(posterior.model.statistics)
            kept = NetworkRecord.of(moved, kept.points)
            record["constants_fingerprint"] = kept.fingerprint
        network = kept.to_bytes()

    def complete(run: RunDirectory) -> None:
        run.keep_posteriors(checkpoints, max_megabytes)
        run.write_result(posterior, metrics, max_megabytes)

    RunDirectory.create(
        path,
        config=dump_config(source.config),
        record={**record, "derived": dict(derived)},
        preprocessing=source.preprocessing.to_dict(),
        fixed=fixed,
        prior_mean=source.directory.read_prior_mean(source.record),
        network=network,
        fixed_parameters=chosen_fixed_values(source.model, source.full_model),
        complete=complete,
    ).release()
