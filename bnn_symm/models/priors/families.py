"""Define the families of priors of this package.

Their cross-entropies are in closed form or by a rule that follows the density, with an explicit
gradient. `Centered` moves a family to a separate mean for every entry. To add a family to the
package, add its class, its name in `FamilyName` and a line in `FAMILIES`.
"""

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from bnn_symm.models.imported import Imported
from bnn_symm.models.priors.family import HERMITE_NODES, NormalEntries, PriorFamily
from bnn_symm.models.pyro_distribution import PyroDistribution

# Number of nodes of the quadrature rules for cross-entropies without a closed form. Measured
# absolute errors per weight, in nats: Student-t (any degrees of freedom) below 1e-7 for a posterior
# scale up to the prior's, 3e-3 up to 3 times it, 0.1 at 10 times; mixtures, whose rule follows the
# narrow component, below 1e-7 with the default weight and ratio, and 1e-5 up to a weight of 0.99
# and down to a ratio of 0.01, at any posterior scale.
_QUADRATURE_NODES = HERMITE_NODES
# Limits of the rule for mixtures: there the spike has fallen to exp(-20) = 2e-9, and the tails of
# the normal hold 3e-12.
_SPIKE_DEPTH = 20.0
_NORMAL_REACH = 7.0


@dataclass(frozen=True)
class Normal(PriorFamily):
    """Define the density Normal(0, scale)."""

    unit_variance: float = 1.0

    def log_prob(self, value: Tensor, scale: Tensor) -> Tensor:
        """Return the elementwise log density."""
        return -0.5 * (value / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)

    def distribution(self, loc: Tensor, scale: Tensor) -> PyroDistribution:
        """Return Pyro's Normal at a location."""
        return dist.Normal(loc, scale)

    def cross_entropy(self, loc: Tensor, sd: Tensor, scale: Tensor) -> Tensor:
        """Return the cross-entropy in closed form."""
        return (
            0.5 * (loc.square() + sd.square()) / scale.square()
            + scale.log()
            + 0.5 * math.log(2 * math.pi)
        )

    def add_cross_entropy_gradient(self, q: NormalEntries, scale: float, weight: float) -> float:
        """Add the gradient, which is loc / scale^2 and sd^2 / scale^2."""
        precision = scale**-2
        q.loc_grad.add_(q.loc, alpha=weight * precision)
        q.log_scale_grad.addcmul_(q.sd, q.sd, value=weight * precision)
        squares = float(torch.dot(q.loc, q.loc)) + float(torch.dot(q.sd, q.sd))
        return 0.5 * precision * squares + len(q.loc) * (
            math.log(scale) + 0.5 * math.log(2 * math.pi)
        )


@dataclass(frozen=True)
class Laplace(PriorFamily):
    """Define the density Laplace(0, scale)."""

    unit_variance: float = 2.0

    def log_prob(self, value: Tensor, scale: Tensor) -> Tensor:
        """Return the elementwise log density."""
        return -value.abs() / scale - scale.log() - math.log(2.0)

    def distribution(self, loc: Tensor, scale: Tensor) -> PyroDistribution:
        """Return Pyro's Laplace at a location."""
        return dist.Laplace(loc, scale)

    def cross_entropy(self, loc: Tensor, sd: Tensor, scale: Tensor) -> Tensor:
        """Return the cross-entropy in closed form, from the mean of a folded normal."""
        ratio = loc / sd
        folded = sd * math.sqrt(2 / math.pi) * (-0.5 * ratio.square()).exp() + loc * torch.erf(
            ratio / math.sqrt(2.0)
        )
        return folded / scale + scale.log() + math.log(2.0)

    def add_cross_entropy_gradient(self, q: NormalEntries, scale: float, weight: float) -> float:
        """Add the gradient in closed form.

        It is erf(loc / (sd sqrt(2))) / scale for `loc`, and
        sd sqrt(2 / pi) exp(-(loc / sd)^2 / 2) / scale for log(sd).
        """
        ratio = q.loc / q.sd
        sign = torch.erf(ratio / math.sqrt(2.0))
        spread = ratio.square_().mul_(-0.5).exp_().mul_(math.sqrt(2 / math.pi)).mul_(q.sd)
        q.loc_grad.add_(sign, alpha=weight / scale)
        q.log_scale_grad.add_(spread, alpha=weight / scale)
        folded = float(spread.sum()) + float(torch.dot(q.loc, sign))
        return folded / scale + len(q.loc) * math.log(2.0 * scale)


