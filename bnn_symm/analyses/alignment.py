"""Align the posteriors of runs, one by one to a reference or jointly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnn_symm.alignment import (
    Alignment,
    ContinuousAlignment,
    JointCost,
    Matching,
    SingularVectors,
    Solver,
    Synchronization,
    align,
    align_continuous,
    align_samples,
    check_symmetries,
    singular_vectors,
    synchronize,
)
from bnn_symm.alignment.continuous import Symmetry
from bnn_symm.data import Split
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.runs.run import Run
from bnn_symm.symmetry import Permutation, SymmetryGroup, symmetry_group
from bnn_symm.threads import available_cores, use_threads

# Width from which the matrix products of an alignment are large enough for all cores.
_LARGE = 512


@dataclass(frozen=True, kw_only=True)
class RunAlignment:
    """Hold the alignment of a run to the reference.

    Attributes:
        run: the path of the run.
        alignment: the alignment of its posterior.
        chains_moved_first: the number of its chains that were permuted before.
        continuous: its alignment over scales and rotations too, if it was requested.
        singular_vectors: those of its weights before and after, if they were requested.
    """

    run: str
    alignment: Alignment
    chains_moved_first: int
    continuous: ContinuousAlignment | None = None
    singular_vectors: tuple[tuple[SingularVectors, SingularVectors], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the alignment of the run as JSON types."""
        return {
            "run": self.run,
            **self.alignment.to_dict(),
            "chains_moved_first": self.chains_moved_first,
            **({"continuous": self.continuous.to_dict()} if self.continuous else {}),
            **({"singular_vectors": self._vectors()} if self.singular_vectors else {}),
        }

    def _vectors(self) -> dict[str, Any]:
        return {
            before.weight: {"before": before.to_dict(), "after": after.to_dict()}
            for before, after in self.singular_vectors
        }


def align_runs(
    reference: Run,
    others: Sequence[Run],
    *,
    matching: Matching = "w2",
    solver: Solver = "auto",
    symmetries: Sequence[str] = ("permutation",),
    compare_vectors: bool = False,
    seed: int = 0,
) -> tuple[list[Posterior], list[RunAlignment], int]:
    """Align the posteriors of runs to that of a reference.

    Chains of draws and members of ensembles, also those of the reference, are first aligned to one
    another: the mean over several modes is not a meaningful target.

    Args:
        reference: the run to align to.
        others: the runs to align.
        matching: the matching cost.
        solver: the solver.
        symmetries: `permutation`, and perhaps `scale` and `rotation`.
        compare_vectors: whether singular vectors are compared.
        seed: the seed of the solver.

    Returns:
        The posteriors, that of the reference first; the alignment of each of the other runs; and
        the number of chains of the reference that were permuted.
    """
    chosen = check_symmetries(symmetries)
    group, train = group_of(reference), reference.dataset().train
    with use_threads(alignment_threads(group)):
        first, chains_moved = align_chains(reference.posterior, group, seed)
        aligned, alignments = [first], []
        for run in others:
            alignment, posterior = _align_run(
                first,
                run,
                chosen,
                group,
                matching=matching,
                solver=solver,
                part=train,
                compare_vectors=compare_vectors,
                seed=seed,
            )
            aligned.append(posterior)
            alignments.append(alignment)
    return aligned, alignments, chains_moved


def _align_run(
    reference: Posterior,
    run: Run,
    symmetries: tuple[Symmetry, ...],
    group: SymmetryGroup,
    *,
    matching: Matching,
    solver: Solver,
    part: Split,
    compare_vectors: bool,
    seed: int,
) -> tuple[RunAlignment, Posterior]:
    """Return the alignment of a run to a reference, and its aligned posterior."""
    posterior, moved = align_chains(run.posterior, group, seed)
    alignment = align(
        reference, posterior, matching=matching, solver=solver, part=part, group=group, seed=seed
    )
    continuous = None
    if len(symmetries) > 1:
        continuous = align_continuous(
            reference, posterior, symmetries, first=alignment.permutation, group=group, seed=seed
        )
    aligned = (continuous or alignment).apply(posterior)
    result = RunAlignment(
        run=str(run.path),
        alignment=alignment,
        chains_moved_first=moved,
        continuous=continuous,
        singular_vectors=_vectors(reference, posterior, aligned) if compare_vectors else (),
    )
    return result, aligned


def _vectors(
    reference: Posterior, before: Posterior, after: Posterior
) -> tuple[tuple[SingularVectors, SingularVectors], ...]:
    """Return the singular vectors of each weight, compared before and after an alignment."""
    pairs = (singular_vectors(reference, posterior) for posterior in (before, after))
    return tuple(zip(*pairs, strict=True))


def align_chains(posterior: Posterior, group: SymmetryGroup, seed: int) -> tuple[Posterior, int]:
    """Align the chains of a posterior to one another.

    Args:
        posterior: the posterior.
        group: the symmetry group of its network.
        seed: the seed of the alignment.

    Returns:
        The aligned posterior, or the same one if it has no chains to align; and how many chains
        were permuted relative to the majority.
    """
    if not isinstance(posterior, SamplePosterior) or posterior.shape[0] == 1 or group.is_trivial:
        return posterior, 0
    if posterior.model.statistics:  # all chains of a posterior share them, so they stay in place
        group = symmetry_group(posterior.model.net, group.spec)
        if group.is_trivial:
            return posterior, 0
    aligned = align_samples(posterior, per="chain", null=False, group=group, seed=seed)
    return aligned.posterior, sum(
        not isinstance(p, Permutation) or not p.is_identity for p in aligned.permutations
    )


def align_jointly(
    runs: Sequence[Run], *, cost: JointCost = "w2", seed: int = 0
) -> tuple[list[Posterior], Synchronization]:
    """Align the posteriors of several runs jointly, without a reference.

    Args:
        runs: comparable runs.
        cost: the matching cost.
        seed: the seed of the solver.

    Returns:
        The aligned posteriors, and the alignment.
    """
    group = group_of(runs[0])
    with use_threads(alignment_threads(group)):
        posteriors = [align_chains(run.posterior, group, seed)[0] for run in runs]
        synchronization = synchronize(posteriors, cost=cost, group=group, seed=seed)
    return synchronization.apply(posteriors), synchronization


def group_of(run: Run) -> SymmetryGroup:
    """Return the permutations that map the network of a run to one that computes the same.

    Args:
        run: the run.
    """
    return symmetry_group(
        run.model.net, input_shape=run.preprocessing.input_shape, move_statistics=True
    )


def alignment_threads(group: SymmetryGroup) -> int:
    """Return the number of threads of an alignment.

    Args:
        group: the symmetry group of the network.
    """
    largest = max((units.size for units in group.spec.groups.values()), default=0)
    return available_cores() if largest >= _LARGE else 1
