"""Define the likelihoods of unordered classes. Targets are class indices."""

from typing import Literal

import pyro.distributions as dist
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import logsigmoid

from bnn_symm.errors import ConfigError
from bnn_symm.models.likelihoods.likelihood import ClassLikelihood, Latents
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import settings


@settings
class Categorical(ClassLikelihood):
    """Apply a softmax over the outputs, one output per class."""

    name: Literal["categorical"] = "categorical"

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point output"],
        y: Shaped[Tensor, " point"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Return the log softmax at the target class."""
        # A sum with one nonzero term in place of `gather`: a compiler fuses it and its gradient
        # into one pass.
        is_target = y.unsqueeze(-1) == torch.arange(outputs.shape[-1], device=outputs.device)
        return torch.where(is_target, outputs, 0.0).sum(-1) - outputs.logsumexp(-1)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's Categorical with the outputs as logits."""
        return dist.Categorical(logits=outputs)

    def probabilities(
        self, outputs: Float[Tensor, "*draw point output"], latents: Latents
    ) -> Float[Tensor, "*draw point class"]:
        """Return the class probabilities given each draw."""
        return outputs.softmax(-1)

    def canonical_outputs(self, outputs: Tensor) -> Tensor:
        """Return the logits centered over classes; the probabilities ignore a common shift."""
        return outputs - outputs.mean(-1, keepdim=True)

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return a root of diag(p) - p p^T = sum_c p_c (e_c - p)(e_c - p)^T."""
        probabilities = outputs.softmax(-1)
        unit = torch.eye(outputs.shape[-1], dtype=outputs.dtype, device=outputs.device)
        return probabilities.sqrt().unsqueeze(-1) * (unit - probabilities.unsqueeze(-2))


@settings
class Bernoulli(ClassLikelihood):
    """Model two classes by one output: the logit of the second class."""

    name: Literal["bernoulli"] = "bernoulli"
    num_classes = 2

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return 1, for a data set of exactly two classes.

        Args:
            num_outputs: number of classes of the data set.

        Raises:
            ConfigError: if the data set does not have two classes.
        """
        if num_outputs != 2:
            raise ConfigError(
                f"likelihood bernoulli needs 2 classes, the data have {num_outputs}; "
                "set likelihood.name=categorical"
            )
        return 1

    def log_prob(
        self, outputs: Float[Tensor, "*draw point 1"], y: Shaped[Tensor, " point"], latents: Latents
    ) -> Float[Tensor, "*draw point"]:
        """Return the log sigmoid of the logit, signed by the class."""
        logits = outputs.squeeze(-1)
        return logsigmoid(torch.where(y.bool(), logits, -logits))

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's Bernoulli with the output as logit."""
        return dist.Bernoulli(logits=outputs.squeeze(-1))

    def probabilities(
        self, outputs: Float[Tensor, "*draw point 1"], latents: Latents
    ) -> Float[Tensor, "*draw point 2"]:
        """Return the probabilities of the first and the second class given each draw."""
        return torch.cat([torch.sigmoid(-outputs), torch.sigmoid(outputs)], dim=-1)

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return the square root of p (1 - p)."""
        return (0.5 * (logsigmoid(outputs) + logsigmoid(-outputs))).exp().unsqueeze(-1)
