"""Independent blocks of a normal distribution: their curvature, and factors of their precision.

    P = H + D,   H: curvature of the log likelihood, D: precisions of the prior, a diagonal

Each kind of block has a class for H and one for a factor of P, from which draws are made. A
Kronecker block has H = B (x) A for the matrix of a layer's weights, with one row for each output,
and D with equal rows d. With A' = diag(d)^-1/2 A diag(d)^-1/2 = V diag(a) V^T and
B = U diag(b) U^T,

    P = D^1/2 (U (x) V) (1 + b a^T) (U (x) V)^T D^1/2,

so that adding the precision of the prior is exact, unlike damping both factors. A layer whose
entries are not all free, or with a prior that differs by row, has the part of H of its free
entries, without factors. That is the exact conditional distribution given the other entries.

References:
    Ritter, Botev and Barber 2018, ICLR, "A scalable Laplace approximation for neural networks";
    Immer et al. 2021, arXiv:2104.04975, section 3.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.inference.callbacks import State, to_numpy

_FACTOR = "factor"


@dataclass(frozen=True)
class Factor(ABC):
    """A factor of the precision of some coordinates.

    Attributes:
        coordinates: their numbers in the flat vector.
    """

    kind: ClassVar[str]
    coordinates: Int[Tensor, "..."]

    @abstractmethod
    def deviation(self, noise: Float[Tensor, " coordinate"]) -> Float[Tensor, " coordinate"]:
        """Return the deviation from the mode that standard normal noise gives.

        Args:
            noise: one value per coordinate, in float64.
        """

    @abstractmethod
    def log_determinant(self) -> float:
        """Return log det P."""


@dataclass(frozen=True)
class DiagonalFactor(Factor):
    """The roots of independent precisions, (coordinate,)."""

    kind: ClassVar[str] = "diagonal"
    root: Float[Tensor, " coordinate"]

    def deviation(self, noise: Float[Tensor, " coordinate"]) -> Float[Tensor, " coordinate"]:
        """Return noise with these precisions."""
        return noise / self.root

    def log_determinant(self) -> float:
        """Return log det P."""
        return 2 * float(self.root.log().sum())


@dataclass(frozen=True)
class DenseFactor(Factor):
    """The Cholesky factor of a precision matrix, (coordinate, coordinate)."""

    kind: ClassVar[str] = "dense"
    root: Float[Tensor, "coordinate coordinate"]

    def deviation(self, noise: Float[Tensor, " coordinate"]) -> Float[Tensor, " coordinate"]:
        """Return noise with this precision matrix."""
        return torch.linalg.solve_triangular(self.root.T, noise[:, None], upper=True)[:, 0]

    def log_determinant(self) -> float:
        """Return log det P."""
        return 2 * float(self.root.diagonal().log().sum())


@dataclass(frozen=True)
class KroneckerFactor(Factor):
    """The eigendecomposition of a Kronecker block, with coordinates (output, input).

    Attributes:
        left: U, (output, output).
        right: V, (input, input).
        eigenvalues: 1 + b a^T, (output, input).
        prior: d, (input,).
    """

    kind: ClassVar[str] = "kronecker"
    left: Float[Tensor, "output output"]
    right: Float[Tensor, "input input"]
    eigenvalues: Float[Tensor, "output input"]
    prior: Float[Tensor, " input"]

    def deviation(self, noise: Float[Tensor, " coordinate"]) -> Float[Tensor, " coordinate"]:
        """Return noise with this precision matrix."""
        scaled = noise.reshape(self.eigenvalues.shape) * self.eigenvalues.rsqrt()
        return (self.left @ scaled @ self.right.T * self.prior.rsqrt()).flatten()

    def log_determinant(self) -> float:
        """Return log det P."""
        return float(self.eigenvalues.log().sum() + len(self.eigenvalues) * self.prior.log().sum())


@dataclass(frozen=True)
class Block(ABC):
    """The curvature H of the log likelihood in some coordinates, divided by the temperature.

    Attributes:
        coordinates: their numbers in the flat vector.
    """

    coordinates: Int[Tensor, "..."]

    @abstractmethod
    def factor(self, prior: Float[Tensor, " parameter"]) -> Factor:
        """Return a factor of P.

        Args:
            prior: precisions of the prior, of every coordinate of the flat vector.
        """

    @abstractmethod
    def eigenvalues(
        self, prior: Float[Tensor, " parameter"], end: int
    ) -> Float[Tensor, " coordinate"]:
        """Return the eigenvalues of H in the coordinates before `end`, given the others.

        Args:
            prior: precisions of the prior.
            end: the number of parameters of the network.
        """


@dataclass(frozen=True)
class DiagonalBlock(Block):
    """The diagonal of H, (coordinate,)."""

    curvature: Float[Tensor, " coordinate"]

    def factor(self, prior: Float[Tensor, " parameter"]) -> DiagonalFactor:
        """Return the roots of the precisions."""
        return DiagonalFactor(self.coordinates, (self.curvature + prior[self.coordinates]).sqrt())

    def eigenvalues(
        self, prior: Float[Tensor, " parameter"], end: int
    ) -> Float[Tensor, " coordinate"]:
        """Return the entries before `end`."""
        return self.curvature[self.coordinates < end]


@dataclass(frozen=True)
class DenseBlock(Block):
    """H as a matrix, (coordinate, coordinate)."""

    curvature: Float[Tensor, "coordinate coordinate"]

    def factor(self, prior: Float[Tensor, " parameter"]) -> DenseFactor:
        """Return the Cholesky factor of the precision."""
        precision = self.curvature + prior[self.coordinates].diag()
        return DenseFactor(self.coordinates, torch.linalg.cholesky(precision))

    def eigenvalues(
        self, prior: Float[Tensor, " parameter"], end: int
    ) -> Float[Tensor, " coordinate"]:
        """Return the eigenvalues of the Schur complement of the latent variables.

        For Gaussian noise it is the part before `end`: outputs and noise share no information.
        """
        inside = self.coordinates < end
        own = self.curvature[inside][:, inside]
        if not bool(inside.all()):
            mixed = self.curvature[inside][:, ~inside]
            others = self.curvature[~inside][:, ~inside] + prior[self.coordinates[~inside]].diag()
            own = own - mixed @ torch.linalg.solve(others, mixed.T)
        return torch.linalg.eigvalsh(own).clamp(min=0)


@dataclass(frozen=True)
class KroneckerBlock(Block):
    """H = left (x) right, with coordinates (output, input) of which all are free.

    Attributes:
        left: B, (output, output).
        right: A, (input, input).
    """

    left: Float[Tensor, "output output"]
    right: Float[Tensor, "input input"]

    def factor(self, prior: Float[Tensor, " parameter"]) -> Factor:
        """Return the eigendecomposition, or a Cholesky factor if the prior differs by row."""
        by_entry = prior[self.coordinates]
        if not torch.equal(by_entry, by_entry[:1].expand_as(by_entry)):
            return free_entries(self.coordinates, self.left, self.right).factor(prior)
        root = by_entry[0].rsqrt()
        b, left = torch.linalg.eigh(self.left)
        a, right = torch.linalg.eigh(root[:, None] * self.right * root)
        eigenvalues = 1 + b.clamp(min=0)[:, None] * a.clamp(min=0)
        return KroneckerFactor(self.coordinates, left, right, eigenvalues, by_entry[0])

    def eigenvalues(
        self, prior: Float[Tensor, " parameter"], end: int
    ) -> Float[Tensor, " coordinate"]:
        """Return all products of the eigenvalues of both factors."""
        left, right = (torch.linalg.eigvalsh(m).clamp(min=0) for m in (self.left, self.right))
        return torch.outer(left, right).flatten()


def free_entries(
    coordinates: Int[Tensor, "output input"],
    left: Float[Tensor, "output output"],
    right: Float[Tensor, "input input"],
) -> DenseBlock:
    """Return the part of left (x) right that belongs to free entries, as a matrix.

    Args:
        coordinates: of every entry; negative where it is not free.
        left: the factor of outputs.
        right: the factor of inputs.
    """
    output, input = torch.nonzero(coordinates >= 0, as_tuple=True)
    matrix = left[output][:, output] * right[input][:, input]
    return DenseBlock(coordinates[output, input], matrix)


def deviation(
    factors: Sequence[Factor],
    noise: Float[Tensor, " coordinate"],
    like: Float[Tensor, " parameter"],
) -> Float[Tensor, " parameter"]:
    """Return the deviation from the mode of the flat vector; zero in other coordinates.

    Args:
        factors: of disjoint coordinates.
        noise: one value for each of their coordinates.
        like: a flat vector with the device and dtype of the result.
    """
    result = torch.zeros_like(like)
    sizes = [factor.coordinates.numel() for factor in factors]
    for factor, part in zip(factors, noise.split(sizes), strict=True):
        result[factor.coordinates.flatten()] = factor.deviation(part).to(like.dtype)
    return result


def to_state(factors: Sequence[Factor]) -> State:
    """Return arrays that describe factors, for the state of a fit.

    Args:
        factors: the factors.
    """
    return to_numpy(
        {
            f"{_FACTOR}.{number:04d}.{factor.kind}.{field.name}": getattr(factor, field.name)
            for number, factor in enumerate(factors)
            for field in fields(factor)
        }
    )


def from_state(state: Mapping[str, Tensor]) -> list[Factor]:
    """Return the factors that arrays describe.

    Args:
        state: arrays of `to_state`, among others.
    """
    arrays: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.startswith(_FACTOR + "."):
            _, number, kind, field = name.split(".")
            arrays.setdefault((number, kind), {})[field] = value
    kinds = {cls.kind: cls for cls in (DiagonalFactor, DenseFactor, KroneckerFactor)}
    return [kinds[kind](**found) for (_, kind), found in sorted(arrays.items())]
