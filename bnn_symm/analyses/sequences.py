"""Read the sequence of points that a run has kept, and align sequences to one another.

The points of a run are the states that it kept (`checkpoint.keep`) and its posterior. Two sequences
are connected *simultaneously* if one permutation removes the barriers of all of their points
(Sharma et al. 2024, arXiv:2404.06498).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bnn_symm.advice import advise, advise_setting
from bnn_symm.alignment import (
    JointCost,
    Matching,
    SequenceAlignment,
    align_sequences,
)
from bnn_symm.analyses.alignment import alignment_threads, group_of
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import MixturePosterior, Posterior, SamplePosterior
from bnn_symm.runs.run import Run
from bnn_symm.threads import use_threads


@dataclass(frozen=True, kw_only=True)
class PointSequence:
    """Hold the points of a fit in the order of training.

    Attributes:
        name: the path of the run, and the member of an ensemble.
        steps: steps that the optimizer had taken at each point.
        epochs: the same in epochs.
        posteriors: the points.
    """

    name: str
    steps: tuple[int, ...]
    epochs: tuple[float, ...]
    posteriors: tuple[Posterior, ...]


def sequence_of(run: Run) -> PointSequence:
    """Return the states that a run kept, and its posterior as the last point.

    Args:
        run: the run.

    Raises:
        ConfigError: if it kept no states.
    """
    points = run.checkpoints()
    if not points:
        keep = advise_setting("checkpoint.keep=[1,5,20]")
        raise ConfigError(
            f"{run.path} has kept no states, so that it is no sequence of points; fit it with "
            f"{keep}, the epochs of its states"
        )
    last = max((int(row["step"]) for row in run.posterior.history), default=0)
    points = {step: points[step] for step in sorted(points) if step < last} | {last: run.posterior}
    size = len(run.dataset().train)
    epoch = run.config.inference.points_per_gradient(size) / size
    return PointSequence(
        name=str(run.path),
        steps=tuple(points),
        epochs=tuple(step * epoch for step in points),
        posteriors=tuple(points.values()),
    )


def members_of(sequence: PointSequence) -> list[PointSequence]:
    """Return the sequence of each member of an ensemble; of one network, the sequence itself.

    Args:
        sequence: of a run.

    Raises:
        ConfigError: if its points have different numbers of members.
    """
    numbers = {posterior.shape[0] for posterior in sequence.posteriors}
    if len(numbers) > 1:
        raise ConfigError(
            f"{sequence.name} has points of {' and '.join(map(str, sorted(numbers)))} members: it "
            "was stopped between its members; resume it"
        )
    (number,) = numbers
    if number == 1:
        return [sequence]
    return [
        replace(
            sequence,
            name=f"{sequence.name}[{member}]",
            posteriors=tuple(_member(own, member) for own in sequence.posteriors),
        )
        for member in range(number)
    ]


def _member(posterior: Posterior, member: int) -> Posterior:
    if isinstance(posterior, MixturePosterior):
        return posterior.components[member]
    draws = posterior.read(member, 0, posterior.shape[1])
    return SamplePosterior.from_draws(posterior.model, draws[None], posterior.scaling)


def check_same_steps(sequences: Sequence[PointSequence]) -> None:
    """Refuse sequences whose points, except for the last ones, are at different steps.

    Args:
        sequences: the sequences; all are compared with the first.

    Raises:
        ConfigError: if steps differ.
    """
    first = sequences[0]
    for own in sequences[1:]:
        if own.steps[:-1] != first.steps[:-1]:
            raise ConfigError(
                f"{own.name} has kept states of steps {_listed(own)}, {first.name} of "
                f"{_listed(first)}; fit both with the same {advise_setting('checkpoint.keep')}"
            )


def _listed(sequence: PointSequence) -> str:
    return ", ".join(map(str, sequence.steps[:-1]))


def joint_cost(matching: Matching) -> JointCost:
    """Return the cost of a matching that serves several points.

    Args:
        matching: the name of a matching.

    Raises:
        ConfigError: if it is for two posteriors only.
    """
    for cost in ("w2", "means"):
        if matching == cost:
            return cost
    flag = advise(f"--matching {matching}", f"matching={matching!r}")
    raise ConfigError(f"{flag} is for two posteriors; sequences are matched by w2 or means")


def align_run_sequences(
    reference: Run,
    others: Sequence[Run],
    *,
    point: str = "joint",
    matching: Matching = "w2",
    seed: int = 0,
) -> list[SequenceAlignment]:
    """Find one permutation for all points of each run.

    Args:
        reference: the run to align to.
        others: the runs to align.
        point: `joint`: the permutation that minimizes the distance of all points together; or the
            point whose permutation serves all: `first`, `last` or the number of its step.
        matching: the matching cost, `w2` or `means`.
        seed: the seed of the solver.

    Returns:
        The alignment of each of the other runs, with its distances at all points.

    Raises:
        ConfigError: if a run is no sequence of single networks, the points differ, or there is no
            such point.
    """
    cost, group = joint_cost(matching), group_of(reference)
    sequences = [sequence_of(run) for run in (reference, *others)]
    check_same_steps(sequences)
    for own in sequences:
        if len(members_of(own)) > 1:
            raise ConfigError(
                f"{own.name} has {len(members_of(own))} members, each with a permutation of its "
                f"own; compare them with {advise('bnn-symm barrier --sequence', 'barriers')}"
            )
    first, *rest = sequences
    chosen = None if point == "joint" else _index(first, point)
    with use_threads(alignment_threads(group)):
        return [
            align_sequences(
                first.posteriors, own.posteriors, cost=cost, group=group, seed=seed, point=chosen
            )
            for own in rest
        ]


def _index(sequence: PointSequence, point: str) -> int:
    """Return the index of a point that is named by its place or its step."""
    names = {"first": 0, "last": len(sequence.steps) - 1}
    names |= {str(step): index for index, step in enumerate(sequence.steps)}
    if point not in names:
        known = ", ".join(map(str, sequence.steps))
        flag = advise(f"--point {point}", f"point={point!r}")
        raise ConfigError(f"{flag}: expected joint, first, last or one of the steps {known}")
    return names[point]
