"""Find modes, and approximate the posterior around them.

In: a model and data. Out: a posterior of one point, of one point for each member, or a normal
    around a mode. Reading
order: `training_loop`, `minibatches`, `map`, `deep_ensemble`, `laplace`, `curvature`, `swag`,
    `mc_dropout`,
`optimality`.
"""
