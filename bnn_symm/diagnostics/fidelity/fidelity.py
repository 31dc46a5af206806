r"""Measure how near predictions come to those of a reference posterior.

With p the predictive distribution of the reference and q that of a run, at test points x_i:

    agreement         (1/n) sum_i [argmax_c p(c | x_i) = argmax_c q(c | x_i)]
    total variation   (1/n) sum_i 1/2 sum_c |p(c | x_i) - q(c | x_i)|
    W1                (1/n) sum_i of a Wasserstein-1 distance, see below
    NLL difference    (1/n) sum_i [log p(y_i | x_i) - log q(y_i | x_i)]

All but W1 compare the mixtures over draws, p(y | x) = (1/S) sum_s p(y | x, theta_s). W1 is,

- for classes, between the distributions over *draws* of the probability of each class,

      1/2 sum_c W1(law of p(c | x, theta), law of q(c | x, theta')),

  so it also sees how the draws disagree. It is at least the total variation, and equal to it for
  two single draws. (W1 of the class itself, with distance 1 between classes, is the total
  variation.)
- for numbers and counts, between the predictive distributions of the *target* y, the noise
  included, in the target's own units. `w1_relative` divides it, point by point, by the standard
  deviation of the reference's prediction.

The draws of a reference are finite. Its `floor` is the distance between two halves: its even and
its odd chains, or the first and the second half of a single chain. Each half has half of the
draws, so that for a distance dominated by Monte Carlo error the floor is about twice the error of
the reference itself. A distance of this size is not evidence of a difference. The draws of a run
are finite too, and their Monte Carlo error is part of its distance.

Intervals over points are by the bootstrap. For runs that differ in their seeds, values are means
over the runs, and intervals over seeds are Student's.

References:
    Izmailov, Vikram, Hoffman & Wilson 2021, arXiv:2104.14421, section 6 (agreement, total
    variation); Wilson et al. 2022, PMLR 176:113-124 (the same, and Wasserstein distances for
    regression).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.diagnostics.fidelity.sources import (
    PosteriorSource,
    ReferenceProbabilities,
    Source,
)
from bnn_symm.diagnostics.fidelity.wasserstein import (
    wasserstein_of_draws,
    wasserstein_of_mixtures,
)
from bnn_symm.diagnostics.statistics.bootstrap import Score, bootstrap_scores, weighted_mean
from bnn_symm.diagnostics.statistics.paired_comparison import Estimate, estimate
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, InvalidData
from bnn_symm.models.likelihoods import has_events
from bnn_symm.posteriors import Posterior, Predictive

Pointwise = Mapping[str, Float[np.ndarray, " point"]]

# Outputs of all draws of a source at once (64 MB in float64).
_NUMBERS_AT_ONCE = 2**23
# Largest relative difference of equal targets in the precision of the networks.
_ROUNDING = 1e-4
_REASONS = {
    "w1": "the reference has no draws, only the mean over them",
    "nll_difference": "both give the target probability 0",
}


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Distances of the predictions of one method to a reference.

    Attributes:
        values: Measure -> mean over the runs, with its bootstrap interval over points.
        over_seeds: Measure -> mean over the runs, with Student's interval over seeds; empty for
            one run.
        each: The same as `values` for every run.
        floor: Measure -> its value between two halves of the reference; None without draws.
        num_points: Number of points.
        num_resamples: Number of resamples of the intervals over points.
        level: Level of these intervals.
    """

    values: Mapping[str, Score]
    over_seeds: Mapping[str, Estimate]
    each: tuple[Mapping[str, Score], ...]
    floor: Mapping[str, Score] | None
    num_points: int
    num_resamples: int
    level: float

    def __getitem__(self, name: str) -> Score:
        return self.values[name]

    def to_dict(self) -> dict[str, Any]:
        """Return the distances as JSON types, without the floor."""
        return {
            "values": scores_to_dict(self.values),
            "over_seeds": {name: asdict(own) for name, own in self.over_seeds.items()},
            "each": [scores_to_dict(own) for own in self.each],
        }


