"""Derive, certify and count the permutations of hidden units that preserve a network's function.

In: any module. Out: `permutation_spec` derives its permutation symmetries; `symmetry_group` finds
the subgroup that fixed entries leave; `continuous_symmetries` lists the rescalings and shifts.
Reading order: `derive`, `tracing`, `rules`, `group`, `certificate`, `continuous`, `spec_file`.
"""

from bnn_symm.symmetry.continuous import ContinuousSymmetry, continuous_symmetries, rescale
from bnn_symm.symmetry.derive import permutation_spec
from bnn_symm.symmetry.group.fixed_values import (
    FixedTensor,
    HasFixedEntries,
    duplicate_rows,
    fixed_entries,
    moved_tensors,
    unit_statistics,
)
from bnn_symm.symmetry.group.permutation_spec import Group, Permutation, PermutationSpec, Segment
from bnn_symm.symmetry.group.symmetry_group import Component, SymmetryGroup, symmetry_group
from bnn_symm.symmetry.spec_file import load_spec, save_spec

__all__ = [
    "Component",
    "ContinuousSymmetry",
    "FixedTensor",
    "Group",
    "HasFixedEntries",
    "Permutation",
    "PermutationSpec",
    "Segment",
    "SymmetryGroup",
    "continuous_symmetries",
    "duplicate_rows",
    "fixed_entries",
    "load_spec",
    "moved_tensors",
    "permutation_spec",
    "rescale",
    "save_spec",
    "symmetry_group",
    "unit_statistics",
]
