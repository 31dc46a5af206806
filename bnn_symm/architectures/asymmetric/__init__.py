"""Break the permutation symmetry of a network, and build the controls of such a comparison.

In: a standard network and a `SymmetryConfig`. Out: the same network with fixed entries, FiGLU gates
or the initial values of a control. Reading order: `asymmetrize`, `settings`, `masks`,
`fixed_entries`, `figlu`, `init_matched`, `parameter_matched`, `block_fixed`, `fingerprint`.
"""
