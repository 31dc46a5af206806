"""Align posteriors over permutations of hidden units and merge aligned posteriors.

In: posteriors of one network. Out: permutations, and permuted or merged posteriors. Reading order:
`align` (pairs), `synchronize` (many), `samples` and `iterated_mean` (draws), `draws`, `objective`,
`solvers`, `activations`, `connectivity`, `merge`, `canonicalize`, `transport`, `continuous` (scales
and rotations) and `singular_vectors`.
"""

from bnn_symm.alignment.align import Alignment, Matching, Solver, align, check_same_parameters
from bnn_symm.alignment.canonicalize import canonical_samples, canonicalize
from bnn_symm.alignment.connectivity import (
    ComposedPath,
    Cycle,
    PairwiseAlignments,
    SequenceAlignment,
    agreement,
    align_pairs,
    align_sequences,
    composed_paths,
    cycles,
)
from bnn_symm.alignment.continuous import (
    ContinuousAlignment,
    Symmetry,
    align_continuous,
    check_symmetries,
)
from bnn_symm.alignment.merge import Rule, merge
from bnn_symm.alignment.samples import (
    Agreement,
    SampleAlignment,
    align_samples,
    prior_draws,
    transpositions,
)
from bnn_symm.alignment.singular_vectors import SingularVectors, singular_vectors
from bnn_symm.alignment.synchronize import JointCost, Synchronization, synchronize

__all__ = [
    "Agreement",
    "Alignment",
    "ComposedPath",
    "ContinuousAlignment",
    "Cycle",
    "JointCost",
    "Matching",
    "PairwiseAlignments",
    "Rule",
    "SampleAlignment",
    "SequenceAlignment",
    "SingularVectors",
    "Solver",
    "Symmetry",
    "Synchronization",
    "agreement",
    "align",
    "align_continuous",
    "align_pairs",
    "align_samples",
    "align_sequences",
    "canonical_samples",
    "canonicalize",
    "check_same_parameters",
    "check_symmetries",
    "composed_paths",
    "cycles",
    "merge",
    "prior_draws",
    "singular_vectors",
    "synchronize",
    "transpositions",
]
