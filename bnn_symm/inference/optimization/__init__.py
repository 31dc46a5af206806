"""Find modes of the posterior, and approximate the posterior around them.

Input: a model and data. Output: a posterior of one point, of one point per ensemble member, or a
normal distribution around a mode. Reading order: `optimizer`, `map`, `deep_ensemble`, `swag`,
`mc_dropout`, `iterative_pruning`, `permutation_training`, `optimality`.
"""
