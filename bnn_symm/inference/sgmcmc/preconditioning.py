"""The preconditioner of the stochastic-gradient samplers.

It adapts only outside of the sampling phase. While draws are collected its scales s are constant,
so the term Gamma of the paper, the divergence of s, is exactly zero. The algorithm of the paper
neglects this term.

References:
    Li et al. 2016, arXiv:1512.07666.
"""

from torch import Tensor

from bnn_symm.settings import Fraction, Positive, settings


@settings
class RMSprop:
    """A diagonal preconditioner, s = 1 / (damping + sqrt(V)).

    V is the running mean of squared gradients of the mean loss T U / N, with bias correction.

    Attributes:
        decay: weight of the past in V.
        damping: its inverse is the maximum of s, where gradients vanish.
    """

    decay: Fraction = 0.99
    damping: Positive = 1e-3

    def learn(self, mean_square: Tensor, gradient: Tensor) -> None:
        """Update V with a gradient, in place.

        Args:
            mean_square: V.
            gradient: gradient of the mean loss.
        """
        mean_square.mul_(self.decay).addcmul_(gradient, gradient, value=1 - self.decay)

    def scales(self, mean_square: Tensor, learned: int) -> Tensor:
        """Return the scales s.

        Args:
            mean_square: V, without bias correction.
            learned: number of updates of V, at least one.
        """
        return 1.0 / (self.damping + (mean_square / (1 - self.decay**learned)).sqrt())
