r"""Stochastic-gradient Langevin dynamics (Welling & Teh 2011), preconditioned on demand (pSGLD, Li
et al. 2016).

    w' = w - eps / 2 grad U(w) + sqrt(eps) noise,     eps = 2 T learning_rate / N

On a Gaussian of precision lambda, with all of the data at every step, its law is a Gaussian too, of
variance 1 / (lambda (1 - eps lambda / 4)): too wide by the share eps lambda / 4, and none at all
from eps lambda = 4 on.
"""

import math
from typing import Literal

from bnn_symm.inference.sgmcmc.sampler import Stage
from bnn_symm.inference.sgmcmc.stationary import StationarySampler
from bnn_symm.settings import Positive, settings


@settings
class SGLD(StationarySampler):
    """Settings of SGLD (config `inference: {name: sgld}`)."""

    name: Literal["sgld"] = "sgld"
    learning_rate: Positive = 0.1

    def stage(self, step: int) -> Stage:
        """Without momentum: all of it decays at every step."""
        return self._stage(step, momentum_decay=1.0, noise=math.sqrt(2))
