"""Define the likelihood of ordered classes. Targets are class indices, from lowest to highest."""

from typing import Annotated, Literal

import pyro.distributions as dist
import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from bnn_symm.errors import ConfigError
from bnn_symm.models.likelihoods.likelihood import ClassLikelihood, Latents
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import Positive, settings


@settings
class Ordinal(ClassLikelihood):
    """Model ordered classes by cumulative logits: P(y <= k) = sigmoid(cutpoint_k - output).

    K classes have K - 1 increasing cutpoints. Their gaps are positive and learned: the log of each
    is a latent variable with a normal prior. Only differences between cutpoints and output matter,
    so the mean of the cutpoints is fixed at 0 and the bias of the network's last layer sets the
    level; a free first cutpoint would repeat that bias. It is the proportional odds model of
    McCullagh 1980 (doi:10.1111/j.2517-6161.1980.tb01109.x) with a network in place of the linear
    predictor.

    Attributes:
        num_classes: number of classes; null: that of the data.
        log_gap_mean: prior mean of the log of the gap between two neighboring cutpoints.
        log_gap_sd: prior standard deviation of the log of the gap. The defaults put 95 % of the
            prior on gaps between 0.14 and 7; the logistic noise has a standard deviation of 1.8.
    """

    name: Literal["ordinal"] = "ordinal"
    num_classes: Annotated[int, Field(ge=3)] | None = None
    log_gap_mean: float = 0.0
    log_gap_sd: Positive = 1.0
    is_ordered = True

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """Return the priors of `log_gap_1`, ..., from the lowest to the highest gap.

        Raises:
            ConfigError: if the number of classes is not known.
        """
        if self.num_classes is None:
            raise ConfigError(
                "likelihood ordinal: the number of classes is not known; write "
                "Ordinal(num_classes=K), with K = dataset.num_outputs"
            )
        prior = (self.log_gap_mean, self.log_gap_sd)
        return {f"log_gap_{k}": prior for k in range(1, self.num_classes - 1)}

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return 1, for a data set of as many classes.

        Args:
            num_outputs: number of classes of the data set.

        Raises:
            ConfigError: if the data set has two classes, or not the number of `num_classes`.
        """
        if num_outputs < 3:
            raise ConfigError(
                f"likelihood ordinal needs 3 or more classes, the data have {num_outputs}; "
                "set likelihood.name=bernoulli, for which two classes need no order"
            )
        if self.num_classes not in (None, num_outputs):
            raise ConfigError(
                f"likelihood.num_classes is {self.num_classes}, but the data have {num_outputs} "
                "classes; remove it, or list all classes in data.levels"
            )
        return 1

    def _cutpoints(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """Return the cutpoints, (..., class - 1), and the gaps between them."""
        gaps = torch.stack([latents[name] for name in self.latents], dim=-1).exp()
        above = gaps.cumsum(-1)
        cutpoints = torch.cat([torch.zeros_like(above[..., :1]), above], dim=-1)
        return cutpoints - cutpoints.mean(-1, keepdim=True), gaps

    def log_prob(
        self, outputs: Float[Tensor, "*draw point 1"], y: Shaped[Tensor, " point"], latents: Latents
    ) -> Float[Tensor, "*draw point"]:
        """Return the log probability of the target class.

        With a and b the cutpoints around the class, minus the output: sigmoid(b) - sigmoid(a) =
        sigmoid(b) sigmoid(-a) (1 - exp(a - b)), whose log loses no digits in the tails.
        """
        cutpoints, gaps = self._cutpoints(latents)
        top = cutpoints.shape[-1]
        y, score = y.long(), outputs.squeeze(-1)
        upper = cutpoints.index_select(-1, y.clamp(max=top - 1)) - score
        lower = cutpoints.index_select(-1, (y - 1).clamp(min=0)) - score
        gap = gaps.index_select(-1, (y - 1).clamp(0, top - 2))
        is_lowest, is_highest = y == 0, y == top
        between = torch.where(is_lowest | is_highest, 0.0, torch.log(-torch.expm1(-gap)))
        return (
            torch.where(is_highest, 0.0, logsigmoid(upper))
            + torch.where(is_lowest, 0.0, logsigmoid(-lower))
            + between
        )

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's OrderedLogistic."""
        cutpoints = self._cutpoints(latents)[0].unsqueeze(-2)
        return dist.OrderedLogistic(outputs.squeeze(-1), cutpoints)

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return the rows (dp_k / dz) / sqrt(p_k), one per class.

        The sum of their squares is the Fisher information of a discrete target.
        """
        cutpoints, gaps = self._cutpoints(latents)
        cumulative = torch.sigmoid(cutpoints - outputs)  # (point, cutpoint)
        slope = cumulative * (1 - cumulative)
        # The gap i moves the cutpoints above it, and all of them by the change of their mean.
        number = torch.arange(len(cutpoints), device=outputs.device)
        moved = (number[:, None] > number[None, :-1]).to(outputs) * gaps
        moved = moved - moved.mean(0, keepdim=True)
        slopes = slope.unsqueeze(-1) * torch.cat([-torch.ones_like(moved[:, :1]), moved], dim=1)
        edge = torch.zeros_like(slopes[:, :1])
        changes = torch.diff(slopes, dim=1, prepend=edge, append=edge)
        return changes * self.probabilities(outputs, latents).rsqrt().unsqueeze(-1)
