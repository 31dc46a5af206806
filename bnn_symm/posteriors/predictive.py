"""The predictive distribution at some inputs: all draws of the network's outputs, and what follows
from them.

With draws theta_s, the predictive density of a target is the mixture (1/S) sum_s p(y | x, theta_s).
All quantities here are those of this mixture, exactly, without sampling targets. Regression is in
the target's own units: a standardized value z stands for `location + scale z`, and densities carry
the Jacobian 1 / scale.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.models import AnyLikelihood, Bernoulli, Categorical, Poisson
from bnn_symm.randomness import global_seed

# Halvings of the bracket of a quantile: from at most about 1e3 predictive standard deviations to
# below 1e-9 of one.
_BISECTIONS = 40
# Draws handled at once, so that temporaries stay a small part of the outputs themselves.
_DRAWS_AT_ONCE = 32
# Logits whose probabilities are summed at once: a few temporaries of them stay in the cache.
_NUMBERS_AT_ONCE = 2**15
# Sums of exp of logits between this and its inverse are far from what float32 cannot hold.
_SAFE = 1e30


@dataclass(frozen=True, kw_only=True)
class Predictive:
    """Outputs of a network for every draw, and the likelihood that says what they mean.

    Attributes:
        outputs: (chain, draw, point, output).
        latents: the likelihood's own variables, each (chain, draw).
        likelihood: of the model.
        location: mean that was subtracted from the targets.
        scale: standard deviation that the targets were divided by.
    """

    outputs: Float[Tensor, "chain draw point output"]
    latents: dict[str, Tensor]
    likelihood: AnyLikelihood
    location: float = 0.0
    scale: float = 1.0

    @property
    def is_classification(self) -> bool:
        """Whether the target is a class."""
        return isinstance(self.likelihood, Categorical | Bernoulli)

    @property
    def num_draws(self) -> int:
        """Chains times draws."""
        return self.outputs.shape[0] * self.outputs.shape[1]

    # -- any target

    def draw_log_prob(self, y: Shaped[Tensor, " point"]) -> Float[Tensor, "chain draw point"]:
        """Log p(y | x, theta_s) of every draw, in nats; y as in a `Split` (standardized), density in own units."""
        y = y.to(self.outputs.device)
        log_prob = torch.empty(self.outputs.shape[:3], dtype=self.outputs.dtype)
        for c in range(self.outputs.shape[0]):
            for s in range(0, self.outputs.shape[1], _DRAWS_AT_ONCE):
                where = (c, slice(s, s + _DRAWS_AT_ONCE))
                latents = {name: value[where] for name, value in self.latents.items()}
                log_prob[where] = self.likelihood.log_prob(self.outputs[where], y, latents)
        return log_prob - math.log(self.scale)

    def log_prob(self, y: Shaped[Tensor, " point"]) -> Float[Tensor, " point"]:
        """Log of the mixture density at y: the marginal log likelihood of each point, in nats."""
        return self.draw_log_prob(y).double().flatten(0, 1).logsumexp(0) - math.log(self.num_draws)

    def expected_log_prob(self, y: Shaped[Tensor, " point"]) -> Float[Tensor, " point"]:
        """Mean over draws of the log likelihood of each point, in nats; never above `log_prob`."""
        return self.draw_log_prob(y).double().mean((0, 1))

    # -- classes

    def probabilities(self) -> Float[Tensor, "point class"]:
        """Class probabilities of the mixture."""
        return self._class_sums()[0] / self.num_draws

    def entropy(self) -> Float[Tensor, " point"]:
        """Entropy of the mixture in nats: the total uncertainty about the class."""
        return self._entropies[0]

    def expected_entropy(self) -> Float[Tensor, " point"]:
        """Mean entropy of the draws in nats: the aleatoric part."""
        return self._entropies[1]

    def mutual_information(self) -> Float[Tensor, " point"]:
        """Entropy minus expected entropy, in nats: the epistemic part (what the draws disagree
        about).
        """
        return (self.entropy() - self.expected_entropy()).clamp(min=0.0)

    @cached_property
    def _entropies(self) -> tuple[Tensor, Tensor]:
        """Entropy of the mixture, and the mean of the draws' entropies."""
        probabilities, entropy = self._class_sums(with_entropy=True)
        return torch.special.entr(probabilities / self.num_draws).sum(-1), entropy / self.num_draws

    def _class_sums(self, *, with_entropy: bool = False) -> tuple[Tensor, Tensor]:
        if not isinstance(self.likelihood, Categorical | Bernoulli):
            raise TypeError(
                f"a {self.likelihood.name} likelihood has no class probabilities; use mean()"
            )
        is_binary = isinstance(self.likelihood, Bernoulli)
        return class_sums(
            self.outputs.flatten(0, 1), is_binary=is_binary, with_entropy=with_entropy
        )

    # -- numbers

    def draw_mean(self) -> Float[Tensor, "chain draw point"]:
        """E[y | x, theta_s] of every draw, in the target's own units."""
        return self.location + self.scale * self._standardized_draw_mean()

    def mean(self) -> Float[Tensor, " point"]:
        """E[y | x] of the mixture."""
        return self.location + self.scale * self._standardized_draw_mean().mean((0, 1))

    def epistemic_sd(self) -> Float[Tensor, " point"]:
        """Standard deviation over draws of E[y | x, theta_s]."""
        return self.scale * self._standardized_draw_mean().var((0, 1), correction=0).sqrt()

    def aleatoric_sd(self) -> Float[Tensor, " point"]:
        """Root of the mean over draws of Var[y | x, theta_s]."""
        variance = self._numeric().variance(self.outputs, self.latents).double()
        return self.scale * variance.mean((0, 1)).sqrt()

    def standard_deviation(self) -> Float[Tensor, " point"]:
        """Of the mixture: squares of the epistemic and the aleatoric part add up."""
        return (self.epistemic_sd().square() + self.aleatoric_sd().square()).sqrt()

    def cdf(self, value: Float[Tensor, " point"]) -> Float[Tensor, " point"]:
        """P(y <= value) of the mixture, value in the target's own units."""
        standardized = ((value - self.location) / self.scale).to(self.outputs.dtype)
        return self._numeric().cdf(self.outputs, standardized, self.latents).double().mean((0, 1))

    def quantiles(self, levels: Sequence[float]) -> Float[Tensor, "level point"]:
        """Quantiles of the mixture (noise included), by bisection of its distribution function.

        Of counts, the smallest integer whose probability of not being exceeded reaches the level.

        Raises:
            ValueError: if a level is not strictly between 0 and 1.
        """
        if not all(0 < level < 1 for level in levels):
            raise ValueError(f"quantile levels lie strictly between 0 and 1; got {list(levels)}")
        mean, sd = self.mean(), self.standard_deviation().clamp(min=1e-12)
        counts = isinstance(self.likelihood, Poisson)
        rows = []
        for level in levels:
            # By Cantelli's inequality no quantile is further from the mean than this many standard
            # deviations.
            reach = math.sqrt(max(level / (1 - level), (1 - level) / level)) + 1
            low, high = mean - reach * sd, mean + reach * sd
            for _ in range(_BISECTIONS):
                middle = 0.5 * (low + high)
                # Rounded down first: in float32, just below an integer is that integer.
                below = self.cdf(middle.floor() if counts else middle) < level
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            rows.append(high.floor().clamp(min=0) if counts else high)
        return torch.stack(rows)

    def sample(self, *, seed: int = 0) -> Tensor:
        """One target per draw and point, (chain, draw, point): class indices, or values in own
        units.
        """
        with global_seed(seed, "predictive sample"):
            y = self.likelihood.distribution(self.outputs, self.latents).sample()
        return y.long() if self.is_classification else self.location + self.scale * y

    def _standardized_draw_mean(self) -> Tensor:
        # Float64 before the location is added: in float32 a large one would swallow the spread of
        # the draws.
        return self._numeric().mean(self.outputs, self.latents).double()

    def _numeric(self) -> Any:
        if self.is_classification:
            raise TypeError(f"a {self.likelihood.name} likelihood has no mean; use probabilities()")
        return self.likelihood


