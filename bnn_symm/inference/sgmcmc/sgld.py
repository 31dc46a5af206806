"""Stochastic-gradient Langevin dynamics (SGLD), with an optional preconditioner (pSGLD).

    w' = w - eps / 2 grad U(w) + sqrt(eps) noise,     eps = 2 T learning_rate / N

For a Gaussian of precision lambda and full batches, the stationary distribution is a Gaussian of
variance 1 / (lambda (1 - eps lambda / 4)). It is too wide by the fraction eps lambda / 4, and it
does not exist for eps lambda >= 4.

References:
    Welling & Teh 2011 (SGLD); Li et al. 2016, arXiv:1512.07666 (pSGLD).
"""

import math
from typing import Literal

from bnn_symm.inference.sgmcmc.langevin import LangevinStage
from bnn_symm.inference.sgmcmc.stationary import StationarySampler
from bnn_symm.settings import Positive, settings


@settings
class SGLD(StationarySampler):
    """Settings of SGLD (config `inference: {name: sgld}`)."""

    name: Literal["sgld"] = "sgld"
    learning_rate: Positive = 0.1

    def stage(self, step: int) -> LangevinStage:
        """Return the settings of a step: without momentum, all of it decays at every step.

        Args:
            step: counted from 0.
        """
        return self._stage(step, momentum_decay=1.0, noise=math.sqrt(2))
