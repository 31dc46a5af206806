"""The tidy tables of a study: one row a fit, one row a pair, whether it is there, failed or is
missing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.analyses.convergence.report import describe_convergence
from bnn_symm.errors import BnnSymmError
from bnn_symm.io.atomic import write_atomically
from bnn_symm.runs.run import Run
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.plan import Cell, Pair, Plan
from bnn_symm.studies.results.fits import open_cell, read_measures, read_pair, section

_SCORES = ("nll", "accuracy", "rmse", "ece", "brier", "crps", "coverage_90")
_MIXING = ("raw", "aligned", "function")
# In which runs of equal settings differ from time to time.
TIMINGS = ("seconds",)


def load_cells(place: StudyDirectory, plan: Plan) -> dict[str, Run]:
    """The runs that are there, by key; those that diverged too."""
    return {
        cell.key: open_cell(place, cell.key, cell.config)
        for cell in plan.cells
        if place.cell(cell.key).exists()
    }


def describe_contexts(plan: Plan, runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Settings that differ in nothing but the symmetry, and how fast they converged, side by
    side.
    """
    found: dict[str, list[int]] = {}
    for number, setting in enumerate(plan.settings):
        found.setdefault(setting.context, []).append(number)
    contexts = []
    for label, numbers in found.items():
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
    cells = [
        cell
        for number in numbers
        for cell in plan.cells
        if cell.setting == number and cell.key in runs
    ]
    if not cells:
        return None, "no fit is there"
    try:
        told = describe_convergence([runs[cell.key] for cell in cells])
    except BnnSymmError as error:
        return None, str(error)
    for group in told["groups"]:
        number = cells[group["runs"][0]].setting
        group |= {"setting": number, "label": plan.settings[number].label}
    told["times"] = {
        cell.key: _time(own) for cell, own in zip(cells, told.pop("runs"), strict=True)
    }
    return told, None


def _time(own: Mapping[str, Any]) -> dict[str, Any]:
    reached = (own["reached"] or {}).get("gradient_evaluations") or {}
    return {
        "gradients_to_target": reached.get("time"),
        "to_target_censored": reached.get("censored"),
        "converged": own["converged"],
    }


def cell_rows(
    place: StudyDirectory,
    plan: Plan,
    runs: Mapping[str, Run],
    contexts: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """One row a fit; what is not defined, or not there, is None."""
    times: dict[str, dict[str, Any]] = {}
    for context in contexts:
        times |= (context["convergence"] or {}).get("times", {})
    return [
        _cell_row(place, plan, cell, runs.get(cell.key), times.get(cell.key, {}))
        for cell in plan.cells
    ]


def _cell_row(
    place: StudyDirectory, plan: Plan, cell: Cell, run: Run | None, times: Mapping[str, Any]
) -> dict[str, Any]:
    setting = plan.settings[cell.setting]
    row: dict[str, Any] = {
        "key": cell.key,
        "setting": setting.label,
        "context": setting.context,
        "kind": setting.kind,
        "role": setting.role,
        "seed": cell.seed,
        "status": "missing",
        "error": place.failure(cell.key),
        **_columns(plan, setting.differences),
        **{f"test_{name}": None for name in _SCORES},
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
    for name in _SCORES:
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


def pair_rows(place: StudyDirectory, plan: Plan) -> list[dict[str, Any]]:
    """One row a pair; what is not there is None."""
    cells = {cell.key: cell for cell in plan.cells}
    return [
        _pair_row(place, plan, cells[pair.first], cells[pair.second], pair) for pair in plan.pairs
    ]


def _pair_row(
    place: StudyDirectory, plan: Plan, first: Cell, second: Cell, pair: Pair
) -> dict[str, Any]:
    mine, theirs = plan.settings[first.setting], plan.settings[second.setting]
    path = place.pair(pair.key)
    content = read_pair(place, pair.key)
    error = None if content is not None else place.failure(pair.key)
    row: dict[str, Any] = {
        "key": pair.key,
        "relation": pair.relation,
        "first": pair.first,
        "second": pair.second,
        "setting": mine.label,
        "other_setting": theirs.label,
        "context": mine.context,
        "kind": mine.kind,
        "role": mine.role,
        "seed": first.seed,
        "other_seed": second.seed,
        "status": "complete" if content is not None else "missing" if error is None else "failed",
        "error": error,
        **_columns(plan, mine.differences),
    }
    content = content or {}
    for name, own in (("naive", section(content, "naive", path)), ("aligned", content)):
        test, train = section(own, "test", path), section(own, "train", path)
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
    """A column for every key that differs between settings; lists as text, since a column has one
    type.
    """
    names = dict.fromkeys(name for setting in plan.settings for name in setting.differences)
    values = {name: differences.get(name) for name in names}
    return {name: value if value is None else str(value) for name, value in values.items()}


def write_table(place: StudyDirectory, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """`<name>.parquet` and `<name>.csv`."""
    import pandas

    frame = pandas.DataFrame([{key: _finite(value) for key, value in row.items()} for row in rows])
    # A column in which nothing is known is of numbers, not of a type of its own.
    frame = frame.astype(
        {
            column: "float64"
            for column in frame.columns
            if not frame[column].notna().to_numpy().any()
        }
    )
    write_atomically(
        place.path / f"{name}.parquet", lambda temporary: frame.to_parquet(temporary, index=False)
    )
    write_atomically(
        place.path / f"{name}.csv", lambda temporary: frame.to_csv(temporary, index=False)
    )


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
