"""Define independent priors on the parameters of a network.

Reading order: `prior`, `family`, `families`, `informed_mean`.
"""
