"""Build the tidy tables of a study: one row per fit and one row per pair.

Failed and missing fits and pairs have rows too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.analyses.convergence.report import describe_convergence
from bnn_symm.diagnostics.scores.scores import SCORES
from bnn_symm.errors import BnnSymmError
from bnn_symm.io.atomic import write_atomically
from bnn_symm.runs.run import Run
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.plan import Pair, Plan, StudyFit
from bnn_symm.studies.results.fits import open_fit, read_measures, read_pair, section

_MIXING = ("raw", "aligned", "function")
TIMINGS = ("seconds",)
"""Columns in which repeated runs of equal settings differ."""


def load_fits(study_directory: StudyDirectory, plan: Plan) -> dict[str, Run]:
    """Load the runs that exist, including those that diverged.

    Args:
        study_directory: the directory of the study.
        plan: its tasks.

    Returns:
        The runs, by key.
    """
    return {
        fit.key: open_fit(study_directory, fit.key, fit.config)
        for fit in plan.fits
        if study_directory.fit_path(fit.key).exists()
    }


def describe_contexts(plan: Plan, runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Group the settings that differ only in the symmetry, and compare how fast they converged.

    Args:
        plan: the tasks of the study.
        runs: the runs that exist, by key.

    Returns:
        The contexts, each with `convergence`, or a reason why it is unknown.
    """
    settings_by_context: dict[str, list[int]] = {}
    for number, setting in enumerate(plan.settings):
        settings_by_context.setdefault(setting.context, []).append(number)
    contexts = []
    for label, numbers in settings_by_context.items():
        convergence, reason = _convergence(plan, runs, numbers)
        baseline = [number for number in numbers if plan.settings[number].role == "baseline"]
        contexts.append(
            {
                "label": label,
                "differences": plan.settings[numbers[0]].context_differences,
                "settings": numbers,
                "baseline": baseline[0] if baseline else None,
                "convergence": convergence,
                "convergence_reason": reason,
            }
        )
    return contexts


def _convergence(
    plan: Plan, runs: Mapping[str, Run], numbers: Sequence[int]
) -> tuple[dict[str, Any] | None, str | None]:
    fits = [
        fit for number in numbers for fit in plan.fits if fit.setting == number and fit.key in runs
    ]
    if not fits:
        return None, "no fit exists"
    try:
        convergence = describe_convergence([runs[fit.key] for fit in fits])
    except BnnSymmError as error:
        return None, str(error)
    for group in convergence["groups"]:
        number = fits[group["runs"][0]].setting
        group |= {"setting": number, "label": plan.settings[number].label}
    convergence["times"] = {
        fit.key: _time(run) for fit, run in zip(fits, convergence.pop("runs"), strict=True)
    }
    return convergence, None


def _time(run: Mapping[str, Any]) -> dict[str, Any]:
    time = (run["reached"] or {}).get("gradient_evaluations") or {}
    return {
        "gradients_to_target": time.get("time"),
        "to_target_censored": time.get("censored"),
        "converged": run["converged"],
    }


