"""Relate the axes of the inputs and outputs of each operation; one file per kind of operation.

In: the labeled tensors of an operation. Out: labels of its result. Reading order: `elementwise`,
`layers`, `shapes`, `attention`, `recurrent`, `selections`.
"""
