"""Build the sections of a run on its predictions: quality, calibration, and their errors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bnn_symm.analyses.predictions.quality import Quality
from bnn_symm.analyses.predictions.stored_regions import StoredRegions
from bnn_symm.diagnostics.calibration.pit import PitHistogram
from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.diagnostics.scores.score_intervals import Scores
from bnn_symm.diagnostics.scores.standing import Standing
from bnn_symm.formatting import count, listed, number, percent
from bnn_symm.report.html.page import Answer, Block, Picture, Text
from bnn_symm.report.plots.predictions.confusion import confusion_figure
from bnn_symm.report.plots.predictions.observed import observed_figure
from bnn_symm.report.plots.predictions.pit import pit_figure
from bnn_symm.report.plots.predictions.reliability import reliability_figure
from bnn_symm.report.tables import Table
from bnn_symm.report.text.calibration import calibration_table, stored_regions_table

GOOD, CALIBRATED = "Is it any good?", "Is it calibrated?"
OBSERVED, CONFUSION = "Predicted against observed", "Confusion matrix"
# Scores beside those of the baselines.
_SHOWN = (
    *("nll", "accuracy", "balanced_accuracy", "auc", "rmse", "r2", "concordance"),
    *("crps", "ece", "brier", "rps", "coverage_90"),
)
_MARKS = {Standing.BETTER: "yes", Standing.ALIKE: "open", Standing.WORSE: "other"}
# Confusions and points of predictions that tables name, and classes of a whole confusion matrix.
_MOST, _MOST_CLASSES = 10, 20


def quality_answers(quality: Quality) -> list[Answer]:
    """Return short answers: whether the predictions are good, and whether they are calibrated.

    Args:
        quality: of the run.

    Returns:
        Two answers.
    """
    kind, text = quality.verdict.kind, quality.verdict.text.partition(":")[0]
    test = quality.test
    state = "calibrated, as far as the points can tell"
    if not test.is_calibrated:
        state = test.direction if test.direction != "neither" else "not calibrated"
    return [
        Answer(question=GOOD, text=text, mark=_MARKS.get(Standing(kind), "")),
        Answer(question=CALIBRATED, text=state, mark="yes" if test.is_calibrated else "other"),
    ]


def quality_sections(quality: Quality) -> dict[str, list[Block]]:
    """Return the sections on the quality of predictions.

    Args:
        quality: of the run.

    Returns:
        Title -> blocks.
    """
    sections = {GOOD: _scores(quality), CALIBRATED: _calibration(quality)}
    if quality.observed is not None:
        sections[OBSERVED] = [_observed(quality)]
    if quality.confusion is not None:
        sections[CONFUSION] = _confusion(quality, quality.confusion)
    return sections


def _scores(quality: Quality) -> list[Block]:
    sentences = [
        _sentence(
            "; ".join(own.verdict.text for own in quality.comparisons if own.baseline == name)
        )
        for name in quality.baselines
    ]
    rows: Mapping[str, Scores] = {"this run": quality.scores, **quality.baselines}
    keys = [key for key in _SHOWN if key in quality.scores.values]
    columns: dict[str, list[Any]] = {"predictions of": list(rows)}
    columns |= {_header(key): [own[key].to_dict() for own in rows.values()] for key in keys}
    points = count(quality.scores.points, "point")
    note = (
        f"Small type: {percent(quality.scores.level)} intervals over points. The baselines are "
        "fitted to the same training points and standardized features."
    )
    table = Table(
        caption=f"Scores on the {quality.part} split, {points}", columns=columns, notes=[note]
    )
    return [*(Text(text=text) for text in sentences), table, *_notes(quality.notes)]


def _header(key: str) -> str:
    measure = measure_of(key)
    direction = {"lower": " (lower is better)", "higher": " (higher is better)"}
    return measure.title + direction.get(str(measure.better), "")


def _calibration(quality: Quality) -> list[Block]:
    blocks: list[Block] = [
        Text(text=f"{_sentence(quality.test.verdict)} This is the {quality.part} split.")
    ]
    if quality.pit is not None:
        blocks.append(_pit(quality.pit))
    content = quality.reliability.to_dict()
    numbers = _reliability_table(content)
    if quality.pit is None:
        caption = (
            "Reliability diagram: the accuracy of predictions by their confidence. Points of a "
            f"calibrated model are within the gray band in {percent(content['level'])} of bins; "
            "below the dashed line predictions are overconfident."
        )
        blocks.append(Picture(figure=reliability_figure(content), caption=caption, numbers=numbers))
    else:
        blocks.append(numbers)
    table = calibration_table({"scores": quality.scores.to_dict(), "part": quality.part})
    return [*blocks, Table(caption=table.caption, columns=table.columns, folded=True)]


def region_blocks(found: Sequence[StoredRegions]) -> list[Block]:
    """Return the coverage and size of conformal regions beside those of the posterior.

    Args:
        found: the regions of stored evaluations.

    Returns:
        The blocks; none without regions.
    """
    if not found:
        return []
    conclusions = dict.fromkeys(own.regions["conclusion"] for own in found)
    table = stored_regions_table([own.to_dict() for own in found])
    shown = replace(table, notes=["Small type: 95 % intervals over points."])
    return [*(Text(text=_sentence(own)) for own in conclusions), shown, *_notes(table.notes)]


def _pit(histogram: PitHistogram) -> Picture:
    columns = {
        "PIT": [
            f"{low:.2f} to {high:.2f}"
            for low, high in zip(histogram.left, histogram.right, strict=True)
        ],
        "points": histogram.count.tolist(),
        "a calibrated model: from": [histogram.low] * len(histogram.count),
        "to": [histogram.high] * len(histogram.count),
    }
    outside, bins = histogram.num_outside, len(histogram.count)
    caption = (
        "Histogram of the PIT, which is flat for a calibrated model: "
        f"{outside} of {bins} bins {'is' if outside == 1 else 'are'} outside of the gray band, in "
        f"which each bin of a calibrated model is with {percent(histogram.level)} probability. A "
        "hill means intervals that are too wide, a valley intervals that are too narrow, a slope "
        "a bias."
    )
    numbers = Table(caption="Numbers of this figure", columns=columns)
    return Picture(figure=pit_figure(histogram), caption=caption, numbers=numbers)


def _reliability_table(diagram: Mapping[str, Any]) -> Table:
    """Return the reliability diagram as a table."""
    band = {"a calibrated model: from": "low", "to": "high"}
    if diagram["kind"] == "classes":
        keys = {"mean confidence": "confidence", "accuracy": "accuracy", **band, "points": "count"}
    else:
        keys = {"level of the quantile": "nominal", "share of targets below": "observed", **band}
    columns = {name: diagram[key] for name, key in keys.items()}
    return Table(caption="Reliability by bin", columns=columns, folded=True)


def _observed(quality: Quality) -> Picture:
    own = quality.observed
    assert own is not None
    figure = observed_figure(
        own.target, own.mean, own.low, own.high, level=own.level, name=quality.target
    )
    inside = float(np.mean((own.low <= own.target) & (own.target <= own.high)))
    shown = len(own.target)
    chosen = f"{shown:,} of {own.num_points:,}" if shown < own.num_points else f"{shown:,}"
    worst = np.argsort(-np.abs(own.mean - own.target), kind="stable")[:_MOST]
    columns = {
        f"observed {quality.target}": own.target[worst].tolist(),
        "predicted": own.mean[worst].tolist(),
        f"{percent(own.level)} interval from": own.low[worst].tolist(),
        "to": own.high[worst].tolist(),
    }
    caption = (
        f"Predicted means with {percent(own.level)} intervals against {chosen} observed targets of "
        f"the {quality.part} split; {percent(inside, 1)} of these are within their interval. On "
        "the dashed line both are equal."
    )
    numbers = Table(caption=f"The {len(worst)} points with the largest errors", columns=columns)
    return Picture(figure=figure, caption=caption, numbers=numbers)


def _confusion(quality: Quality, counts: np.ndarray) -> list[Block]:
    labels = quality.labels
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    errors, total = int(wrong.sum()), int(counts.sum())
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST]
    pairs = [divmod(int(index), len(labels)) for index in order]
    pairs = [(i, j) for i, j in pairs if wrong[i, j]]
    columns = {
        "true class": [labels[i] for i, _ in pairs],
        "predicted class": [labels[j] for _, j in pairs],
        "points": [int(wrong[pair]) for pair in pairs],
        "share of the true class": [percent(wrong[i, j] / counts[i].sum(), 1) for i, j in pairs],
    }
    caption = (
        f"Confusion matrix: {errors:,} of {count(total, 'point')} of the {quality.part} split "
        f"{'is' if errors == 1 else 'are'} assigned to another class. Each row is shaded by the "
        "share of its class."
    )
    numbers = Table(
        caption="The most frequent confusions" if pairs else "There are no confusions",
        columns=columns,
    )
    recalls = Table(
        caption="Accuracy by class",
        columns={
            "class": labels,
            "points": counts.sum(1).tolist(),
            "accuracy": _shares(np.diag(counts), counts.sum(1)),
            "predicted": counts.sum(0).tolist(),
            "right among predicted": _shares(np.diag(counts), counts.sum(0)),
        },
        folded=True,
    )
    picture = Picture(figure=confusion_figure(counts, labels), caption=caption, numbers=numbers)
    if len(labels) > _MOST_CLASSES:
        return [picture, recalls]
    by_class = {f"predicted {label}": counts[:, i].tolist() for i, label in enumerate(labels)}
    matrix = Table(
        caption="Points by true and predicted class",
        columns={"true class": labels, **by_class},
        folded=True,
    )
    return [picture, matrix, recalls]


def _shares(part: np.ndarray, whole: np.ndarray) -> list[float | None]:
    return [float(a / b) if b else None for a, b in zip(part, whole, strict=True)]


def _notes(notes: Sequence[str]) -> list[Block]:
    return [Text(text=f"Note: {note}.", mark="note") for note in notes]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def score_sentence(quality: Quality) -> str:
    """Return the scores and the verdict in a sentence each.

    Args:
        quality: of the run.

    Returns:
        The text.
    """
    keys = [
        key
        for key in ("nll", "accuracy", "rmse", "concordance", "ece")
        if key in quality.scores.values
    ]
    scores = [f"{measure_of(key).title} {number(quality.scores[key].value, 4)}" for key in keys]
    points = count(quality.scores.points, "point")
    return f"On the {quality.part} split of {points}: {listed(scores)}. " + _sentence(
        quality.verdict.text
    )
