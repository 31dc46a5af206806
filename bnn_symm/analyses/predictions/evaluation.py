"""Evaluate a run on some points: scores, those of baselines, confusion matrix, conformal regions.

This is what `bnn-symm evaluate` computes without a curve of shifts and without `--ood`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bnn_symm.data import Split
from bnn_symm.diagnostics.calibration.region_coverage import region_coverage
from bnn_symm.diagnostics.calibration.temperature_scaling import fit_temperature
from bnn_symm.diagnostics.scores.baselines import baselines
from bnn_symm.diagnostics.scores.class_averages import confusion_matrix
from bnn_symm.diagnostics.scores.gradient_boosting import gradient_boosting
from bnn_symm.diagnostics.scores.score_intervals import short_scores
from bnn_symm.diagnostics.scores.scores import ScoredPoints, score, score_points
from bnn_symm.diagnostics.scores.standing import baseline_warnings, compare_with_baselines
from bnn_symm.models.likelihoods import is_ordered
from bnn_symm.runs.conformal import conformal_notes
from bnn_symm.runs.run import Run
from bnn_symm.summaries import plain

BaselineName = Literal["linear", "gradient_boosting"]
"""The most complex baseline of an evaluation."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The evaluation of a run on some points.

    Attributes:
        rows: name -> scores, of the run first.
        content: scores of the run and further results, as JSON types.
        conclusions: sentences.
        notes: sentences on what is unusual.
    """

    rows: dict[str, Mapping[str, Any]]
    content: dict[str, Any]
    conclusions: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


def evaluate_points(
    run: Run,
    part: Split,
    *,
    name: str,
    baseline: BaselineName | None = None,
    conformal: float | None = None,
    temperature_scaling: bool = False,
) -> Evaluation:
    """Evaluate a run on some points.

    Args:
        run: a run with a posterior.
        part: at least one point.
        name: of the points.
        baseline: the most complex baseline whose scores are computed; simpler ones are, too.
        conformal: level of regions that the validation split calibrates, whose coverage and size
            are compared with those of Bayesian regions.
        temperature_scaling: whether to score also the predictions after temperature scaling.

    Returns:
        The evaluation.

    Raises:
        InvalidRun: if the data of the run are needed and changed since the fit.
        InvalidData: if there are too few validation points for conformal regions of the level.
        ConfigError: if temperature scaling does not apply, or the level is not between 0 and 1.
    """
    found = score_points(run.posterior, part)
    result = Evaluation(rows={name: found.scores}, content=dict(found.scores))
    if found.probabilities is not None:
        counts = confusion_matrix(found.probabilities, part.y.cpu().numpy())
        labels = list(run.preprocessing.class_labels)
        result.content["confusion"] = {"labels": labels, "counts": counts.tolist()}
    if baseline is not None:
        _add_baselines(result, run, part, name, found, baseline)
    if conformal is not None:
        regions = run.conformal(conformal)
        compared = region_coverage(run.posterior, part, regions, seed=run.config.seed)
        result.content["conformal"] = {**regions.to_dict(), **plain(compared)}
        result.conclusions.append(regions.conclusion)
        result.notes.extend(conformal_notes(run.config))
    if temperature_scaling:
        scaling = fit_temperature(run.posterior, run.dataset().validation)
        scaled = score(scaling.apply(run.posterior), part) or {}
        result.rows[f"{name}, scaled"] = scaled
        result.content["temperature_scaling"] = {**scaling.to_dict(), "scores": scaled}
        result.conclusions.append(result.content["temperature_scaling"]["conclusion"])
    return result


def _add_baselines(
    result: Evaluation,
    run: Run,
    part: Split,
    name: str,
    found: ScoredPoints,
    baseline: BaselineName,
) -> None:
    """Add the scores of baselines, and which of them the run does not beat."""
    dataset, seed = run.dataset(), run.config.seed
    ordered = is_ordered(run.model.likelihood)
    sets = [baselines(dataset, part, seed=seed, is_ordered=ordered)]
    if baseline == "gradient_boosting":
        sets.append(gradient_boosting(dataset, part, seed=seed, is_ordered=ordered))
    models = [own for each in sets for own in each.models]
    compared = compare_with_baselines(found.log_prob, models, part)
    scores = {own.name: short_scores(own.predictions) for own in models}
    result.rows.update(scores)
    result.content["baselines"] = {
        own.name: {"scores": scores[own.name], **compared[own.name].to_dict()} for own in models
    }
    result.notes.extend(baseline_warnings(found.scores["nll"], compared, name))
    result.notes.extend(note for each in sets for note in each.notes)
