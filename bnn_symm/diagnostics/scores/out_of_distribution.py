"""Can a posterior tell points from elsewhere from its own? By how uncertain it is of them.

Each kind of uncertainty is a score that should be higher outside. Of classes: `entropy` of the
    mixture, `confidence`
(one minus the largest probability) and `mutual_information` (what the draws disagree about). Of
    numbers: `sd`, the
predictive standard deviation, and `epistemic_sd`, its part that the draws disagree about. Outside
is the positive kind throughout, unless a name says otherwise; points that tie
(`ranking.tie_starts`) are told apart as by tossing a coin.

What the draws disagree about is a difference of two rounded numbers. Below the rounding of the
outputs that they are made of it is 0, so that equal draws disagree about nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from bnn_symm.posteriors import Posterior

# Units in the last place of outputs that rounding moves them by.
_ROUNDING = 4


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well one kind of uncertainty tells outside from inside.

    Attributes:
        auroc: P(outside point more uncertain than inside point); 0.5 is guessing.
        aupr_out: average precision with outside as positive; guessing gets the share of outside
            points.
        aupr_in: average precision with inside as positive, by how certain the prediction is.
        fpr95: share of inside points that a threshold flags which flags 95 % of the outside ones;
            lower is better.
        inside: mean uncertainty of the inside points, in nats or in the target's own units.
        outside: the same of the outside points.
    """

    auroc: Score
    aupr_out: Score
    aupr_in: Score
    fpr95: Score
    inside: Score
    outside: Score

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {name: score.to_dict() for name, score in vars(self).items()}


@dataclass(frozen=True, kw_only=True)
class OutOfDistribution:
    """Of every kind of uncertainty.

    Attributes:
        by: name of the uncertainty -> how well it separates.
        num_inside: points.
        num_outside: points.
        level: of the intervals.
        notes: what to mind.
    """

    by: Mapping[str, Separation]
    num_inside: int
    num_outside: int
    level: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "inside_points": self.num_inside,
            "outside_points": self.num_outside,
            "level": self.level,
            "by": {name: separation.to_dict() for name, separation in self.by.items()},
            "notes": list(self.notes),
        }


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
    """How well the uncertainty of a posterior tells two sets of inputs apart, with bootstrap
    intervals.

    Args:
        posterior: any.
        inside: standardized inputs of the kind that it was fitted to, but not those themselves.
        outside: standardized inputs of another kind.
        num_resamples: of the points of both, each among themselves; 0 for no intervals.
        level: of the intervals.
        seed: of the resamples.

    Raises:
        ValueError: if either has no points.
    """
    sizes = (len(inside), len(outside))
    if min(sizes) == 0:
        raise ValueError(
            f"got {sizes[0]} points inside and {sizes[1]} outside; wanted at least one of each"
        )
    inner, outer = uncertainties(posterior, inside), uncertainties(posterior, outside)
    by, notes = {}, []
    for name in inner:
        by[name] = separation(
            inner[name], outer[name], num_resamples=num_resamples, level=level, seed=seed
        )
        if len(tie_starts(np.sort(np.concatenate([inner[name], outer[name]])))) == 1:
            notes.append(f"{name} is the same for every point: it tells nothing apart")
    return OutOfDistribution(
        by=by, num_inside=sizes[0], num_outside=sizes[1], level=level, notes=tuple(notes)
    )


def uncertainties(
    posterior: Posterior, x: Float[Tensor, "point *feature"]
) -> dict[str, Float[np.ndarray, " point"]]:
    """Kinds of uncertainty at some inputs: name -> (point,), higher is less certain."""
    collected: dict[str, list[Tensor]] = {}
    for predictive in posterior.iter_predict(x):
        rounding = _ROUNDING * torch.finfo(predictive.outputs.dtype).eps
        if predictive.is_classification:
            size = predictive.outputs.abs().amax((0, 1, 3)).double().cpu()
            own = {
                "entropy": predictive.entropy(),
                # One minus the largest, as the sum of the others: exact where that rounds to 1.
                "confidence": predictive.probabilities().sort(-1).values[..., :-1].sum(-1),
                "mutual_information": _above(
                    predictive.mutual_information(), rounding * (1 + size)
                ),
            }
        else:
            size = (predictive.mean() - predictive.location).abs()
            own = {
                "sd": predictive.standard_deviation(),
                "epistemic_sd": _above(predictive.epistemic_sd(), rounding * size),
            }
        for name, value in own.items():
            collected.setdefault(name, []).append(value.double())
    return {name: torch.cat(values).numpy() for name, values in collected.items()}


def _above(
    value: Float[Tensor, " point"], rounding: Float[Tensor, " point"]
) -> Float[Tensor, " point"]:
    """Return the value where it is larger than rounding, 0 elsewhere."""
    return torch.where(value > rounding, value, torch.zeros_like(value))


def separation(
    inside: Float[np.ndarray, " inside"],
    outside: Float[np.ndarray, " outside"],
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Separation:
    """How well one score tells outside from inside, where it should be higher.

    Args:
        inside: scores of the points inside; at least one.
        outside: scores of the points outside; at least one.
        num_resamples: of each; 0 for no intervals.
        level: of the intervals.
        seed: of the resamples.
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