def scores_to_dict(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Return scores as JSON types.

    Args:
        scores: By name.
    """
    return {name: score.to_dict() for name, score in scores.items()}


@checked
def fidelity(
    reference: Posterior | ReferenceProbabilities,
    posteriors: Posterior | Sequence[Posterior],
    part: Split,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Fidelity:
    """Measure how near the predictions of posteriors come to those of a reference.

    Args:
        reference: A posterior, such as long chains of NUTS; or class probabilities.
        posteriors: One posterior, or those of several seeds of one method.
        part: Points that the posteriors were not fitted to, with their targets.
        num_resamples: Bootstrap resamples of the points; 0 for no intervals.
        level: Level of the intervals over points.
        seed: Seed of the resamples.

    Returns:
        The distances with their intervals, and the floor of the reference.

    Raises:
        ConfigError: If there are no points or no posteriors.
        IncompatiblePosteriors: If points, targets, classes or kinds of target differ.
        InvalidData: If a prediction is NaN.

    Example:
        >>> from bnn_symm import BayesianModel, Prior, SamplePosterior, load_dataset
        >>> from bnn_symm.likelihoods import Categorical
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> reference = SamplePosterior.from_draws(model, torch.randn(2, 20, 15))
        >>> fidelity(reference, reference, load_dataset("iris").test)["total_variation"].value
        0.0
    """
    others = [posteriors] if isinstance(posteriors, Posterior) else posteriors
    if not others or len(part) == 0:
        raise ConfigError(
            f"fidelity: got {len(others)} posteriors and {len(part)} points, expected one or more "
            "of both"
        )
    first = reference
    if isinstance(first, Posterior):
        first = PosteriorSource(posterior=first, part=part, name="the reference")
    sources = [
        PosteriorSource(posterior=own, part=part, name=f"posterior {number}")
        for number, own in enumerate(others)
    ]
    each, floor = pointwise_distances(first, sources)
    settings = {"num_resamples": num_resamples, "level": level, "seed": seed}
    return summarize(each, floor, **settings)


def pointwise_distances(
    reference: Source, others: Sequence[Source]
) -> tuple[list[Pointwise], Pointwise | None]:
    """Return the distances of predictions to a reference at every point.

    The reference predicts once for all others, in slices of the points, which bounds the memory.

    Args:
        reference: Source of the reference.
        others: Sources at the same points, in the same order.

    Returns:
        Measure -> one value per point, for each of the others; and the same for two halves of the
        draws of the reference, None if it has no draws.

    Raises:
        IncompatiblePosteriors: If points, targets, classes or kinds of target differ.
        InvalidData: If a prediction is NaN.
    """
    for own in others:
        if len(own) != len(reference):
            raise IncompatiblePosteriors(
                f"{own.name} has {len(own)} test points, {reference.name} has {len(reference)}; "
                "compare predictions at the same points"
            )
    most = max(own.numbers_per_point for own in (reference, *others))
    step = max(1, _NUMBERS_AT_ONCE // most)
    each: list[list[Pointwise]] = [[] for _ in others]
    floors: list[Pointwise] = []
    for start in range(0, len(reference), step):
        where = slice(start, start + step)
        first, y = reference.predict(where).given(reference.targets(where))
        for own, parts in zip(others, each, strict=True):
            second, target = own.predict(where).given(own.targets(where))
            _check_comparable(reference, first, y, own, second, target, start)
            distances = _distances(
                first, second, y, target, has_draws=reference.has_draws and own.has_draws
            )
            _check_defined(own, distances, start)
            parts.append(distances)
        halves = _halves(first) if reference.has_draws else None
        if halves is not None:
            floors.append(_distances(*halves, y, y, has_draws=True))
    joined: list[Pointwise] = [_joined(parts) for parts in each]
    return joined, _joined(floors) if floors else None


def summarize(
    each: Sequence[Pointwise],
    floor: Pointwise | None,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Fidelity:
    """Return means over points and runs with their intervals.

    Args:
        each: Distances at every point, for each run of a method (`pointwise_distances`).
        floor: The same for the halves of the reference.
        num_resamples: Bootstrap resamples of the points; 0 for no intervals.
        level: Level of the intervals over points.
        seed: Seed of the resamples, which are the same for all methods.

    Returns:
        The distances of the method.
    """
    settings = {"num_resamples": num_resamples, "level": level, "seed": seed}
    runs = tuple(_scores(own, **settings) for own in each)
    together = {name: np.mean([own[name] for own in each], axis=0) for name in each[0]}
    over_seeds = {}
    if len(each) > 1:
        over_seeds = {
            name: estimate(_value(own[name]) for own in runs)
            for name in each[0]
            if not np.isnan(together[name]).any()
        }
    return Fidelity(
        values=_scores(together, **settings),
        over_seeds=over_seeds,
        each=runs,
        floor=None if floor is None else _scores(floor, **settings),
        num_points=len(next(iter(each[0].values()))),
        num_resamples=num_resamples,
        level=level,
    )


def _value(score: Score) -> float:
    return np.nan if score.value is None else score.value


def _scores(pointwise: Pointwise, **settings: Any) -> dict[str, Score]:
    """Return the mean of every measure over the points, with bootstrap intervals."""
    names = list(pointwise)
    columns = np.stack([pointwise[name] for name in names], axis=1)

    def statistics(counts: Float[np.ndarray, "resample point"]) -> dict[str, np.ndarray]:
        means = weighted_mean(counts, columns)
        return {name: means[:, i] for i, name in enumerate(names)}

    return bootstrap_scores(statistics, (len(columns),), reasons=_REASONS, **settings)


def _distances(
    first: Predictive, second: Predictive, y: Tensor, target: Tensor, *, has_draws: bool
) -> dict[str, np.ndarray]:
    """Return all measures at the points of a slice."""
    # Two infinite values have no difference.
    difference = first.log_prob(y) - second.log_prob(target)
    if not first.is_classification:
        pairs = list(zip(first.columns, second.columns, strict=True))
        w1 = [wasserstein_of_mixtures(one, other) for one, other in pairs]
        relative = [
            own / one.standard_deviation() for own, one in zip(w1, first.columns, strict=True)
        ]
        measures = {
            "w1": torch.stack(w1).mean(0),
            "w1_relative": torch.stack(relative).mean(0),
            "nll_difference": difference,
        }
    else:
        p, q = first.probabilities(), second.probabilities()
        measures = {
            "agreement": (p.argmax(-1) == q.argmax(-1)).double(),
            "total_variation": 0.5 * (p - q).abs().sum(-1),
            "w1": _class_wasserstein(first, second)
            if has_draws
            else torch.full_like(difference, torch.nan),
            "nll_difference": difference,
        }
    return {name: value.double().numpy() for name, value in measures.items()}


def _class_wasserstein(first: Predictive, second: Predictive) -> Tensor:
    """Return half of the sum over classes of W1 between the draws of their probabilities."""
    columns = []
    for own in (first, second):
        likelihood: Any = own.likelihood
        latents = {name: value.double() for name, value in own.latents.items()}
        draws = likelihood.probabilities(own.outputs.double(), latents).flatten(0, 1)
        columns.append(draws.flatten(1).numpy())
    distances = wasserstein_of_draws(*columns).reshape(first.outputs.shape[2], -1)
    return torch.from_numpy(0.5 * distances.sum(1))


def _halves(predictive: Predictive) -> tuple[Predictive, Predictive] | None:
    """Return the even and the odd chains, or both halves of a single chain."""
    chains, draws = predictive.outputs.shape[:2]
    if chains > 1:
        even = chains // 2 * 2  # so that both have equally many
        parts = [(slice(start, even, 2), slice(None)) for start in (0, 1)]
    elif draws > 1:
        half = draws // 2
        parts = [(slice(None), where) for where in (slice(0, half), slice(draws - half, draws))]
    else:
        return None
    one, other = (
        replace(
            predictive,
            outputs=predictive.outputs[where],
            latents={name: value[where] for name, value in predictive.latents.items()},
        )
        for where in parts
    )
    return one, other


def _check_comparable(
    reference: Source,
    first: Predictive,
    y: Tensor,
    own: Source,
    second: Predictive,
    target: Tensor,
    start: int,
) -> None:
    """Refuse predictions of other classes, of another kind of target, or of other targets."""
    if has_events(first.likelihood):
        raise IncompatiblePosteriors(
            f"{reference.name} predicts times, whose distributions may have no finite moments to "
            "compare; compare the NLL and the concordance of evaluations"
        )
    kinds = [_kind(own) for own in (first, second)]
    if kinds[0] != kinds[1]:
        raise IncompatiblePosteriors(
            f"{own.name} predicts {kinds[1]}, {reference.name} predicts {kinds[0]}; compare "
            "predictions of one target"
        )
    values = [
        predictive.in_own_units(own).reshape(len(own), -1)
        for predictive, own in ((first, y), (second, target))
    ]
    scale = torch.tensor([column.scale for column in first.columns], dtype=torch.float64)
    allowed = _ROUNDING * scale * (1 + y.double().abs().reshape(len(y), -1))
    apart = (values[0] - values[1]).abs() > allowed
    if bool(apart.any()):
        point, column = torch.nonzero(apart)[0].tolist()
        raise IncompatiblePosteriors(
            f"{own.name} has the target {float(values[1][point, column]):g} at test point "
            f"{start + point}, {reference.name} has {float(values[0][point, column]):g}; compare "
            "predictions at the same points, in the same order"
        )


def _kind(predictive: Predictive) -> str:
    """Return the kind of target that is predicted."""
    if predictive.is_classification:
        return f"{predictive.probabilities().shape[1]} classes"
    columns = len(predictive.columns)
    return predictive.likelihood.task + (f" of {columns} columns" if columns > 1 else "")


def _check_defined(own: Source, distances: Pointwise, start: int) -> None:
    ranking = distances.get("total_variation", distances["w1"])
    if np.isnan(ranking).any():
        point = start + int(np.flatnonzero(np.isnan(ranking))[0])
        raise InvalidData(
            f"{own.name} or the reference predicts NaN at test point {point}; fit it again, or "
            "leave it out"
        )


def _joined(parts: Sequence[Pointwise]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([own[name] for own in parts]) for name in parts[0]}
