"""Hold the result of `bnn-symm barrier --sequence`, whose JSON it defines."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from bnn_symm.alignment import JointCost
from bnn_symm.diagnostics.statistics.paired_comparison import Estimate, pair_estimate
from bnn_symm.summaries import Result, plain

Rule = Literal["none", "own", "last", "first", "joint", "own_on_last"]
"""The permutation of a row: none; that of the point itself, of the last or of the first point; the
one for all points; and that of the point, applied to the last point."""
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, kw_only=True)
class SequencePoint(Result):
    """Describe the networks at one point of the sequences.

    Attributes:
        step: steps that the optimizer had taken.
        epoch: the same in epochs.
        nll: marginal test NLL of the networks, mean over them.
        error: test error of the networks, mean over them.
        weights_left: fraction of the weights that are not pruned, mean over the networks.
    """

    step: int
    epoch: float
    nll: float
    error: float
    weights_left: float


@dataclass(frozen=True, kw_only=True)
class SequenceHeight(Result):
    """Hold the barrier of a pair at one point, with one permutation.

    Attributes:
        first: index of the sequence that is not permuted.
        second: index of the other one.
        point: index of the point.
        permutation: how the permutation was chosen.
        height: maximum of the marginal test NLL above the chord.
        standard_error: of `height`, given the two networks.
        error_height: maximum of the test error above the chord.
        train_height: as `height`, on the training split.
        agreement: fraction of the units on which the permutation agrees with that of the last
            point; None for no permutation, and for a network without hidden units.
    """

    first: int
    second: int
    point: int
    permutation: Rule
    height: float
    standard_error: float
    error_height: float
    train_height: float
    agreement: float | None


@dataclass(frozen=True, kw_only=True)
class PathHeight(Result):
    """Compare the two ways to bring one network to another: through a third one, and directly.

    Attributes:
        reference: index of the sequence that is not permuted.
        via: index of the one between.
        other: index of the one that is permuted.
        point: index of the point.
        composed: height of the barrier with the composed permutation.
        direct: with the direct one.
        agreement: fraction of the units on which both agree; None without hidden units.
    """

    reference: int
    via: int
    other: int
    point: int
    composed: float
    direct: float
    agreement: float | None


@dataclass(frozen=True, kw_only=True)
class CycleHeight(Result):
    """Compare a network with its image after a cycle of pairwise permutations.

    Attributes:
        members: indices of the sequences in the cycle.
        point: index of the point.
        fixed: fraction of the units that return to their position; None without hidden units.
        height: height of the barrier between the network and its image.
    """

    members: tuple[int, ...]
    point: int
    fixed: float | None
    height: float


@dataclass(frozen=True, kw_only=True)
class SequenceBarrier:
    """Hold the barriers between sequences of points, with permutations for single points and all.

    Attributes:
        runs: names of the sequences: the path of a run, with the member of an ensemble.
        cost: the moments that were compared.
        points: the points of the sequences.
        barriers: one row for every pair, point and permutation.
        paths: one row for every path through a third sequence, at every point.
        cycles: one row for every cycle of three, at every point.
    """

    runs: list[str]
    cost: JointCost
    points: list[SequencePoint]
    barriers: list[SequenceHeight]
    paths: list[PathHeight]
    cycles: list[CycleHeight]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Return the indices of the sequences of every pair."""
        return list(dict.fromkeys((row.first, row.second) for row in self.barriers))

    def rows(self, point: int, permutation: Rule) -> list[SequenceHeight]:
        """Return the rows of all pairs.

        Args:
            point: index of the point.
            permutation: how the permutation was chosen.
        """
        return [
            row for row in self.barriers if (row.point, row.permutation) == (point, permutation)
        ]

    def mean(
        self,
        point: int,
        permutation: Rule,
        value: Callable[[SequenceHeight], float] = lambda row: row.height,
    ) -> Estimate:
        """Return the mean over all pairs with its interval over the runs.

        Args:
            point: index of the point.
            permutation: how the permutation was chosen.
            value: what is averaged; the height of the barrier by default.
        """
        rows = self.rows(point, permutation)
        return pair_estimate({(row.first, row.second): value(row) for row in rows})

    def mean_agreement(self, point: int, permutation: Rule) -> float | None:
        """Return the fraction of the units on which a permutation agrees with the last one's.

        Args:
            point: index of the point.
            permutation: how the permutation was chosen.
        """
        return mean_or_none(row.agreement for row in self.rows(point, permutation))

    def to_dict(self) -> dict[str, Any]:
        """Return the barriers as JSON types.

        `height` is the largest mean over the points with the one permutation for all of them.
        """
        means = [
            {"point": point, "permutation": rule, **plain(self.mean(point, rule))}
            for point in range(len(self.points))
            for rule in RULES
        ]
        worst = max(
            (row for row in means if row["permutation"] == "joint"), key=lambda row: row["mean"]
        )
        only = self.rows(worst["point"], "joint")
        return {
            "height": worst["mean"],
            "standard_error": only[0].standard_error if len(only) == 1 else None,
            "runs": self.runs,
            "matching": self.cost,
            **{
                key: [own.to_dict() for own in getattr(self, key)]
                for key in ("points", "barriers", "paths", "cycles")
            },
            "means": means,
        }


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are defined; None without any.

    Args:
        values: numbers, or None.
    """
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
