"""Break the permutation symmetry of a network, and build the controls of such a comparison.

In: a standard network and a `SymmetryConfig`. Out: the same network with fixed entries, FiGLU gates
    or a control's
initial values. Reading order: `asymmetrize`, `settings`, `masks`, `fixed_entries`, `figlu`,
    `init_matched`,
`parameter_matched`, `block_fixed`, `fingerprint`.
"""
