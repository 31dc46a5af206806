"""Describe permutations of hidden units as a group, and find the subgroup that fixed entries leave.

In: a `PermutationSpec`, masks and fixed values. Out: a `SymmetryGroup` with its order and a proof.
Reading order: `permutation_spec`, `symmetry_group`, `relations`, `refinement`, `automorphisms`,
`fixed_values`, `rescaling`, `permanent`.
"""
