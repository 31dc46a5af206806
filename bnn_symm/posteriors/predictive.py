"""Define the predictive distribution at given inputs: outputs of all draws and summaries of them.

With draws theta_s, the predictive density of a target is the mixture (1/S) sum_s p(y | x, theta_s).
All quantities here are exact for this mixture; no targets are sampled. Regression is in the
target's own units: a standardized value z stands for `location + scale z`, and densities include
the Jacobian 1 / scale. Times are multiplied by a scale likewise, and have no location.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from bnn_symm.data.preprocessing.scaling import ColumnScaling
from bnn_symm.errors import ConfigError
from bnn_symm.models import Bernoulli, Categorical
from bnn_symm.models.likelihoods import (
    Likelihood,
    has_events,
    is_classification,
    is_count,
    num_classes,
    without_exposure,
)
from bnn_symm.posteriors.root_finding import find_roots
from bnn_symm.randomness import global_seed
from bnn_symm.summaries import Summarized

# Error of a quantile, in predictive standard deviations.
_QUANTILE_ERROR = 1e-9
# Halvings of the interval of a count: all floating-point numbers that are exact integers.
_COUNT_STEPS = 64
# Draws per batch, so that temporaries stay small next to the outputs.
_DRAWS_PER_BATCH = 32
# Logits per batch, so that a few temporaries of this size stay in the cache.
_NUMBERS_PER_BATCH = 2**15
# Sums of exp of logits between the inverse of this and this are far from the limits of float32.
_SAFE = 1e30


@dataclass(frozen=True, kw_only=True, repr=False)
class Predictive(Summarized):
    """Hold the outputs of a network for every draw, and the likelihood that interprets them.

    Attributes:
        outputs: (chain, draw, point, output).
        latents: the likelihood's own variables, each (chain, draw).
        likelihood: of the model.
        location: mean that was subtracted from the targets.
        scale: standard deviation that the targets were divided by.
        units: name, mean and standard deviation of each of several target columns; empty for one.
    """

    outputs: Float[Tensor, "chain draw point output"]
    latents: dict[str, Tensor]
    likelihood: Likelihood
    location: float = 0.0
    scale: float = 1.0
    units: tuple[ColumnScaling, ...] = ()

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        chains, draws, points, outputs = self.outputs.shape
        return {
            "likelihood": self.likelihood.name,
            "chains": chains,
            "draws": draws,
            "points": points,
            "outputs": outputs,
        }

    @property
    def is_classification(self) -> bool:
        """Return whether the target is a class."""
        return is_classification(self.likelihood)

    @property
    def num_draws(self) -> int:
        """Return the number of chains times draws."""
        return self.outputs.shape[0] * self.outputs.shape[1]

    def select(self, draws: Int[Tensor, " draw"]) -> "Predictive":
        """Return the predictive distribution of some draws, as one chain.

        Args:
            draws: indices of draws, chain by chain; they may repeat.
        """
        latents = {name: value.flatten()[draws][None] for name, value in self.latents.items()}
        return replace(self, outputs=self.outputs.flatten(0, 1)[draws][None], latents=latents)

    # -- any target

    @cached_property
    def columns(self) -> "tuple[Predictive, ...]":
        """Return the predictive distribution of each target column alone; itself for one column."""
        likelihood: Any = self.likelihood
        if not hasattr(likelihood, "marginal"):
            return (self,)
        result = []
        for number, unit in enumerate(self._units):
            own, latents = likelihood.marginal(number, self.latents)
            outputs = self.outputs[..., number : number + 1]
            result.append(
                Predictive(
                    outputs=outputs,
                    latents=latents,
                    likelihood=own,
                    location=unit.mean,
                    scale=unit.scale,
                )
            )
        return tuple(result)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Return the names of the target columns, or their numbers."""
        return tuple(unit.name for unit in self._units)

    def in_own_units(self, y: Shaped[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return standardized targets of numbers in their own units, in float64.

        Args:
            y: targets, with the columns as the last axis if there are several.
        """
        if not hasattr(self.likelihood, "marginal"):
            return self.location + self.scale * y.double()
        moments = [(unit.mean, unit.scale) for unit in self._units]
        location, scale = torch.tensor(moments, dtype=torch.float64, device=y.device).T
        return location + scale * y.double()

    def observed(self, y: Shaped[Tensor, "point *column"]) -> Float[Tensor, "point *column"]:
        """Return targets of numbers in their own units, and times without their events.

        Args:
            y: standardized targets, as in a `Split`.
        """
        return self.in_own_units(y[:, 0] if has_events(self.likelihood) else y)

    def given(
        self, y: Shaped[Tensor, "point *column"]
    ) -> tuple["Predictive", Shaped[Tensor, "point *column"]]:
        """Return the distribution of the counts of points with known exposures, and their counts.

        Without exposures of its own, a count is predicted for the exposure `scaling.exposure_scale`
        of the data set.

        Args:
            y: standardized targets, as in a `Split`.

        Returns:
            The distribution and the targets without exposures. Of other likelihoods, both are
            unchanged.
        """
        likelihood, outputs, counts = without_exposure(self.likelihood, self.outputs, y)
        if likelihood is self.likelihood:
            return self, y
        return replace(self, likelihood=likelihood, outputs=outputs), counts

    @property
    def _units(self) -> tuple[ColumnScaling, ...]:
        """Return the scaling of each target column."""
        if not hasattr(self.likelihood, "marginal"):
            return (ColumnScaling("0", self.location, self.scale),)
        # Without the scaling of a data set, columns are numbered.
        return self.units or tuple(
            ColumnScaling(str(number), self.location, self.scale)
            for number in range(self.outputs.shape[-1])
        )

    def draw_log_prob(
        self, y: Shaped[Tensor, "point *column"]
    ) -> Float[Tensor, "chain draw point"]:
        """Return log p(y | x, theta_s) of every draw, in nats.

        Args:
            y: standardized targets, as in a `Split`.

        Returns:
            The log density in the target's own units.
        """
        y = y.to(self.outputs.device)
        log_prob = torch.empty(self.outputs.shape[:3], dtype=self.outputs.dtype)
        for where, outputs, latents in self._batches():
            log_prob[where] = self.likelihood.log_prob(outputs, y, latents)
        log_jacobian = sum(math.log(unit.scale) for unit in self._units)
        if has_events(self.likelihood):  # a censored time has a probability, not a density
            return log_prob - log_jacobian * y[:, 1].cpu().to(log_prob.dtype)
        return log_prob - log_jacobian

    def _batches(self) -> Iterator[tuple[tuple[int, slice], Tensor, dict[str, Tensor]]]:
        """Yield the place, outputs and latent variables of some draws of one chain at a time."""
        for c in range(self.outputs.shape[0]):
            for s in range(0, self.outputs.shape[1], _DRAWS_PER_BATCH):
                where = (c, slice(s, s + _DRAWS_PER_BATCH))
                latents = {name: value[where] for name, value in self.latents.items()}
                yield where, self.outputs[where], latents

    def log_prob(self, y: Shaped[Tensor, "point *column"]) -> Float[Tensor, " point"]:
        """Return the log of the mixture density at y: the marginal log likelihood, in nats.

        Args:
            y: standardized targets.

        Returns:
            One value per point.
        """
        return self.draw_log_prob(y).double().flatten(0, 1).logsumexp(0) - math.log(self.num_draws)

    def expected_log_prob(self, y: Shaped[Tensor, "point *column"]) -> Float[Tensor, " point"]:
        """Return the mean over draws of the log likelihood, in nats; at most `log_prob`.

        Args:
            y: standardized targets.

        Returns:
            One value per point.
        """
        return self.draw_log_prob(y).double().mean((0, 1))

    # -- classes

    def probabilities(self) -> Float[Tensor, "point class"]:
        """Return the class probabilities of the mixture, whose sum is one in float64."""
        sums = self._class_sums()[0]
        return sums / sums.sum(-1, keepdim=True)

    def entropy(self) -> Float[Tensor, " point"]:
        """Return the entropy of the mixture in nats: the total uncertainty about the class."""
        return self._entropies[0]

    def expected_entropy(self) -> Float[Tensor, " point"]:
        """Return the mean entropy of the draws in nats: the aleatoric part."""
        return self._entropies[1]

    def mutual_information(self) -> Float[Tensor, " point"]:
        """Return the entropy minus the expected entropy in nats: the epistemic part."""
        return (self.entropy() - self.expected_entropy()).clamp(min=0.0)

    @cached_property
    def _entropies(self) -> tuple[Tensor, Tensor]:
        """Return the entropy of the mixture, and the mean of the draws' entropies."""
        probabilities, entropy = self._class_sums(with_entropy=True)
        return torch.special.entr(probabilities / self.num_draws).sum(-1), entropy / self.num_draws

    def _class_sums(self, *, with_entropy: bool = False) -> tuple[Tensor, Tensor]:
        if not self.is_classification:
            raise ConfigError(
                f"a {self.likelihood.name} likelihood has no class probabilities; use mean()"
            )
        likelihood: Any = self.likelihood
        if isinstance(likelihood, Categorical | Bernoulli):  # fast for softmax and sigmoid
            return class_sums(
                self.outputs.flatten(0, 1),
                is_binary=isinstance(likelihood, Bernoulli),
                with_entropy=with_entropy,
            )
        points, width = self.outputs.shape[2:]
        sums = torch.zeros(points, num_classes(likelihood, width), dtype=torch.float64)
        entropies = torch.zeros(points, dtype=torch.float64)
        for _, outputs, latents in self._batches():
            p = likelihood.probabilities(outputs, latents).double()
            sums += p.sum(0)
            if with_entropy:
                entropies += torch.special.entr(p).sum((0, -1))
        return sums, entropies

    # -- numbers

    def draw_mean(self) -> Float[Tensor, "chain draw point"]:
        """Return E[y | x, theta_s] of every draw, in the target's own units."""
        return self.location + self.scale * self._standardized_draw_mean()

    def mean(self) -> Float[Tensor, " point"]:
        """Return E[y | x] of the mixture."""
        return self.location + self.scale * self._standardized_draw_mean().mean((0, 1))

    def epistemic_sd(self) -> Float[Tensor, " point"]:
        """Return the standard deviation over draws of E[y | x, theta_s]."""
        return self.scale * self._standardized_draw_mean().var((0, 1), correction=0).sqrt()

    def aleatoric_sd(self) -> Float[Tensor, " point"]:
        """Return the root of the mean over draws of Var[y | x, theta_s]."""
        variance = self._numeric().variance(self.outputs, self.latents).double()
        return self.scale * variance.mean((0, 1)).sqrt()

    def standard_deviation(self) -> Float[Tensor, " point"]:
        """Return that of the mixture; epistemic and aleatoric variances add up."""
        return (self.epistemic_sd().square() + self.aleatoric_sd().square()).sqrt()

    def cdf(self, value: Float[Tensor, " point"]) -> Float[Tensor, " point"]:
        """Return P(y <= value) of the mixture.

        Args:
            value: one value per point, in the target's own units.

        Returns:
            One probability per point.
        """
        standardized = ((value - self.location) / self.scale).to(self.outputs.dtype)
        return self._numeric().cdf(self.outputs, standardized, self.latents).double().mean((0, 1))

    def survival(self, value: Float[Tensor, " point"]) -> Float[Tensor, " point"]:
        """Return P(T > value) of the mixture, of a likelihood of times.

        Args:
            value: one time per point, in the target's own units.
        """
        likelihood: Any = self._numeric()
        if not has_events(likelihood):
            raise ConfigError(f"a {likelihood.name} likelihood has no survival function; use cdf()")
        scaled = (value / self.scale).to(self.outputs.dtype)
        log_survival = likelihood.log_survival(self.outputs, scaled, self.latents)
        return log_survival.double().exp().mean((0, 1))

    def quantiles(self, levels: Sequence[float]) -> Float[Tensor, "level point"]:
        """Return quantiles of the mixture (noise included), by inversion of its CDF.

        For counts, a quantile is the smallest integer whose cumulative probability reaches the
        level.

        Args:
            levels: probabilities strictly between 0 and 1.

        Returns:
            One row per level.

        Raises:
            ConfigError: if a level is not strictly between 0 and 1.
        """
        if not all(0 < level < 1 for level in levels):
            raise ConfigError(f"levels: got {list(levels)}, expected values between 0 and 1")
        if has_events(self.likelihood):
            return torch.stack([self._time_quantile(level) for level in levels])
        mean, sd = self.mean(), self.standard_deviation().clamp(min=1e-12)
        rows = []
        for level in levels:
            # By Cantelli's inequality no quantile is further from the mean than this many standard
            # deviations.
            reach = math.sqrt(max(level / (1 - level), (1 - level) / level)) + 1
            low, high = mean - reach * sd, mean + reach * sd
            if is_count(self.likelihood):
                rows.append(self._smallest_count(level, low, high))
                continue
            tolerance = sd * max(_QUANTILE_ERROR, torch.finfo(self.outputs.dtype).eps)
            rows.append(find_roots(lambda t, p=level: self.cdf(t) - p, low, high, tolerance))
        return torch.stack(rows)

    def _time_quantile(self, level: float) -> Tensor:
        """Return a quantile of times, which lies between those of the draws, by their log."""
        likelihood: Any = self._numeric()
        own = likelihood.quantile(self.outputs, level, self.latents).double().log().flatten(0, 1)
        low, high = own.amin(0) - 1e-6, own.amax(0) + 1e-6

        def excess(log_time: Tensor) -> Tensor:
            return 1 - self.survival(self.scale * log_time.exp()) - level

        tolerance = max(_QUANTILE_ERROR, torch.finfo(self.outputs.dtype).eps)
        return self.scale * find_roots(excess, low, high, torch.full_like(low, tolerance)).exp()

    def _smallest_count(self, level: float, low: Tensor, high: Tensor) -> Tensor:
        """Return the smallest count whose cumulative probability reaches a level, by bisection."""
        low, high = low.floor().clamp(min=0) - 1, high.ceil()
        for _ in range(_COUNT_STEPS):
            if not bool((high - low > 1).any()):
                break
            middle = (0.5 * (low + high)).floor()
            below = self.cdf(middle) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high

    def sample(self, *, seed: int = 0) -> Tensor:
        """Return one target per draw and point, (chain, draw, point); (..., column) for several.

        Args:
            seed: of the targets.

        Returns:
            Class indices, or values in the target's own units.
        """
        with global_seed(seed, "predictive sample"):
            y = self.likelihood.distribution(self.outputs, self.latents).sample()
        return y.long() if self.is_classification else self.in_own_units(y)

    def _standardized_draw_mean(self) -> Tensor:
        # Float64 before the location is added: in float32 a large one would swallow the spread of
        # the draws.
        return self._numeric().mean(self.outputs, self.latents).double()

    def _numeric(self) -> Any:
        if self.is_classification:
            raise ConfigError(
                f"a {self.likelihood.name} likelihood has no mean; use probabilities()"
            )
        if len(self.columns) > 1:
            raise ConfigError(
                f"a {self.likelihood.name} likelihood has {len(self.columns)} target columns; use "
                "those of `columns`, such as predictive.columns[0].mean()"
            )
        return self.likelihood


def class_sums(
    logits: Float[Tensor, "draw point output"],
    *,
    is_binary: bool = False,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sum class probabilities and their entropies over draws, in float64.

    With logits z, e = exp(z) and s = sum(e): p = e / s and H = log s - sum(e z) / s, which need one
    exponential per number; torch's softmax of such short rows takes about ten times as long. Where
    exp could overflow or underflow, z is taken relative to its maximum.

    Args:
        logits: one per class.
        is_binary: whether there is one logit, that of the second of two classes.
        with_entropy: whether to sum the entropies; zeros if not.

    Returns:
        Sums of probabilities, (point, class), and of entropies in nats, (point,).
    """
    draws, points, width = logits.shape
    classes = width + is_binary
    probabilities = torch.zeros(points, classes, dtype=torch.float64)
    entropies = torch.zeros(points, dtype=torch.float64)
    step = max(1, min(points, _NUMBERS_PER_BATCH // classes))
    batch = max(1, min(draws, _NUMBERS_PER_BATCH // (classes * step)))
    for start in range(0, points, step):
        part = slice(start, start + step)
        for block in logits[:, part].split(batch):
            if is_binary:
                block = torch.cat([torch.zeros_like(block), block], dim=-1)
            p, h = _sums(block, with_entropy)
            probabilities[part] += p
            if h is not None:
                entropies[part] += h
    return probabilities, entropies


def _sums(logits: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """Return `class_sums` of a block that fits the cache."""
    powers = logits.exp()
    # Sums of short rows: a product with a vector of ones is faster than torch's sum.
    ones = powers.new_ones(powers.shape[-1])
    total = powers @ ones
    low, high = total.aminmax()
    if not (float(low) > 1 / _SAFE and float(high) < _SAFE) or (
        with_entropy and bool(logits.isinf().any())
    ):
        logits = logits - logits.amax(-1, keepdim=True)
        # Logits that underflow in exp add nothing to an entropy; minus infinity would give NaN.
        logits.clamp_(min=2 * math.log(torch.finfo(logits.dtype).tiny))
        powers = logits.exp()
        total = powers @ ones
    entropy = None
    if with_entropy:
        entropy = (total.log() - (powers * logits) @ ones / total).sum(0)
    return powers.div_(total[..., None]).sum(0), entropy