@dataclass(frozen=True)
class StudentT(PriorFamily):
    """Define the density of a Student-t with `degrees_of_freedom`, times scale."""

    degrees_of_freedom: float

    @property
    def unit_variance(self) -> float:
        """Return df / (df - 2)."""
        return self.degrees_of_freedom / (self.degrees_of_freedom - 2)

    @property
    def _log_constant(self) -> float:
        """Return the log density at zero and scale 1."""
        df = self.degrees_of_freedom
        return math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)

    def log_prob(self, value: Tensor, scale: Tensor) -> Tensor:
        """Return the elementwise log density."""
        df, constant = self.degrees_of_freedom, self._log_constant
        return constant - 0.5 * (df + 1) * torch.log1p((value / scale).square() / df) - scale.log()

    def distribution(self, loc: Tensor, scale: Tensor) -> PyroDistribution:
        """Return Pyro's StudentT at a location."""
        return dist.StudentT(self.degrees_of_freedom, loc, scale)

    def add_cross_entropy_gradient(self, q: NormalEntries, scale: float, weight: float) -> float:
        """Add the gradient by the same quadrature rule.

        At a node z, with v = loc + z sd, -(log p)'(v) = (df + 1) v / (df scale^2 + v^2).
        """
        df = self.degrees_of_freedom
        square = df * scale**2
        log_terms = 0.0
        by_loc, by_sd = torch.zeros_like(q.loc), torch.zeros_like(q.loc)
        nodes, shares = np.polynomial.hermite_e.hermegauss(_QUADRATURE_NODES)
        for node, share in zip(nodes.tolist(), (shares / shares.sum()).tolist(), strict=True):
            value = torch.add(q.loc, q.sd, alpha=node)
            squared = value.square()
            slope = value.div_(squared + square)
            by_loc.add_(slope, alpha=share)
            by_sd.add_(slope, alpha=share * node)
            log_terms += share * float(squared.div_(square).log1p_().sum())
        q.loc_grad.add_(by_loc, alpha=weight * (df + 1))
        q.log_scale_grad.addcmul_(by_sd, q.sd, value=weight * (df + 1))
        return 0.5 * (df + 1) * log_terms - len(q.loc) * (self._log_constant - math.log(scale))


