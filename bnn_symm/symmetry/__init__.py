"""Which permutations of hidden units leave a network's function unchanged: derived, certified, counted."""

from bnn_symm.symmetry.continuous import ContinuousSymmetry, continuous_symmetries, rescale
from bnn_symm.symmetry.derive import permutation_spec
from bnn_symm.symmetry.fixed import Fixed, HasFixedEntries, duplicate_rows, fixed_entries, moved_tensors
from bnn_symm.symmetry.group import Component, SymmetryGroup, symmetry_group
from bnn_symm.symmetry.spec import Group, Permutation, PermutationSpec, Segment

__all__ = [
    "Component",
    "ContinuousSymmetry",
    "Fixed",
    "Group",
    "HasFixedEntries",
    "Permutation",
    "PermutationSpec",
    "Segment",
    "SymmetryGroup",
    "continuous_symmetries",
    "duplicate_rows",
    "fixed_entries",
    "moved_tensors",
    "permutation_spec",
    "rescale",
    "symmetry_group",
]
