"""How near the predictions of posteriors come to those of a reference posterior.

In: a reference (a posterior, or an array of class probabilities) and posteriors. Out: agreement,
total variation, Wasserstein distances and differences in NLL. Reading order: `wasserstein`,
`sources`, `fidelity`.
"""
