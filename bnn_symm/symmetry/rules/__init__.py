"""Relate the axes of the inputs and outputs of each operation; one file for each kind of operation.

In: the labeled tensors of an operation. Out: labels of its result. Reading order: `elementwise`,
    `layers`, `shapes`,
`attention`.
"""
