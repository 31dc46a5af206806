"""Write the tables of a study and `summary.json` from the results on disk."""

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.io.atomic import write_json
from bnn_symm.runs.configuration.factories import factories_of, study_commands
from bnn_symm.runs.run import Run
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.keys import NUMERICS
from bnn_symm.studies.plan import Plan
from bnn_symm.studies.results.comparisons import compare_settings, summarize_settings
from bnn_symm.studies.results.conclusions import conclude
from bnn_symm.studies.results.tables import (
    describe_contexts,
    fit_rows,
    load_fits,
    pair_rows,
    write_table,
)
from bnn_symm.studies.study import Study

STUDY_SCHEMA = 1


def write_summary(study_directory: StudyDirectory, study: Study, plan: Plan) -> dict[str, Any]:
    """Write the tables and `summary.json`.

    Args:
        study_directory: the directory of the study.
        study: its configuration.
        plan: its tasks.

    Returns:
        The content of `summary.json`.
    """
    runs = load_fits(study_directory, plan)
    contexts = describe_contexts(plan, runs)
    fits, pairs = fit_rows(study_directory, plan, runs, contexts), pair_rows(study_directory, plan)
    settings = _settings(plan, fits, [context["label"] for context in contexts])
    settings = summarize_settings(settings, fits, pairs)
    comparisons = compare_settings(settings, fits, pairs, contexts=contexts)
    conclusions, headline = conclude(settings, contexts, comparisons)
    for context in contexts:
        if context["convergence"] is not None:
            del context["convergence"]["times"]  # in the table of fits
    counts = _counts("cells", fits) | _counts("pairs", pairs)
    done = counts["cells_complete"] + counts["cells_failed"] == counts["cells"]
    write_table(study_directory, "cells", fits)
    write_table(study_directory, "pairs", pairs)
    modules = factories_of(fit.config for fit in plan.fits)
    content = {
        "study_schema": STUDY_SCHEMA,
        "name": study_directory.path.name,
        "directory": str(study_directory.path),
        "status": "complete"
        if done and not counts["cells_failed"] + counts["pairs_failed"]
        else "incomplete",
        "headline": headline,
        "commands": study_commands(study_directory.path, modules),
        "modules": list(modules),
        "counts": counts,
        "failures": _failures(fits, pairs),
        "conclusions": [conclusion.to_dict() for conclusion in conclusions],
        "contexts": contexts,
        "settings": settings,
        "comparisons": comparisons,
        "provenance": _provenance(list(runs.values())),
        "config": study.to_yaml(),
    }
    write_json(study_directory.summary, content)
    return content


def _settings(
    plan: Plan, fits: Sequence[Mapping[str, Any]], contexts: Sequence[str]
) -> list[dict[str, Any]]:
    settings = []
    for setting in plan.settings:
        own = [row for row in fits if row["setting"] == setting.label]
        known = [row for row in own if row["num_parameters"] is not None]
        settings.append(
            {
                "label": setting.label,
                "context": contexts.index(setting.context),
                "kind": setting.kind,
                "role": setting.role,
                "differences": setting.differences,
                "seeds": list(dict.fromkeys(row["seed"] for row in own)),
                **({"folds": folds} if (folds := _folds(own)) else {}),
                "num_complete": sum(row["status"] == "complete" for row in own),
                "num_failed": sum(row["status"] == "failed" for row in own),
                **{
                    name: known[0][name] if known else None
                    for name in ("num_parameters", "log10_order", "certificate")
                },
            }
        )
    return settings


def _folds(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the folds of some fits; none in a study without folds."""
    return list(dict.fromkeys(row["fold"] for row in rows if "fold" in row))


def _counts(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        name: len(rows),
        **{
            f"{name}_{status}": sum(row["status"] == status for row in rows)
            for status in ("complete", "failed")
        },
    }


def _failures(
    fits: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    failures = []
    for row in (*fits, *pairs):
        if row["status"] == "failed":
            seeds = (
                f"seed {row['seed']}"
                if "relation" not in row
                else f"seeds {row['seed']} and {row['other_seed']}"
            )
            fold = f"fold {row['fold']}, " if "fold" in row else ""
            kind = "fit" if "relation" not in row else "barrier"
            failures.append(
                {
                    "key": row["key"],
                    "what": f"{kind}: {row['setting']}, {fold}{seeds}",
                    "error": row["error"],
                }
            )
    return failures


def _provenance(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the provenance of all fits; differing values are lists."""
    records = [run.record for run in runs]
    return {
        "numerics": NUMERICS,
        "versions": _merged([record["versions"] for record in records]),
        "dataset": _merged([record["dataset"] for record in records]),
        "threads": sorted({record["threads"] for record in records}),
        "hosts": sorted({record["host"] for record in records}),
        "started": min((record["started"] for record in records), default=None),
        "seconds_of_fits": sum(record.get("seconds") or 0.0 for record in records),
    }


def _merged(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = dict.fromkeys(key for record in records for key in record)
    values = {
        key: list({repr(record.get(key)): record.get(key) for record in records}.values())
        for key in keys
    }
    return {
        key: distinct[0] if len(distinct) == 1 else distinct for key, distinct in values.items()
    }