@dataclass(frozen=True)
class ScaleMixture(PriorFamily):
    """Define (1 - narrow_weight) Normal(0, scale) + narrow_weight Normal(0, narrow_ratio scale)."""

    narrow_weight: float
    narrow_ratio: float

    @property
    def unit_variance(self) -> float:
        """Return 1 - w + w ratio^2."""
        return 1 - self.narrow_weight + self.narrow_weight * self.narrow_ratio**2

    def log_prob(self, value: Tensor, scale: Tensor) -> Tensor:
        """Return the elementwise log density."""
        normal = Normal()
        return torch.logaddexp(
            normal.log_prob(value, scale) + math.log1p(-self.narrow_weight),
            normal.log_prob(value, scale * self.narrow_ratio) + math.log(self.narrow_weight),
        )

    def distribution(self, loc: Tensor, scale: Tensor) -> PyroDistribution:
        """Return Pyro's MixtureSameFamily of two normals."""
        scales = torch.stack([scale, scale * self.narrow_ratio], dim=-1)
        weights = scales.new_tensor([1 - self.narrow_weight, self.narrow_weight]).expand(
            scales.shape
        )
        return _RealMixture(
            dist.Categorical(weights), dist.Normal(loc[..., None].expand(scales.shape), scales)
        )

    def cross_entropy(self, loc: Tensor, sd: Tensor, scale: Tensor) -> Tensor:
        """Return the cross-entropy; the narrow component takes a Gauss-Legendre rule.

        With ``s = w / scale``,

            log p(w) = log((1 - narrow_weight) Normal(w; 0, scale)) + softplus(peak - fall s^2)

        The softplus is a spike as wide as the narrow component, which a Gauss-Hermite rule for a
        wider posterior misses or overstates. The nodes therefore cover the interval where both the
        spike and the posterior have mass.
        """
        peak, fall = self._spike()
        middle, half = self._where(loc, sd, scale)
        added = torch.zeros_like(loc)
        nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_NODES)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            z = middle + node * half
            density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
            spike = softplus(peak - fall * ((loc + z * sd) / scale).square())
            added = added + weight * half * density * spike
        return Normal().cross_entropy(loc, sd, scale) - math.log1p(-self.narrow_weight) - added

    def add_cross_entropy_gradient(self, q: NormalEntries, scale: float, weight: float) -> float:
        """Add the gradient of the wide component, and of the spike by the same quadrature rule."""
        peak, fall = self._spike()
        middle, half = self._where(q.loc, q.sd, scale)
        total = Normal().add_cross_entropy_gradient(q, scale, weight)
        by_loc, by_sd = torch.zeros_like(q.loc), torch.zeros_like(q.loc)
        nodes, shares = np.polynomial.legendre.leggauss(_QUADRATURE_NODES)
        for node, share in zip(nodes.tolist(), shares.tolist(), strict=True):
            z = torch.add(middle, half, alpha=node)
            value = torch.addcmul(q.loc, z, q.sd)
            height = value.square().mul_(-fall / scale**2).add_(peak)
            mass = z.square().mul_(-0.5).exp_().mul_(half).mul_(share / math.sqrt(2 * math.pi))
            total -= float(torch.dot(softplus(height), mass))
            slope = height.sigmoid_().mul_(mass).mul_(value)
            by_loc.add_(slope)
            by_sd.addcmul_(slope, z)
        q.loc_grad.add_(by_loc, alpha=2 * weight * fall / scale**2)
        q.log_scale_grad.addcmul_(by_sd, q.sd, value=2 * weight * fall / scale**2)
        return total - len(q.loc) * math.log1p(-self.narrow_weight)

    def _spike(self) -> tuple[float, float]:
        """Return `peak` and `fall` of the narrow component."""
        peak = (
            math.log(self.narrow_weight)
            - math.log1p(-self.narrow_weight)
            - math.log(self.narrow_ratio)
        )
        return peak, 0.5 * (self.narrow_ratio**-2 - 1)

    def _where(self, loc: Tensor, sd: Tensor, scale: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return the middle and half the length of the interval that the quadrature covers.

        Both the spike and the posterior have mass there. Units are standard deviations of the
        posterior.
        """
        peak, fall = self._spike()
        reach = scale * math.sqrt((max(peak, 0.0) + _SPIKE_DEPTH) / fall)
        low = ((-reach - loc) / sd).clamp(-_NORMAL_REACH, _NORMAL_REACH)
        high = ((reach - loc) / sd).clamp(-_NORMAL_REACH, _NORMAL_REACH)
        return 0.5 * (low + high), 0.5 * (high - low)


class _RealMixture(dist.MixtureSameFamily):
    """Declare that a mixture has the whole real line as support, as NUTS and guides require."""

    support = constraints.real


FamilyName = Literal["normal", "laplace", "student_t", "scale_mixture"]

FAMILIES: dict[FamilyName, type[Any]] = {
    "normal": Normal,
    "laplace": Laplace,
    "student_t": StudentT,
    "scale_mixture": ScaleMixture,
}
"""Name -> class; the fields of a class without a default are settings of `Prior`."""


def build_family(name: FamilyName | Imported | PriorFamily, prior: Any) -> PriorFamily:
    """Return the family of a name with its settings.

    Args:
        name: of the family, or the family itself.
        prior: has an attribute for every field of a family of this package without a default.

    Returns:
        The family.

    Raises:
        ConfigError: if a class of the user's own code cannot be imported or built.
    """
    if isinstance(name, PriorFamily):
        return name
    if isinstance(name, Imported):
        return name.build("prior", PriorFamily, "priors:Horseshoe")
    return FAMILIES[name](**{setting: getattr(prior, setting) for setting in own_settings(name)})


def own_settings(name: FamilyName) -> list[str]:
    """Return the names of the settings of a family of this package, which `Prior` holds.

    Args:
        name: of the family.
    """
    return [field.name for field in fields(FAMILIES[name]) if field.default is MISSING]


@dataclass(frozen=True)
class Centered:
    """Move a family to a separate mean, and optionally a separate scale, for every entry.

    Attributes:
        family: the density around zero.
        mean: (entry,).
        scale: of all entries, or (entry,).
    """

    family: PriorFamily
    mean: Tensor
    scale: float | Tensor

    def add_cross_entropy_gradient(self, q: NormalEntries, scale: float, weight: float) -> float:
        """Add the gradient of the family in standardized units; `scale` multiplies its scale."""
        unit = self.scale * scale
        standardized = NormalEntries(
            (q.loc - self.mean).div_(unit), q.sd / unit, torch.zeros_like(q.loc), q.log_scale_grad
        )
        total = self.family.add_cross_entropy_gradient(standardized, 1.0, weight)
        q.loc_grad.add_(standardized.loc_grad.div_(unit))
        return total + (
            float(unit.log().sum()) if isinstance(unit, Tensor) else len(q.loc) * math.log(unit)
        )
