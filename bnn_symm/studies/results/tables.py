"""Build the tidy tables of a study: one row per fit and one row per pair.

Failed and missing fits and pairs have rows too.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.analyses.convergence.report import describe_convergence
from bnn_symm.diagnostics.measures import FIT_MEASURES, PAIR_MEASURES
from bnn_symm.errors import BnnSymmError
from bnn_symm.io.atomic import write_atomically
from bnn_symm.runs.run import Run
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.plan import Pair, Plan, StudyFit
from bnn_symm.studies.results.fits import open_fit, read_measures, read_pair, section

# Columns besides the measures, with their places in the files of a fit and of a pair.
_FIT_FACTS = {
    **{key: f"record.{key}" for key in ("num_parameters", "mask_fingerprint")},
    **{key: f"measures.{key}" for key in ("log10_order", "certificate")},
    **{key: f"times.{key}" for key in ("to_target_censored", "converged")},
}
_PAIR_FACTS = {
    "naive_standard_error": "naive.test.standard_error",
    "aligned_standard_error": "test.standard_error",
    **{key: f"alignment.{key}" for key in ("num_moved", "num_movable")},
}
_NO_TARGET = (
    "folds have training points of their own, so that their objectives have no common target"
)
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
    if any(fit.fold is not None for fit in fits):
        return None, _NO_TARGET
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
        **({} if fit.fold is None else {"fold": fit.fold}),
        "seed": fit.seed,
        "status": "missing",
        "error": study_directory.failure(fit.key),
        **_columns(plan, setting.differences),
    }
    files: dict[str, Any] = {"times": times}
    if run is None:
        row["status"] = "missing" if row["error"] is None else "failed"
    else:
        measures = read_measures(run)
        files |= {"metrics": run.metrics, "record": run.record, "measures": measures}
        row["error"] = measures.get("error")
        row["status"] = "failed" if row["error"] else "complete"
    path = study_directory.fit_path(fit.key)
    sources = _FIT_FACTS | {key: own.source for key, own in FIT_MEASURES.items()}
    return row | {key: _value(files, source, path) for key, source in sources.items()}


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
        **({} if first.fold is None else {"fold": first.fold}),
        "seed": first.seed,
        "other_seed": second.seed,
        "status": "complete" if content is not None else "missing" if error is None else "failed",
        "error": error,
        **_columns(plan, setting.differences),
    }
    sources = _PAIR_FACTS | {key: own.source for key, own in PAIR_MEASURES.items()}
    return row | {key: _value(content or {}, source, path) for key, source in sources.items()}


def _value(content: Mapping[str, Any], source: str, path: Path) -> Any:
    """Return the value at a place in files; None if it or an object around it is missing."""
    *outer, last = source.split(".")
    for name in outer:
        content = section(content, name, path)
    return content.get(last)


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
