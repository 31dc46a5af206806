"""Permutation-invariant variational inference: mean-field VI of the symmetrized posterior.

    minimize  -E_q[log p(y | x, w)] + T (KL(q || p(w)) - I)               q = Normal(loc, scale)

This is the objective of q^G, the mixture of all copies of q under permutations of hidden units.
Prior and likelihood are invariant, and the entropy of q^G is that of q plus I, the mutual
information of `symmetry_information`. Plain VI has a penalty of up to log n! nats for n
distinguishable units, which makes units collapse if there are few data. This objective does not.
Predictions of q^G and q are the same, so q is returned. A network without symmetries has I = 0, and
the fit is bitwise identical to mean-field VI.

I is exact for one hidden layer of up to `exact_up_to` units. For more units, and for more layers, I
is a lower bound, and so is the ELBO of q^G. Wide layers are divided into blocks of up to
`exact_up_to` units, at random in each step, which gives I of a random subgroup. Layers are
processed one after the other up to a last one, which varies from step to step (chain rule). A mean
of lower bounds is a lower bound. Exact permanents of a subgroup H are limited only by log |H|,
whereas a contrast with K random permutations (InfoNCE) never exceeds log K. Units that permute only
together, as in heads, count as fixed.

References:
    Gelberg et al. (2024), arXiv:2408.05496; Kurle et al. (2022), arXiv:2209.07157.
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from bnn_symm.inference.fit_context import FitContext
from bnn_symm.inference.optimization.optimizer import Objective
from bnn_symm.inference.variational.mean_field_vi import MeanFieldVI
from bnn_symm.inference.variational.symmetry_information import (
    InformationTerm,
    chain_rule_orders,
    columns_in_order,
)
from bnn_symm.models import BayesianModel
from bnn_symm.models.interchangeable_units import (
    UnitOrbit,
    check_invariant_prior,
    interchangeable_units,
)
from bnn_symm.randomness import torch_generator
from bnn_symm.settings import PositiveInt, settings
from bnn_symm.symmetry import symmetry_group


@settings
class SymmetrizedVI(MeanFieldVI):
    """Settings of permutation-invariant VI (config `inference: {name: symmetrized_vi}`).

    The other settings are those of mean-field VI.

    Attributes:
        exact_up_to: maximum number of units of a layer whose order is treated jointly; each
            additional unit doubles the time.
        num_information_samples: draws of the weights per step from which I is estimated.
    """

    _has_distance: ClassVar[bool] = False

    name: Literal["symmetrized_vi"] = "symmetrized_vi"
    exact_up_to: Annotated[int, Field(ge=2, le=12)] = 8
    num_information_samples: PositiveInt = 8

    def _objective(self, fit: FitContext, loc: Tensor, log_scale: Tensor) -> Objective:
        model, shape = fit.model, tuple(fit.dataset.train.x.shape[1:])
        information = SymmetryInformation(self, model, shape, fit.seed)
        plain, size = super()._objective(fit, loc, log_scale), len(fit.dataset.train)
        return SymmetrizedObjective(self, plain, information, size, loc, log_scale)


class SymmetryInformation:
    """Differentiable estimate of I, or of its lower bound, which depends on the step only.

    Args:
        method: the settings.
        model: its symmetries are derived.
        input_shape: shape of one point.
        seed: determines the draws and the blocks.

    Raises:
        SymmetryError: if the symmetries cannot be derived, or the prior is not invariant.
    """

    def __init__(
        self, method: SymmetrizedVI, model: BayesianModel, input_shape: tuple[int, ...], seed: int
    ):
        self._exact_up_to, self._num_samples, self._seed = (
            method.exact_up_to,
            method.num_information_samples,
            seed,
        )
        group = symmetry_group(model.net, input_shape=input_shape)
        check_invariant_prior(model, group)
        sets, _ = interchangeable_units(model, group)
        self._orders = [
            [(sets[number], columns) for number, columns in columns_in_order(sets, order)]
            for order in chain_rule_orders(sets)
        ]

    def __call__(
        self, step: int, loc: Float[Tensor, " parameter"], scale: Float[Tensor, " parameter"]
    ) -> Float[Tensor, ""]:
        """Return the estimate in nats, in float64 on the CPU, which is fastest for many small sums.

        Args:
            step: keys the randomness.
            loc: means of q.
            scale: standard deviations of q.
        """
        order = self._orders[step % len(self._orders)]
        total = torch.zeros((), dtype=torch.float64)
        if not order:
            return total
        generator = torch_generator(self._seed, "symmetry information", step)
        loc, scale = loc.cpu().double(), scale.cpu().double()
        noise = torch.randn(self._num_samples, len(loc), generator=generator, dtype=torch.float64)
        draws = loc + scale * noise
        for units, columns in order:
            term = self._term(units, columns, generator)
            total = total + term.information(loc, scale, draws).mean()
        return total

    def _term(
        self, units: UnitOrbit, columns: Tensor, generator: torch.Generator
    ) -> InformationTerm:
        size = len(units.units)
        if size <= self._exact_up_to:
            return InformationTerm(units, columns, "permanent", (torch.arange(size),))
        blocks = torch.randperm(size, generator=generator).tensor_split(
            math.ceil(size / self._exact_up_to)
        )
        return InformationTerm(units, columns, "blocks", blocks)


class SymmetrizedObjective:
    """The objective of q^G as a function of the step and a minibatch: that of q minus T times I.

    Args:
        method: the settings.
        plain: the objective of q, which writes its gradient to the `grad` of the tensors.
        information: I.
        size: points of the training split.
        loc: (parameter,), a leaf.
        log_scale: (parameter,), a leaf.
    """

    def __init__(
        self,
        method: SymmetrizedVI,
        plain: Objective,
        information: SymmetryInformation,
        size: int,
        loc: Tensor,
        log_scale: Tensor,
    ):
        self._plain, self._information = plain, information
        self._temperature, self._size = method.temperature, size
        self._loc, self._log_scale = loc, log_scale

    def __call__(
        self, step: int, x: Tensor, y: Tensor
    ) -> tuple[float, Mapping[str, Tensor | float]]:
        """Return the objective in nats, and its terms.

        Args:
            step: keys the randomness.
            x: features of the minibatch.
            y: targets of the minibatch.

        Returns:
            The objective; the terms of mean-field VI and `mutual_information`, which is I or its
            bound.
        """
        objective, terms = self._plain(step, x, y)
        information = self._information(step, self._loc, self._log_scale.exp())
        if information.requires_grad:
            (information * (-self._temperature / self._size)).backward()
        value = float(information.detach())
        return float(objective) - self._temperature * value, {**terms, "mutual_information": value}
