"""Name the measures of a study with their units, and format their estimates."""

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.scores.scores import SCORES
from bnn_symm.formatting import interval, mean
from bnn_symm.report.html.page import Cell

MEASURES = {
    **{f"test_{name}": f"test {score.title}" for name, score in SCORES.items()},
    "test_nll": "test NLL, nats per point",
    "test_coverage_90": SCORES["coverage_90"].title,
    "elbo": "ELBO, nats",
    "train_nll": "training NLL, nats per point",
    "gradients_to_target": "gradients to the target",
    "gradient_evaluations": "gradient evaluations",
    "seconds": "seconds",
    "naive": "barrier, naive, nats per point",
    "aligned": "barrier, aligned, nats per point",
    "naive_error": "error-rate barrier, naive",
    "aligned_error": "error-rate barrier, aligned",
    "rhat_raw_max": "largest R-hat, raw weights",
    "rhat_aligned_max": "largest R-hat, aligned weights",
    "rhat_function_max": "largest R-hat, functions",
    "rhat_raw": "median R-hat, raw weights",
    "rhat_aligned": "median R-hat, aligned weights",
    "rhat_function": "median R-hat, functions",
    "aligned_less_naive": "barrier, aligned minus naive",
}
"""Names of the measures."""


def measure_of(setting: Mapping[str, Any], measure: str) -> Mapping[str, Any] | None:
    """Return the estimate of a measure; None if the setting has none.

    Args:
        setting: of the summary.
        measure: its key.

    Returns:
        The mean with its interval.
    """
    estimate = (setting.get("measures") or {}).get(measure)
    return estimate if estimate is not None and estimate.get("mean") is not None else None


def present(settings: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> list[str]:
    """Return the measures that at least one of the settings has.

    Args:
        settings: of the summary.
        measures: keys to choose from.

    Returns:
        The keys.
    """
    return [measure for measure in measures if any(measure_of(own, measure) for own in settings)]


def estimate_cell(estimate: Mapping[str, Any] | None) -> Cell:
    """Return a cell with the mean and its interval.

    Args:
        estimate: a mean with its interval.

    Returns:
        The cell.
    """
    return Cell(text=mean(estimate), small=interval(estimate))


def reasons(
    settings: Sequence[Mapping[str, Any]], labels: Sequence[str], measures: Sequence[str]
) -> list[str]:
    """Return the reasons for missing means or intervals, each with its settings and measures.

    Args:
        settings: of the summary.
        labels: of the settings.
        measures: keys to look at.

    Returns:
        One note per reason.
    """
    affected: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for setting, label in zip(settings, labels, strict=True):
        for measure in measures:
            reason = ((setting.get("measures") or {}).get(measure) or {}).get("reason")
            if reason:
                names, titles = affected.setdefault(str(reason), ({}, {}))
                names[label] = titles[MEASURES.get(measure, measure)] = None
    notes = []
    for reason, (names, titles) in affected.items():
        who = "all settings" if len(names) == len(settings) else ", ".join(names)
        what = "" if len(titles) == len(measures) else f"{'; '.join(titles)}, "
        notes.append(f"{what}{who}: {reason}")
    return notes