def fit_rows(
    study_directory: StudyDirectory,
    plan: Plan,
    runs: Mapping[str, Run],
    contexts: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return one row per fit, with None for undefined and missing values.

    Args:
        study_directory: the directory of the study.
        plan: its tasks.
        runs: the runs that exist, by key.
        contexts: of `describe_contexts`.

    Returns:
        The rows, in the order of the plan.
    """
    times: dict[str, dict[str, Any]] = {}
    for context in contexts:
        times |= (context["convergence"] or {}).get("times", {})
    return [
        _fit_row(study_directory, plan, fit, runs.get(fit.key), times.get(fit.key, {}))
        for fit in plan.fits
    ]


def _fit_row(
    study_directory: StudyDirectory,
    plan: Plan,
    fit: StudyFit,
    run: Run | None,
    times: Mapping[str, Any],
) -> dict[str, Any]:
    setting = plan.settings[fit.setting]
    row: dict[str, Any] = {
        "key": fit.key,
        "setting": setting.label,
        "context": setting.context,
        "kind": setting.kind,
        "role": setting.role,
        "seed": fit.seed,
        "status": "missing",
        "error": study_directory.failure(fit.key),
        **_columns(plan, setting.differences),
        **{f"test_{name}": None for name in SCORES},
        **dict.fromkeys(("train_nll", "validation_nll", "elbo", "kl", "expected_log_likelihood")),
        **dict.fromkeys(("num_parameters", "log10_order", "certificate", "mask_fingerprint")),
        **dict.fromkeys(("gradient_evaluations", "seconds")),
        "gradients_to_target": times.get("gradients_to_target"),
        "to_target_censored": times.get("to_target_censored"),
        "converged": times.get("converged"),
        **{f"rhat_{view}_max": None for view in _MIXING},
        "ess_function_min": None,
    }
    if run is None:
        return row | {"status": "missing" if row["error"] is None else "failed"}
    measures, metrics = read_measures(run), run.metrics or {}
    test = section(metrics, "test", run.directory.metrics)
    for name in SCORES:
        row[f"test_{name}"] = test.get(name)
    for part in ("train", "validation"):
        row[f"{part}_nll"] = section(metrics, part, run.directory.metrics).get("nll")
    for name in ("elbo", "kl", "expected_log_likelihood"):
        row[name] = metrics.get(name)
    for name in ("num_parameters", "mask_fingerprint", "gradient_evaluations", "seconds"):
        row[name] = run.record.get(name)
    for name in ("log10_order", "certificate"):
        row[name] = measures.get(name)
    mixing = section(measures, "mixing", run.path)
    for view in _MIXING:
        row[f"rhat_{view}_max"] = section(mixing, view, run.path).get("rhat_max")
    row["ess_function_min"] = section(mixing, "function", run.path).get("ess_bulk_min")
    return row | {
        "status": "failed" if measures.get("error") else "complete",
        "error": measures.get("error"),
    }


def pair_rows(study_directory: StudyDirectory, plan: Plan) -> list[dict[str, Any]]:
    """Return one row per pair, with None for missing values.

    Args:
        study_directory: the directory of the study.
        plan: its tasks.

    Returns:
        The rows, in the order of the plan.
    """
    fits = {fit.key: fit for fit in plan.fits}
    return [
        _pair_row(study_directory, plan, fits[pair.first], fits[pair.second], pair)
        for pair in plan.pairs
    ]


def _pair_row(
    study_directory: StudyDirectory, plan: Plan, first: StudyFit, second: StudyFit, pair: Pair
) -> dict[str, Any]:
    setting, other = plan.settings[first.setting], plan.settings[second.setting]
    path = study_directory.pair_path(pair.key)
    content = read_pair(study_directory, pair.key)
    error = None if content is not None else study_directory.failure(pair.key)
    row: dict[str, Any] = {
        "key": pair.key,
        "relation": pair.relation,
        "first": pair.first,
        "second": pair.second,
        "setting": setting.label,
        "other_setting": other.label,
        "context": setting.context,
        "kind": setting.kind,
        "role": setting.role,
        "seed": first.seed,
        "other_seed": second.seed,
        "status": "complete" if content is not None else "missing" if error is None else "failed",
        "error": error,
        **_columns(plan, setting.differences),
    }
    content = content or {}
    for name, barrier in (("naive", section(content, "naive", path)), ("aligned", content)):
        test, train = section(barrier, "test", path), section(barrier, "train", path)
        row |= {
            name: test.get("height"),
            f"{name}_standard_error": test.get("standard_error"),
            f"{name}_midpoint": test.get("midpoint"),
            f"{name}_error": test.get("error_height"),
            f"{name}_train": train.get("height"),
        }
    alignment, rhat = section(content, "alignment", path), section(content, "rhat", path)
    row |= {
        name: alignment.get(name)
        for name in ("num_moved", "num_movable", "distance_before", "distance_after")
    }
    return row | {f"rhat_{view}": rhat.get(view) for view in _MIXING}


def _columns(plan: Plan, differences: Mapping[str, Any]) -> dict[str, Any]:
    """Return a column for every key that differs between settings, with values as text."""
    names = dict.fromkeys(name for setting in plan.settings for name in setting.differences)
    values = {name: differences.get(name) for name in names}
    return {name: value if value is None else str(value) for name, value in values.items()}


def write_table(
    study_directory: StudyDirectory, name: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write `<name>.parquet` and `<name>.csv`.

    Args:
        study_directory: the directory of the study.
        name: of the table.
        rows: of the table.
    """
    import pandas

    frame = pandas.DataFrame([{key: _finite(value) for key, value in row.items()} for row in rows])
    # An empty column has the type of numbers.
    frame = frame.astype(
        {
            column: "float64"
            for column in frame.columns
            if not frame[column].notna().to_numpy().any()
        }
    )
    write_atomically(
        study_directory.path / f"{name}.parquet",
        lambda temporary: frame.to_parquet(temporary, index=False),
    )
    write_atomically(
        study_directory.path / f"{name}.csv", lambda temporary: frame.to_csv(temporary, index=False)
    )


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
