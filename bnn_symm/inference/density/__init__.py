"""Evaluate the tempered log density and its gradient for many chains at once.

Input: a model and data. Output: functions of a batch of flat vectors. Reading order: `density`,
`batched_mlp`, `compiled`, `minibatch`, `sharded`, `layer_overrides`.
"""