def class_sums(
    logits: Float[Tensor, "draw point output"],
    *,
    is_binary: bool = False,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sums over draws of the class probabilities, (point, class), and of their entropy in nats,
    (point,), in float64.

    With logits z, e = exp(z) and s = sum(e): p = e / s and H = log s - sum(e z) / s, which take one
    exponential a number; torch's softmax of rows as short as these takes some ten times as long.
    Where exp could overflow or underflow, z is taken relative to its maximum.

    Args:
        logits: one a class.
        is_binary: whether it is the one logit of the second of two classes.
        with_entropy: whether to sum the entropies; zeros if not.
    """
    draws, points, width = logits.shape
    classes = width + is_binary
    probabilities = torch.zeros(points, classes, dtype=torch.float64)
    entropies = torch.zeros(points, dtype=torch.float64)
    step = max(1, min(points, _NUMBERS_AT_ONCE // classes))
    together = max(1, min(draws, _NUMBERS_AT_ONCE // (classes * step)))
    for start in range(0, points, step):
        own = slice(start, start + step)
        for block in logits[:, own].split(together):
            if is_binary:
                block = torch.cat([torch.zeros_like(block), block], dim=-1)
            p, h = _sums(block, with_entropy)
            probabilities[own] += p
            if h is not None:
                entropies[own] += h
    return probabilities, entropies


def _sums(logits: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """`class_sums` of a block that fits the cache."""
    powers = logits.exp()
    # Sums of short rows: a product with a vector of ones is faster than torch's sum.
    ones = powers.new_ones(powers.shape[-1])
    total = powers @ ones
    low, high = total.aminmax()
    if not (float(low) > 1 / _SAFE and float(high) < _SAFE) or (
        with_entropy and bool(logits.isinf().any())
    ):
        logits = logits - logits.amax(-1, keepdim=True)
        # What underflows in exp adds nothing to an entropy; minus infinity would make it undefined.
        logits.clamp_(min=2 * math.log(torch.finfo(logits.dtype).tiny))
        powers = logits.exp()
        total = powers @ ones
    entropy = None
    if with_entropy:
        entropy = (total.log() - (powers * logits) @ ones / total).sum(0)
    return powers.div_(total[..., None]).sum(0), entropy
