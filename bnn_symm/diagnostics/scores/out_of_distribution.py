"""Measure how well the uncertainty of a posterior detects out-of-distribution points.

Each kind of uncertainty is a score that should be higher outside. For classes: `entropy` of the
mixture, `confidence` (one minus the largest probability) and `mutual_information` (disagreement of
the draws). For numbers: `sd`, the predictive standard deviation, and `epistemic_sd`, its part from
the disagreement of the draws. Outside is the positive kind throughout, unless a name states
otherwise. Tied points (`ranking.tie_starts`) are ordered at random on average.

The disagreement of the draws is a difference of two rounded numbers. Below the rounding of the
outputs it is set to 0, so that equal draws do not disagree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.diagnostics.scores.ranking import (
    auroc,
    average_precision,
    false_positive_rate,
    tie_starts,
)
from bnn_symm.diagnostics.statistics.bootstrap import Score, bootstrap_scores
from bnn_symm.posteriors import Posterior, Predictive
from bnn_symm.summaries import Result

# Units in the last place by which rounding changes outputs.
_ROUNDING = 4


@dataclass(frozen=True, kw_only=True)
class Separation(Result):
    """The separation of outside and inside points by one kind of uncertainty.

    Attributes:
        auroc: P(outside point more uncertain than inside point); 0.5 for guessing.
        aupr_out: Average precision with outside as positive; the fraction of outside points for
            guessing.
        aupr_in: Average precision with inside as positive, by certainty.
        fpr95: Fraction of inside points above the threshold that detects 95 % of the outside ones;
            lower is better.
        inside: Mean uncertainty of the inside points, in nats or in the target's own units.
        outside: Mean uncertainty of the outside points.
    """

    auroc: Score
    aupr_out: Score
    aupr_in: Score
    fpr95: Score
    inside: Score
    outside: Score


@dataclass(frozen=True, kw_only=True)
class OutOfDistribution(Result):
    """The separation by every kind of uncertainty.

    Attributes:
        inside_points: Number of inside points.
        outside_points: Number of outside points.
        level: Level of the intervals.
        by: Name of the uncertainty -> separation.
        notes: Caveats.
    """

    inside_points: int
    outside_points: int
    level: float
    by: Mapping[str, Separation]
    notes: tuple[str, ...]


@checked
def out_of_distribution(
    posterior: Posterior,
    inside: Float[Tensor, "inside *feature"],
    outside: Float[Tensor, "outside *feature"],
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> OutOfDistribution:
    """Measure how well the uncertainty of a posterior separates two sets of inputs.

    Args:
        posterior: Any posterior.
        inside: Standardized inputs of the same kind as the training inputs, but not these.
        outside: Standardized inputs of another kind.
        num_resamples: Bootstrap resamples of the points of each set; 0 for no intervals.
        level: Level of the intervals.
        seed: Seed of the resamples.

    Returns:
        The separation by every kind of uncertainty.

    Raises:
        ValueError: If either set has no points.

    Example:
        >>> from bnn_symm import BayesianModel, Categorical, Prior, SamplePosterior, load_dataset
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> posterior = SamplePosterior.from_draws(model, torch.randn(1, 20, 15))
        >>> x = load_dataset("iris").test.x
        >>> list(out_of_distribution(posterior, x, 5 * x, num_resamples=0).by)
        ['entropy', 'confidence', 'mutual_information']
    """
    sizes = (len(inside), len(outside))
    if min(sizes) == 0:
        raise ValueError(
            f"got {sizes[0]} points inside and {sizes[1]} outside; expected at least one of each"
        )
    inner, outer = uncertainties(posterior, inside), uncertainties(posterior, outside)
    by, notes = {}, []
    for name in inner:
        by[name] = separation(
            inner[name], outer[name], num_resamples=num_resamples, level=level, seed=seed
        )
        if len(tie_starts(np.sort(np.concatenate([inner[name], outer[name]])))) == 1:
            notes.append(f"{name} is the same for every point, so it separates nothing")
    return OutOfDistribution(
        by=by, inside_points=sizes[0], outside_points=sizes[1], level=level, notes=tuple(notes)
    )


def uncertainties(
    posterior: Posterior, x: Float[Tensor, "point *feature"]
) -> dict[str, Float[np.ndarray, " point"]]:
    """Return the kinds of uncertainty at some inputs: name -> (point,), higher is less certain.

    Args:
        posterior: Any posterior.
        x: Standardized inputs.

    Returns:
        One value per point and kind.
    """
    collected: dict[str, list[Tensor]] = {}
    for predictive in posterior.iter_predict(x):
        rounding = _ROUNDING * torch.finfo(predictive.outputs.dtype).eps
        if predictive.is_classification:
            size = predictive.outputs.abs().amax((0, 1, 3)).double().cpu()
            own = {
                "entropy": predictive.entropy(),
                # One minus the largest, as the sum of the others: exact if the largest rounds to 1.
                "confidence": predictive.probabilities().sort(-1).values[..., :-1].sum(-1),
                "mutual_information": _above(
                    predictive.mutual_information(), rounding * (1 + size)
                ),
            }
        else:
            columns = [_deviations(column, rounding) for column in predictive.columns]
            own = {
                name: _root_mean_square([column[name] for column in columns])
                for name in ("sd", "epistemic_sd")
            }
        for name, value in own.items():
            collected.setdefault(name, []).append(value.double())
    return {name: torch.cat(values).numpy() for name, values in collected.items()}


def _deviations(predictive: Predictive, rounding: float) -> dict[str, Tensor]:
    """Return standard deviations of a target, in those of the training targets."""
    size = (predictive.mean() - predictive.location).abs()
    return {
        "sd": predictive.standard_deviation() / predictive.scale,
        "epistemic_sd": _above(predictive.epistemic_sd(), rounding * size) / predictive.scale,
    }


def _root_mean_square(columns: Sequence[Tensor]) -> Tensor:
    return columns[0] if len(columns) == 1 else torch.stack(list(columns)).square().mean(0).sqrt()


def _above(
    value: Float[Tensor, " point"], rounding: Float[Tensor, " point"]
) -> Float[Tensor, " point"]:
    """Return the value if it is larger than rounding, else 0."""
    return torch.where(value > rounding, value, torch.zeros_like(value))


def separation(
    inside: Float[np.ndarray, " inside"],
    outside: Float[np.ndarray, " outside"],
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Separation:
    """Return the separation by one score that should be higher outside.

    Args:
        inside: Scores of the points inside; at least one.
        outside: Scores of the points outside; at least one.
        num_resamples: Bootstrap resamples of each set; 0 for no intervals.
        level: Level of the intervals.
        seed: Seed of the resamples.

    Returns:
        The separation with intervals.
    """
    score = np.concatenate([inside, outside])
    is_outside = np.arange(len(score)) >= len(inside)

    def statistics(
        weights: Float[np.ndarray, "resample point"],
    ) -> Mapping[str, Float[np.ndarray, " resample"]]:
        inner, outer = weights[:, ~is_outside], weights[:, is_outside]
        return {
            "auroc": auroc(weights, score, is_outside),
            "aupr_out": average_precision(weights, score, is_outside),
            "aupr_in": average_precision(weights, -score, ~is_outside),
            "fpr95": false_positive_rate(weights, score, is_outside),
            "inside": inner @ inside / inner.sum(1),
            "outside": outer @ outside / outer.sum(1),
        }

    scores = bootstrap_scores(
        statistics, (len(inside), len(outside)), num_resamples=num_resamples, level=level, seed=seed
    )
    return Separation(**scores)
