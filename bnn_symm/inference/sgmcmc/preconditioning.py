"""The preconditioner of the stochastic-gradient samplers (Li et al. 2016, arXiv:1512.07666).

It is learned outside of sampling only. While draws are made its scales s are constants, so that the
term Gamma of the paper, the divergence of s, is zero, and not left out as in the paper's own
algorithm.
"""

from torch import Tensor

from bnn_symm.settings import Fraction, Positive, settings


@settings
class RMSprop:
    """A diagonal preconditioner, s = 1 / (damping + sqrt(V)), V the running mean of squared
    gradients.

    Gradients are those of the mean loss T U / N; V is corrected for its start at zero.

    Attributes:
        decay: weight of the past in V.
        damping: bounds s from above, by its inverse, where gradients vanish.
    """

    decay: Fraction = 0.99
    damping: Positive = 1e-3

    def learn(self, mean_square: Tensor, gradient: Tensor) -> None:
        """Takes a gradient into V."""
        mean_square.mul_(self.decay).addcmul_(gradient, gradient, value=1 - self.decay)

    def scales(self, mean_square: Tensor, learned: int) -> Tensor:
        """S of a V that has taken in so many gradients, one or more."""
        return 1.0 / (self.damping + (mean_square / (1 - self.decay**learned)).sqrt())
