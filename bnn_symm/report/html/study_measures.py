"""Measures of a study in words and units, as its tables and figures name them."""

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.report.html.page import Cell
from bnn_symm.report.text.intervals import mean_text, range_text

MEASURES = {
    "test_nll": "test NLL, nats a point",
    "test_accuracy": "test accuracy",
    "test_rmse": "test RMSE",
    "test_ece": "test ECE",
    "test_brier": "test Brier score",
    "test_crps": "test CRPS",
    "test_coverage_90": "targets inside 90 % intervals",
    "elbo": "ELBO, nats",
    "train_nll": "training NLL, nats a point",
    "gradients_to_target": "gradients to the target",
    "gradient_evaluations": "gradient evaluations",
    "seconds": "seconds",
    "naive": "barrier, naive, nats a point",
    "aligned": "barrier, aligned, nats a point",
    "naive_error": "barrier of the error, naive",
    "aligned_error": "barrier of the error, aligned",
    "rhat_raw_max": "largest R-hat, raw weights",
    "rhat_aligned_max": "largest R-hat, aligned weights",
    "rhat_function_max": "largest R-hat, functions",
    "rhat_raw": "median R-hat, raw weights",
    "rhat_aligned": "median R-hat, aligned weights",
    "rhat_function": "median R-hat, functions",
    "aligned_less_naive": "barrier, aligned against naive",
}
"""Measure -> in words."""


def measure_of(setting: Mapping[str, Any], measure: str) -> Mapping[str, Any] | None:
    """Its estimate; None if the setting has none."""
    found = (setting.get("measures") or {}).get(measure)
    return found if found is not None and found.get("mean") is not None else None


def present(settings: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> list[str]:
    """Those that any of the settings has."""
    return [measure for measure in measures if any(measure_of(own, measure) for own in settings)]


def estimate_cell(estimate: Mapping[str, Any] | None) -> Cell:
    """The mean, and its interval beneath."""
    return Cell(text=mean_text(estimate), small=range_text(estimate))


def reasons(
    settings: Sequence[Mapping[str, Any]], labels: Sequence[str], measures: Sequence[str]
) -> list[str]:
    """Why intervals or means are missing, each reason once, with the settings and the measures that
    it is about.
    """
    about: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for setting, label in zip(settings, labels, strict=True):
        for measure in measures:
            reason = ((setting.get("measures") or {}).get(measure) or {}).get("reason")
            if reason:
                names, words = about.setdefault(str(reason), ({}, {}))
                names[label] = words[MEASURES.get(measure, measure)] = None
    found = []
    for reason, (names, words) in about.items():
        who = "all settings" if len(names) == len(settings) else ", ".join(names)
        what = "" if len(words) == len(measures) else f"{'; '.join(words)}, "
        found.append(f"{what}{who}: {reason}")
    return found
