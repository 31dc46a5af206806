"""Evaluate the tempered log density and its gradient for many chains at once.

In: a model and data. Out: functions of a batch of flat vectors. Reading order: `density`,
    `batched_mlp`, `compiled`,
`sharded`, `layer_overrides`.
"""
