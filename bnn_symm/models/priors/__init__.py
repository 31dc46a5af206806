"""Define independent priors on the parameters of a network.

Reading order: `prior`, `families`, `informed_mean`.
"""
