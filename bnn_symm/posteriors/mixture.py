"""Define mixtures of posteriors with equal weights, one chain per component."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.data import Scaling
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.gaussian_family import ClosedFormPosterior
from bnn_symm.posteriors.lazy_draws import LazyDraws
from bnn_symm.posteriors.posterior import Posterior
from bnn_symm.posteriors.predictive import Predictive
from bnn_symm.posteriors.samples import SamplePosterior
from bnn_symm.symmetry import Permutation


class MixturePosterior(SamplePosterior):
    """Hold the draws of several posteriors of one model as chains, with equal weights.

    Everything that compares, aligns or predicts with chains treats a component as a chain.
    Components in closed form stay in closed form when the mixture is permuted, saved and loaded.

    Args:
        model: the model.
        scaling: of the targets.
        components: posteriors of the model, of one chain and equally many draws each.
        info: provenance.
        history: one row per logged step.

    Raises:
        IncompatiblePosteriors: if there are no components, or their draws have different shapes.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Prior
        >>> from bnn_symm.data import Scaling
        >>> from bnn_symm.likelihoods import Gaussian
        >>> from bnn_symm.posteriors import GaussianPosterior, MixturePosterior
        >>> model = BayesianModel(torch.nn.Linear(2, 1), Prior(), Gaussian(noise=0.1))
        >>> normals = [
        ...     GaussianPosterior(model, Scaling.identity((1,)), loc=torch.full((3,), mean),
        ...                       scale=torch.ones(3), num_draws=4, seed=seed)
        ...     for seed, mean in enumerate((-1.0, 1.0))
        ... ]
        >>> MixturePosterior(model, Scaling.identity((1,)), components=normals).shape
        (2, 4, 3)
    """

    kind = "mixture"

    @checked
    def __init__(
        self,
        model: BayesianModel,
        scaling: Scaling,
        *,
        components: Sequence[Posterior],
        info: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ):
        shapes = [component.shape for component in components]
        if not shapes or shapes[0][0] != 1 or len(set(shapes)) > 1:
            raise IncompatiblePosteriors(
                f"components: got (chain, draw, parameter) {shapes}, expected one shape, of one "
                "chain each"
            )
        positions = LazyDraws.stack([component.positions for component in components])
        super().__init__(model, scaling, positions=positions, info=info, history=history)
        self.components = tuple(components)

    @property
    def is_closed_form(self) -> bool:
        """Return whether every component has a density in closed form."""
        return all(isinstance(component, ClosedFormPosterior) for component in self.components)

    @property
    def of_weights(self) -> "MixturePosterior":
        """Return the mixture whose draws are evaluated by the network itself."""
        components = [component.of_weights for component in self.components]
        if all(own is other for own, other in zip(components, self.components, strict=True)):
            return self
        return MixturePosterior(
            self.model, self.scaling, components=components, info=self.info, history=self.history
        )

    def evaluation_model(self, model: BayesianModel) -> BayesianModel:
        """Return the model itself.

        Args:
            model: the model of this posterior, or a copy of another type.

        Raises:
            IncompatiblePosteriors: if components predict by networks of their own.
        """
        if self.of_weights is not self:
            raise IncompatiblePosteriors(
                "the components of the mixture predict by different linearized networks; set "
                "inference.member.predictive=sampled"
            )
        return model

    def log_prob(self, flat: Float[Tensor, "*draw parameter"]) -> Float[Tensor, "*draw"]:
        """Return the log density of each vector in nats, in float64.

        Args:
            flat: one flat vector, or a batch of them.

        Returns:
            One value per vector.

        Raises:
            IncompatiblePosteriors: if a component has no closed form.
        """
        terms = [
            component.log_prob(flat)
            for component in self.components
            if isinstance(component, ClosedFormPosterior)
        ]
        if len(terms) < len(self.components):
            raise IncompatiblePosteriors(
                "the mixture has components of draws, which have no density in closed form"
            )
        return torch.stack(terms).logsumexp(0) - math.log(len(terms))

    @checked
    def predict(self, x: Float[Tensor, "point *feature"]) -> Predictive:
        """Return the predictions of the components side by side, as `Posterior.predict`.

        Args:
            x: inputs.

        Returns:
            The predictive distribution, a chain per component.

        Raises:
            ConfigError: if inputs are not finite or the network refuses them.
        """
        is_one_network = all(own.model is self.model for own in self.components)
        if self.of_weights is self and (is_one_network or not self.model.statistics):
            return super().predict(x)  # one copy of the network for all draws
        parts = [component.predict(x) for component in self.components]
        return replace(
            parts[0],
            outputs=torch.cat([part.outputs for part in parts]),
            latents={
                name: torch.cat([part.latents[name] for part in parts]) for name in parts[0].latents
            },
        )

    def permute_chains(
        self, permutations: Sequence[Permutation] | Sequence[Sequence[Permutation]]
    ) -> SamplePosterior:
        """Return the mixture with one permutation per component, as `SamplePosterior` does.

        With one permutation per draw, the result has draws only.

        Args:
            permutations: one per component, or one per draw of every component.

        Returns:
            The permuted posterior.

        Raises:
            NotRepresentable: if one of them moves fixed entries of the network.
            IncompatiblePosteriors: if their number is not that of the chains or draws.
        """
        pairs = list(zip(self.components, permutations, strict=False))
        if len(pairs) != len(permutations) or len(pairs) != len(self.components):
            return super().permute_chains(permutations)  # which refuses them
        components = [
            component.permute(permutation)
            for component, permutation in pairs
            if isinstance(permutation, Permutation)
        ]
        if len(components) < len(pairs):
            return super().permute_chains(permutations)
        return MixturePosterior(
            self.model.permuted(*[p for p in permutations if isinstance(p, Permutation)]),
            self.scaling,
            components=components,
            info=self.info,
            history=self.history,
        )
