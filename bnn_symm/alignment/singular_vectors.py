"""Compare the singular vectors of the weights of two posteriors.

For weights ``A = U S V'`` and ``B = P T Q'``, singular values in descending order,

    |A - B|^2 = sum_i (s_i - t_i)^2 + 2 (sum_i s_i t_i - <A, B>)

The first term is the distance that remains however the singular vectors are turned (von Neumann's
trace inequality: ``<A, B> <= sum_i s_i t_i``, with equality for equal vectors). The second is the
part of the vectors. A permutation of units changes only the vectors. Matching weights maximizes the
sum of ``<A, B>``, in which directions with large singular values have the most weight. Networks may
therefore be connected although permutations hardly reduce their distance.

References:
    Ito, Yamada and Kumagai (2024), Analysis of Linear Mode Connectivity via Permutation-Based
    Weight Matching, arXiv:2402.04051.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bnn_symm.alignment.align import check_same_parameters
from bnn_symm.architectures import effective_parameters
from bnn_symm.arguments import checked
from bnn_symm.posteriors import Posterior

_LEADING = 0.3
"""Singular vectors whose singular value is at least this share of the largest are leading."""

_ZERO = 1e-6
"""Singular values below this share of the largest are zero up to the rounding of float32."""


@dataclass(frozen=True, kw_only=True)
class SingularVectors:
    """How near the singular vectors of one weight are to those of another.

    Attributes:
        weight: the name of the weight.
        alignment: ``<A, B> / sum_i s_i t_i``, from -1 to 1: the cosines of left and right singular
            vectors, weighted by singular values; 1 if all are equal. NaN if a weight is zero.
        leading: the number k of leading singular vectors, whose singular value is at least 0.3 of
            the largest, in the weight that has more of them.
        leading_alignment: ``<U_k V_k', P_k Q_k'> / k``, from -1 to 1: the same for the leading
            ones, all with equal weight. NaN if a weight has a lower rank than k, such as a weight
            of zero: some of its leading vectors are arbitrary.
        from_values: the part of the squared distance that comes from different singular values.
        from_vectors: the part that comes from different singular vectors.
    """

    weight: str
    alignment: float
    leading: int
    leading_alignment: float
    from_values: float
    from_vectors: float

    @property
    def distance(self) -> float:
        """Return the squared distance of the weights."""
        return self.from_values + self.from_vectors

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes and the distance as JSON types."""
        return {**asdict(self), "distance": self.distance}


@checked
def singular_vectors(reference: Posterior, other: Posterior) -> tuple[SingularVectors, ...]:
    """Compare the singular vectors of the mean weights of two posteriors.

    A kernel of a convolution is a matrix with one row for each output channel. Biases and weights
    of norms have no singular vectors and are left out; fixed entries are included.

    Args:
        reference: a posterior.
        other: a posterior of the same network, unaligned or aligned.

    Returns:
        One record for each weight with two axes or more, in the order of the network.

    Raises:
        IncompatiblePosteriors: If the parameters of the networks differ.

    Example:
        >>> import torch, bnn_symm
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
        >>> likelihood = bnn_symm.likelihoods.Gaussian(noise=0.1)
        >>> model = bnn_symm.BayesianModel(net, bnn_symm.Prior(), likelihood)
        >>> first = bnn_symm.SamplePosterior.from_draws(model, model.initial(seed=0)[None, None])
        >>> other = first.permute(bnn_symm.symmetry_group(net).random(1))
        >>> moved = bnn_symm.align(first, other).apply(other)
        >>> [round(own.alignment, 4) for own in singular_vectors(first, moved)]
        [1.0, 1.0]
    """
    check_same_parameters([reference, other])
    return tuple(
        _compare(name, first, second)
        for (name, first), (_, second) in zip(_weights(reference), _weights(other), strict=True)
    )


def _weights(posterior: Posterior) -> list[tuple[str, Tensor]]:
    """Return the mean weights with two axes or more, as matrices, with their names."""
    model = posterior.model
    every = effective_parameters(model.net, model.unflatten(posterior.mean()))
    return [
        (name, value.detach().double().flatten(1))
        for name, value in every.items()
        if value.ndim > 1
    ]


def _compare(name: str, first: Tensor, second: Tensor) -> SingularVectors:
    u, s, v = torch.linalg.svd(first, full_matrices=False)
    p, t, q = torch.linalg.svd(second, full_matrices=False)
    inner, largest = float((first * second).sum()), float(s @ t)
    k = max(int((values >= _LEADING * values[0]).sum()) for values in (s, t))
    cosines = (u[:, :k].T @ p[:, :k]) * (v[:k] @ q[:k].T)
    # Vectors of a singular value of zero, up to rounding, depend on the implementation.
    is_known = all(float(values[k - 1]) > _ZERO * float(values[0]) for values in (s, t))
    return SingularVectors(
        weight=name,
        alignment=inner / largest if largest > 0 else float("nan"),
        leading=k,
        leading_alignment=float(cosines.sum()) / k if is_known else float("nan"),
        from_values=float((s - t).square().sum()),
        from_vectors=2 * (largest - inner),
    )
