"""Define posteriors in closed form: normals with low-rank covariances within a layer.

    q(w) = prod over layers of Normal(loc, diag(scale^2) + factors^T factors)

A layer holds the parameters of one module, its weight and bias; the latent variables of the
likelihood form one as well. Layers are independent. Densities need r x r matrices only, by the
matrix determinant lemma and Woodbury's identity.

References:
    Tomczak, Swaroop and Turner (2020), NeurIPS, "Efficient low rank Gaussian variational inference
    for neural networks".
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.gaussian_family import ClosedFormPosterior
from bnn_symm.symmetry import Permutation


def layer_sizes(model: BayesianModel) -> dict[str, int]:
    """Return layer -> number of its coordinates, in the order of the flat vector.

    Coordinates of one module are contiguous.

    Args:
        model: the model.
    """
    sizes: dict[str, int] = {}
    for name, where in model.slices().items():
        sizes[layer_of(name)] = sizes.get(layer_of(name), 0) + where.stop - where.start
    return sizes


def layer_of(name: str) -> str:
    """Return the name of the module that has a parameter.

    Args:
        name: of the parameter.
    """
    return name.rpartition(".")[0]


def capacitances(
    scale: Float[Tensor, " parameter"],
    factors: Float[Tensor, "rank parameter"],
    sizes: Sequence[int],
) -> Float[Tensor, "part rank rank"]:
    """Return factors diag(scale^-2) factors^T of consecutive parts of the vector, in float64.

    With the identity added, they give the determinants of the lemma:
    log det(diag(scale^2) + factors^T factors) = 2 sum log scale + log det(1 + capacitance).

    Args:
        scale: standard deviations of the independent part.
        factors: one row per factor.
        sizes: lengths of the parts.

    Returns:
        One matrix per part.
    """
    parts = (factors.double() / scale.double()).split(list(sizes), dim=-1)
    return torch.stack([part @ part.mT for part in parts])


def log_determinants(capacitance: Float[Tensor, "part rank rank"]) -> Float[Tensor, " part"]:
    """Return log det(1 + capacitance) of every part.

    Args:
        capacitance: one matrix per part.
    """
    return 2 * _cholesky(capacitance).diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _cholesky(capacitance: Tensor) -> Tensor:
    return torch.linalg.cholesky(capacitance + torch.eye(capacitance.shape[-1]).to(capacitance))


class LowRankGaussianPosterior(ClosedFormPosterior):
    """Represent normals with a diagonal plus low-rank covariance within a layer.

    It is the result of `low_rank_vi`.

    Args:
        args: model and scaling, as of `ClosedFormPosterior`.
        factors: (rank, parameter); the covariance within a layer is diag(scale^2) + factors^T
            factors. The rows span the whole vector; a factor has separate noise in every layer.
        keywords: as of `ClosedFormPosterior`; `scale` is of the diagonal part alone.

    Raises:
        IncompatiblePosteriors: if lengths differ, or a scale is not positive.
    """

    kind = "low_rank_gaussian"
    array_axes: ClassVar[dict[str, int]] = {**ClosedFormPosterior.array_axes, "factors": 2}

    @checked
    def __init__(self, *args: Any, factors: Float[Tensor, "rank parameter"], **keywords: Any):
        super().__init__(*args, **keywords)
        if factors.shape[-1] != len(self.loc) or len(factors) == 0:
            raise IncompatiblePosteriors(
                f"factors: got shape {tuple(factors.shape)} for {len(self.loc)} parameters, "
                "expected (rank, parameter) with a rank of at least 1"
            )
        self.factors = factors
        self._sizes = list(layer_sizes(self.model).values())

    @property
    def num_noise(self) -> int:
        """Return the number of noise values per draw: one per coordinate, then those of factors.

        The latter are (layer, rank).
        """
        return len(self.loc) + len(self._sizes) * len(self.factors)

    def reparameterize(
        self, noise: Float[Tensor, "*draw noise"]
    ) -> Float[Tensor, "*draw parameter"]:
        """Return the draws that standard normal noise gives, `num_noise` values per draw."""
        diagonal, shared = noise.split([len(self.loc), noise.shape[-1] - len(self.loc)], dim=-1)
        by_layer = shared.unflatten(-1, (len(self._sizes), len(self.factors)))
        sizes = torch.tensor(self._sizes, device=noise.device)
        draws = self._independent(diagonal)
        # Factor by factor: the rounding of a matrix product depends on the number of draws.
        for number, factor in enumerate(self.factors):
            draws = draws + by_layer[..., number].repeat_interleave(sizes, dim=-1) * factor
        return draws

    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """Return the marginal standard deviations, sqrt(scale^2 + sum of squared factors)."""
        return marginal_scale(self.scale, self.factors)

    def log_prob(self, flat: Float[Tensor, "*draw parameter"]) -> Float[Tensor, "*draw"]:
        """Return the log density of each vector in nats, in float64."""
        scale, factors = self.scale.double(), self.factors.double()
        standard = (flat.double() - self.loc.double()) / scale
        quadratic = standard.square().sum(-1)
        cholesky = _cholesky(capacitances(scale, factors, self._sizes))
        parts = (values.split(self._sizes, dim=-1) for values in (standard, factors / scale))
        for residual, loadings, lower in zip(*parts, cholesky, strict=True):
            projected = (residual @ loadings.mT).unsqueeze(-1)
            quadratic = quadratic - torch.linalg.solve_triangular(
                lower, projected, upper=False
            ).square().sum((-2, -1))
        log_determinant = 2 * (scale.log().sum() + cholesky.diagonal(dim1=-2, dim2=-1).log().sum())
        return -0.5 * (quadratic + log_determinant + len(scale) * math.log(2 * math.pi))

    def entropy_by_tensor(self) -> dict[str, float]:
        """Return name -> entropy of the tensor given those before it in its layer, in nats."""
        sizes = {name: where.stop - where.start for name, where in self.model.slices().items()}
        independent = self.scale.double().log() + 0.5 * math.log(2 * math.pi * math.e)
        by_tensor = capacitances(self.scale, self.factors, list(sizes.values()))
        entropies: dict[str, float] = {}
        layer, total, before = None, torch.zeros_like(by_tensor[:1]), 0.0
        for name, part, capacitance in zip(
            sizes, independent.split(list(sizes.values())), by_tensor, strict=True
        ):
            if layer_of(name) != layer:
                layer, total, before = layer_of(name), torch.zeros_like(by_tensor[:1]), 0.0
            total = total + capacitance
            determinant = float(log_determinants(total))
            entropies[name] = float(part.sum()) + 0.5 * (determinant - before)
            before = determinant
        return entropies

    def arrays(self) -> dict[str, Tensor]:
        """Return the arrays of `ClosedFormPosterior`, and the factors, (rank, parameter)."""
        return {**super().arrays(), "factors": self.factors}

    def permute(self, permutation: Permutation) -> "LowRankGaussianPosterior":
        """Return the posterior of the permuted network, as `Posterior.permute`."""
        factors = self.model.permute(self.factors, permutation)
        return LowRankGaussianPosterior(
            self.model.permuted(permutation),
            self.scaling,
            factors=factors,
            **self._permuted(permutation),
        )


def marginal_scale(
    scale: Float[Tensor, " parameter"], factors: Float[Tensor, "rank parameter"]
) -> Float[Tensor, " parameter"]:
    """Return the marginal standard deviation of every coordinate.

    Args:
        scale: standard deviations of the independent part.
        factors: one row per factor.
    """
    return (scale.square() + factors.square().sum(0)).sqrt()
