"""Measure the barriers along sequences of points, with one permutation for all or one for each.

With the permutation of each point connectivity is *weak*, with one for all points *simultaneous*,
and with permutations that compose over three runs *strong* (Sharma et al. 2024, arXiv:2404.06498).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from bnn_symm.advice import advise
from bnn_symm.alignment import (
    PairwiseAlignments,
    agreement,
    align_pairs,
    align_sequences,
    composed_paths,
    cycles,
)
from bnn_symm.analyses.alignment import alignment_threads, group_of
from bnn_symm.analyses.barriers import BarrierOptions
from bnn_symm.analyses.sequence_results import (
    CycleHeight,
    PathHeight,
    Rule,
    SequenceBarrier,
    SequenceHeight,
    SequencePoint,
)
from bnn_symm.analyses.sequences import (
    PointSequence,
    check_same_steps,
    joint_cost,
    members_of,
    sequence_of,
)
from bnn_symm.data import Dataset
from bnn_symm.diagnostics import Barrier, barrier
from bnn_symm.errors import ConfigError
from bnn_symm.inference.optimization.iterative_pruning import prunable_weights, weights_left
from bnn_symm.posteriors import Posterior
from bnn_symm.runs.run import Run
from bnn_symm.symmetry import Permutation, PermutationSpec
from bnn_symm.threads import use_threads

_DEFAULTS = BarrierOptions()
# Options of barriers that have a meaning for a sequence too.
_USED = ("coupling", "num_draws", "seed", "matching")


def barrier_sequences(runs: Sequence[Run], options: BarrierOptions = _DEFAULTS) -> SequenceBarrier:
    """Measure the barriers between all pairs of sequences at all of their points.

    Args:
        runs: comparable runs that have kept states at the same steps. Members of an ensemble are
            sequences of their own.
        options: the matching, the coupling and the number of draws, and the seed.

    Returns:
        The barriers without a permutation, and with those of single points and of all points; for
        three or more sequences, composed paths and cycles too.

    Raises:
        ConfigError: if there are fewer than two sequences, one has no states, their steps differ,
            or another option is set.
    """
    _check_options(options)
    cost = joint_cost(options.matching)
    sequences = [own for run in runs for own in members_of(sequence_of(run))]
    check_same_steps(sequences)
    if len(sequences) < 2:
        raise ConfigError(
            f"{sequences[0].name} is one sequence of points; name two runs, or an ensemble"
        )
    group = group_of(runs[0])
    columns = list(zip(*(own.posteriors for own in sequences), strict=True))
    with use_threads(alignment_threads(group)):
        by_point = [
            align_pairs(column, cost=cost, group=group, seed=options.seed) for column in columns
        ]
        joint = {
            (i, j): align_sequences(
                sequences[i].posteriors,
                sequences[j].posteriors,
                cost=cost,
                group=group,
                seed=options.seed,
            ).permutation
            for i, j in combinations(range(len(sequences)), 2)
        }
    with use_threads(runs[0].threads):
        return _measured(sequences, by_point, joint, _Heights(columns, runs[0].dataset(), options))


def _check_options(options: BarrierOptions) -> None:
    """Refuse options that have no meaning for a sequence."""
    others = [
        name
        for name, value in vars(options).items()
        if name not in _USED and value != getattr(_DEFAULTS, name)
    ]
    if others:
        name = others[0]
        flag = "--no-align" if name == "aligned" else f"--{name.replace('_', '-')}"
        raise ConfigError(
            f"{advise(flag, name)} does not apply to sequences, whose barriers are measured on "
            "geodesics, without a permutation and with several; leave it out"
        )


class _Heights:
    """Measure barriers between points, each once.

    Args:
        columns: the posteriors of all sequences, by point.
        dataset: the data.
        options: coupling, number of draws and seed.
    """

    def __init__(
        self, columns: Sequence[Sequence[Posterior]], dataset: Dataset, options: BarrierOptions
    ):
        self._columns, self._dataset = columns, dataset
        self._keywords: dict[str, Any] = {
            "coupling": options.coupling,
            "num_draws": options.num_draws,
            "seed": options.seed,
        }
        self._known: list[tuple[tuple[int, int, int], Permutation | None, Barrier]] = []

    def __call__(self, point: int, i: int, j: int, permutation: Permutation | None) -> Barrier:
        """Return the barrier between two sequences at a point, of which the second is permuted."""
        for key, known, result in self._known:
            if key == (point, i, j) and _same(known, permutation):
                return result
        second = self._columns[point][j]
        second = second if permutation is None else second.permute(permutation)
        result = barrier(self._columns[point][i], second, self._dataset, **self._keywords)
        self._known.append(((point, i, j), permutation, result))
        return result


def _same(first: Permutation | None, second: Permutation | None) -> bool:
    return first is second or (first is not None and second is not None and first.same_as(second))


def _measured(
    sequences: Sequence[PointSequence],
    by_point: Sequence[PairwiseAlignments],
    joint: Mapping[tuple[int, int], Permutation],
    heights: _Heights,
) -> SequenceBarrier:
    """Return all rows of the result."""
    rows = [
        row
        for i, j in joint
        for row in _pair_rows(i, j, [own.permutations[i, j] for own in by_point], joint, heights)
    ]
    paths, loops = [], []
    for point in range(len(by_point)) if len(sequences) > 2 else ():
        posteriors = [own.posteriors[point] for own in sequences]
        paths += _path_rows(point, posteriors, by_point[point], heights)
        loops += _cycle_rows(point, posteriors, by_point[point], heights)
    return SequenceBarrier(
        runs=[own.name for own in sequences],
        cost=by_point[0].cost,
        points=_points(sequences, heights),
        barriers=rows,
        paths=paths,
        cycles=loops,
    )


def _points(sequences: Sequence[PointSequence], heights: _Heights) -> list[SequencePoint]:
    """Describe the networks at each point by the ends of the paths between them."""
    number, points = len(sequences), []
    for point, (step, epoch) in enumerate(
        zip(sequences[0].steps, sequences[0].epochs, strict=True)
    ):
        curves = [heights(point, 0, j, None).test for j in range(1, number)]
        ends = [(curves[0], 0), *((curve, -1) for curve in curves)]
        points.append(
            SequencePoint(
                step=step,
                epoch=epoch,
                nll=float(np.mean([curve.marginal_nll[end] for curve, end in ends])),
                error=float(np.mean([curve.error[end] for curve, end in ends])),
                weights_left=float(
                    np.mean([_fraction_left(own.posteriors[point]) for own in sequences])
                ),
            )
        )
    return points


def _fraction_left(posterior: Posterior) -> float:
    weights = prunable_weights(posterior.model)
    return float(weights_left(posterior)[weights].double().mean()) if weights.any() else 1.0


def _pair_rows(
    i: int,
    j: int,
    own: Sequence[Permutation],
    joint: Mapping[tuple[int, int], Permutation],
    heights: _Heights,
) -> list[SequenceHeight]:
    """Return the rows of a pair, given the permutation of every point."""
    last = len(own) - 1
    rows = []
    for point, permutation in enumerate(own):
        chosen: dict[Rule, tuple[int, Permutation | None]] = {
            "none": (point, None),
            "own": (point, permutation),
            "last": (point, own[last]),
            "first": (point, own[0]),
            "joint": (point, joint[i, j]),
            "own_on_last": (last, permutation),
        }
        for rule, (where, applied) in chosen.items():
            measured = heights(where, i, j, applied)
            rows.append(
                SequenceHeight(
                    first=i,
                    second=j,
                    point=point,
                    permutation=rule,
                    height=measured.height,
                    standard_error=measured.standard_error,
                    error_height=measured.test.error_height,
                    train_height=measured.train.height,
                    agreement=None
                    if applied is None
                    else _share(agreement(applied, own[last]), applied.spec),
                )
            )
    return rows


def _path_rows(
    point: int, posteriors: Sequence[Posterior], pairs: PairwiseAlignments, heights: _Heights
) -> list[PathHeight]:
    """Return the barriers of all paths through a third sequence, each in one direction."""
    return [
        PathHeight(
            reference=path.reference,
            via=path.via,
            other=path.other,
            point=point,
            composed=heights(point, path.reference, path.other, path.composed).height,
            direct=heights(point, path.reference, path.other, path.direct).height,
            agreement=_share(path.agreement, path.direct.spec),
        )
        for path in composed_paths(posteriors, pairs)
        if path.reference < path.other
    ]


def _cycle_rows(
    point: int, posteriors: Sequence[Posterior], pairs: PairwiseAlignments, heights: _Heights
) -> list[CycleHeight]:
    """Return the barriers between networks and their images after cycles of three."""
    return [
        CycleHeight(
            members=own.members,
            point=point,
            fixed=_share(own.share, own.permutation.spec),
            height=heights(point, own.members[0], own.members[0], own.permutation).height,
        )
        for own in cycles(posteriors, pairs)
    ]


def _share(shares: Mapping[str, float], spec: PermutationSpec) -> float | None:
    """Return the fraction of all units from the fractions of the groups."""
    size = sum(spec.groups[name].size for name in shares)
    if not size:
        return None
    return sum(share * spec.groups[name].size for name, share in shares.items()) / size
