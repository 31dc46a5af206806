"""Align a posterior to a reference over scales of units and rotations of heads.

After the permutation, three steps are repeated until the distance no longer decreases. Each is the
exact minimum over one set of coordinates, so that the distance never rises.

- Heads are matched by the largest distance that rotations can remove, the sum of the singular
  values of R X^T over queries with keys and values with outputs.
- Scale: every unit of relu, and of linear layers, gets the factor c > 0 that minimizes
  |r_in - c w_in|^2 + |r_out - w_out / c|^2, where r is the reference.
- Rotation: every head gets the orthogonal matrix A that minimizes |R - A X|^2, orthogonal
  Procrustes: A = U V^T for the singular value decomposition R X^T = U S V^T (Schoenemann 1966).
  With rotary positions it is the best rotation of each pair of units.

With scales alone, means and standard deviations are compared; with rotations, means only. The prior
of independent normals is invariant under rotations, but not under scales.

References:
    Schoenemann (1966), A generalized solution of the orthogonal Procrustes problem.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import scipy
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.alignment.align import Solver, align, check_same_function, check_same_parameters
from bnn_symm.alignment.canonicalize import balancing, frozen_units, scaled_occurrences
from bnn_symm.alignment.objective import whole_weights
from bnn_symm.alignment.transport import Transport, transport_posterior
from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.symmetry import Permutation, PermutationSpec, SymmetryGroup, symmetry_group
from bnn_symm.symmetry.linear_maps import LinearMaps, linear_maps, pair_matrices

Symmetry = Literal["permutation", "scale", "rotation"]

_ROUNDS, _CONVERGED = 200, 1e-12
# Logarithms of factors that are tried, and steps of Newton's method from the best of them.
_LARGEST_LOG, _LOGS, _NEWTON = 10.0, 401, 30

Weights = dict[str, Float[Tensor, "moment *axes"]]


@dataclass(frozen=True, kw_only=True)
class ContinuousAlignment:
    """Hold the permutation, scales and rotations that bring a posterior nearest to a reference.

    Attributes:
        symmetries: the symmetries that were used.
        permutation: applied first; it may differ from that of `align`, since heads that are rotated
            are matched otherwise.
        transport: applied after it.
        compared: `w2`: means and standard deviations; `means`.
        distance_before: squared distance without any alignment.
        distance_permutation: with the permutation only.
        distance_after: with everything.
        function_difference: largest relative change of the outputs at the posterior mean, in
            float64; checked to be below 1e-6.
    """

    symmetries: tuple[Symmetry, ...]
    permutation: Permutation
    transport: Transport
    compared: Literal["w2", "means"]
    distance_before: float
    distance_permutation: float
    distance_after: float
    function_difference: float

    def apply(self, other: Posterior) -> Posterior:
        """Return the other posterior, permuted and transformed.

        Args:
            other: the posterior that was aligned, or one of the same network.

        Raises:
            ConfigError: if its family is not closed under the transformation.
        """
        return transport_posterior(other.permute(self.permutation), self.transport)

    def to_dict(self) -> dict[str, Any]:
        """Return the alignment as JSON types."""
        return {
            "symmetries": list(self.symmetries),
            "compared": self.compared,
            "distance_before": self.distance_before,
            "distance_permutation": self.distance_permutation,
            "distance_after": self.distance_after,
            "function_difference": self.function_difference,
            **self.permutation.to_dict(),
            "scales": {name: own.tolist() for name, own in self.transport.factors.items()},
            "rotations": {own.where: matrices.tolist() for own, matrices in self.transport.maps},
        }


@checked
def align_continuous(
    reference: Posterior,
    other: Posterior,
    symmetries: Sequence[str],
    *,
    first: Permutation | None = None,
    solver: Solver = "auto",
    group: SymmetryGroup | None = None,
    restarts: int | None = None,
    seed: int = 0,
) -> ContinuousAlignment:
    """Find the permutation, scales and rotations that bring a posterior nearest to a reference.

    Args:
        reference: the posterior that is not changed.
        other: a posterior of the same network: draws, or normals for scales only.
        symmetries: `permutation` and `scale`, `rotation` or both.
        first: the permutation of `align`, if it is already known.
        solver: of `align`.
        group: of the network, if it is already known.
        restarts: of `align`.
        seed: of the starts of `align`.

    Returns:
        The alignment, with distances before and after.

    Raises:
        ConfigError: if a symmetry is unknown, or the family of the posterior is not closed.
        IncompatiblePosteriors: if the two have different parameters.
        SymmetryError: if the network's symmetries cannot be derived, or the transformed network
            computes another function.

    Example:
        >>> import torch, bnn_symm
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> model = bnn_symm.BayesianModel(
        ...     net, bnn_symm.Prior(), bnn_symm.likelihoods.Gaussian(noise=0.1)
        ... )
        >>> flat = model.initial(seed=0)[None, None]
        >>> posterior = bnn_symm.SamplePosterior.from_draws(model, flat)
        >>> balanced = bnn_symm.alignment.canonical_samples(posterior)
        >>> found = align_continuous(posterior, balanced, ["permutation", "scale"])
        >>> found.distance_before > 1e-3, found.distance_after < 1e-9
        (True, True)
    """
    chosen = check_symmetries(symmetries)
    check_same_parameters([reference, other])
    net = reference.model.net
    group = group or symmetry_group(net)
    spec = group.spec
    maps = []
    if "rotation" in chosen:
        found = linear_maps(net, spec, group.fixed, input_shape=spec.input_shape)
        maps = [own for own in found if all(bool(free.all()) for free in own.free)]
    frozen = frozen_units(spec, group.fixed) if "scale" in chosen else {}
    if first is None:
        first = align(
            reference, other, solver=solver, group=group, restarts=restarts, seed=seed
        ).permutation
    starts = [first]
    if frozen:  # units whose scales differ are matched where these are balanced
        balanced = [_balanced(each, spec, frozen) for each in (reference, other)]
        fast = align(*balanced, solver="coordinate", group=group, restarts=restarts, seed=seed)
        starts.append(fast.permutation)
    compared = "means" if "rotation" in chosen else "w2"
    target, before = (_moments(each, spec, compared) for each in (reference, other))
    best = min(
        (_Search(spec, target, before, start, maps, frozen) for start in starts),
        key=lambda search: search.distance,
    )
    transport = best.transport()
    # A family that is not closed is refused now, before anything is written.
    transport_posterior(other.permute(best.permutation), transport)
    return ContinuousAlignment(
        symmetries=chosen,
        permutation=best.permutation,
        transport=transport,
        compared=compared,
        distance_before=_distance(target, before),
        distance_permutation=_distance(target, _permuted(best.permutation, before)),
        distance_after=best.distance,
        function_difference=check_same_function(other, best.permutation, transport),
    )


def check_symmetries(symmetries: Sequence[str]) -> tuple[Symmetry, ...]:
    """Return the symmetries, checked.

    Args:
        symmetries: names of symmetries.

    Raises:
        ConfigError: if one is unknown or repeated, or permutations are left out.
    """
    known = get_args(Symmetry)
    if set(symmetries) - set(known) or len(set(symmetries)) < len(symmetries):
        raise ConfigError(
            f"symmetries: got {','.join(symmetries)}; use permutation, or permutation with scale "
            "or rotation, such as permutation,scale,rotation"
        )
    if "permutation" not in symmetries:
        raise ConfigError(
            f"symmetries: got {','.join(symmetries)}, without permutation; units and heads are "
            "matched first, so add it"
        )
    return tuple(name for name in known if name in symmetries)


@dataclass
class _Search:
    """The descent from one permutation.

    Attributes:
        spec: of the network.
        target: moments of the reference.
        current: moments of the other, transformed so far.
        permutation: the permutation, with heads matched.
        maps: the maps of heads.
        frozen: groups with scales, and their units that have none.
        distance: squared distance that was reached.
    """

    spec: PermutationSpec
    target: Weights
    current: Weights
    permutation: Permutation
    maps: list[LinearMaps]
    frozen: Mapping[str, Tensor]
    factors: dict[str, Tensor] = field(default_factory=dict)
    matrices: list[Tensor] = field(default_factory=list)
    distance: float = 0.0

    def __post_init__(self) -> None:
        self._mapped = {own.where: number for number, own in enumerate(self.maps)}
        self.factors = {
            name: torch.ones(len(units), dtype=torch.float64)
            for name, units in self.frozen.items()
            if name not in self._mapped
        }
        self.matrices = [
            torch.eye(own.free[0].shape[1], dtype=torch.float64).repeat(len(own.free[0]), 1, 1)
            for own in self.maps
        ]
        self.current = _permuted(self.permutation, self.current)
        for heads in dict.fromkeys(own.heads for own in self.maps if own.heads is not None):
            self._match_heads(heads)
        self.distance = _distance(self.target, self.current)
        for _ in range(_ROUNDS):
            for number, own in enumerate(self.maps):
                self._map(number, _procrustes(own, self.target, self.current))
            for name, units in self.frozen.items():
                self._scale(name, units)
            distance = _distance(self.target, self.current)
            is_done = self.distance - distance <= _CONVERGED * self.distance
            self.distance = distance
            if is_done:
                break

    def transport(self) -> Transport:
        """Return the scales and matrices."""
        return Transport(self.spec, self.factors, tuple(zip(self.maps, self.matrices, strict=True)))

    def _match_heads(self, name: str) -> None:
        """Exchange heads such that rotations can remove the most of the distance."""
        gain = torch.zeros(self.spec.groups[name].size, self.spec.groups[name].size)
        for own in self.maps:
            if own.heads == name:
                products = _products(own, self.target, self.current)
                gain += _removable(own, products)
        _, order = scipy.optimize.linear_sum_assignment(gain.numpy(), maximize=True)
        heads = self.spec.permutation(self.spec.with_owned(name, torch.as_tensor(order)))
        self.current = _permuted(heads, self.current)
        self.permutation = heads.compose(self.permutation)

    def _map(self, number: int, matrices: Tensor) -> None:
        self.current = self.maps[number].apply(self.current, matrices)
        self.matrices[number] = matrices @ self.matrices[number]

    def _scale(self, name: str, units: Tensor) -> None:
        factors = _best_factors(self.spec, name, self.target, self.current)
        factors = torch.where(units, torch.ones_like(factors), factors)
        if name in self._mapped:
            number = self._mapped[name]
            blocks = len(self.matrices[number])
            self._map(number, torch.diag_embed(factors.reshape(blocks, -1)))
            return
        scaled = Transport(self.spec, {name: factors})
        self.current = scaled.apply(self.current)
        self.factors[name] = self.factors[name] * factors


def _moments(posterior: Posterior, spec: PermutationSpec, compared: str) -> Weights:
    """Return whole means, and standard deviations for `w2`, in float64: (moment, *shape)."""
    model = posterior.model
    mean = whole_weights(model, posterior.mean(), spec)
    rows = [mean]
    if compared == "w2":
        scales = model.layer_scales(model.unflatten(posterior.standard_deviation()))
        rows.append({name: scales[name].detach().cpu() for name in mean})
    return {name: torch.stack([row[name].double() for row in rows]) for name in mean}


def _permuted(permutation: Permutation, weights: Weights) -> Weights:
    """Return permuted moments; signs do not act on standard deviations."""
    moved = permutation.apply(weights)
    return {name: torch.cat([value[:1], value[1:].abs()]) for name, value in moved.items()}


def _distance(first: Weights, second: Weights) -> float:
    return sum(float((first[name] - second[name]).square().sum()) for name in first)


def _products(own: LinearMaps, target: Weights, current: Weights) -> Tensor:
    """Return R X^T of every two blocks, (block of R, block of X, unit, unit)."""
    size, blocks = own.free[0].shape[1], len(own.free[0])
    total = torch.zeros(blocks, blocks, size, size, dtype=torch.float64)
    for axis in own.axes:
        r, x = (each[axis.tensor][0].movedim(axis.dim, 0)[axis.index] for each in (target, current))
        r, x = (each.reshape(*axis.index.shape, -1) for each in (r, x))
        total += torch.einsum("acue,bcve->abuv", r, x)
    return total


def _complex(own: LinearMaps, products: Tensor) -> Tensor:
    """Return the complex inner product of each pair of units, (*block, pair, 2)."""
    assert own.pairs is not None
    a, b = own.pairs.T
    real = products[..., a, a] + products[..., b, b]
    return torch.stack([real, products[..., b, a] - products[..., a, b]], -1)


def _removable(own: LinearMaps, products: Tensor) -> Tensor:
    """Return the largest inner product of every two blocks over the group."""
    if own.pairs is not None:
        return _complex(own, products).norm(dim=-1).sum(-1).float()
    return torch.linalg.svdvals(products).sum(-1).float()


def _procrustes(own: LinearMaps, target: Weights, current: Weights) -> Tensor:
    """Return the orthogonal matrix of each block that brings it nearest to the target."""
    products = _products(own, target, current).diagonal(dim1=0, dim2=1).movedim(-1, 0)
    if own.pairs is not None:
        factors = _complex(own, products)
        size = factors.norm(dim=-1, keepdim=True)
        one = torch.tensor([1.0, 0.0], dtype=torch.float64)
        return pair_matrices(own.pairs, torch.where(size > 0, factors / size, one))
    left, _, right = torch.linalg.svd(products)
    return left @ right


def _best_factors(
    spec: PermutationSpec, name: str, target: Weights, current: Weights
) -> Float[Tensor, " unit"]:
    """Return the factor of each unit that brings its weights nearest to the target."""
    size = spec.groups[name].size
    # Squared norm of the weights, and their inner product with the target: in, and out.
    sums = {power: torch.zeros(2, size, dtype=torch.float64) for power in (1, -1)}
    for tensor, dim, start, segment in scaled_occurrences(spec, name):
        if tensor in current:
            r, x = (
                segment.by_unit(each[tensor], dim, start, leading=1) for each in (target, current)
            )
            sums[segment.scale] += torch.stack([(x * x).sum((0, 2)), (r * x).sum((0, 2))])
    (a, b), (e, f) = sums[1], sums[-1]
    logs = torch.linspace(-_LARGEST_LOG, _LARGEST_LOG, _LOGS, dtype=torch.float64)[:, None]
    value = a * (2 * logs).exp() - 2 * b * logs.exp()
    value = value + e * (-2 * logs).exp() - 2 * f * (-logs).exp()
    low = logs[value.argmin(0), 0]
    step, log = float(logs[1] - logs[0]), low.clone()
    for _ in range(_NEWTON):
        c = log.exp()
        slope = a * c * c - b * c - e / c / c + f / c
        curvature = 2 * a * c * c - b * c + 2 * e / c / c - f / c
        move = torch.where(curvature > 0, slope / curvature, torch.zeros_like(slope))
        log = (log - move).clamp(low - step, low + step)
    return torch.where((a > 0) & (e > 0), log.exp(), torch.ones_like(a))


def _balanced(
    posterior: Posterior, spec: PermutationSpec, frozen: Mapping[str, Tensor]
) -> Posterior:
    """Return a posterior whose mean is balanced (see `canonicalize`), for the match of units."""
    weights = _moments(posterior, spec, "means")
    factors = {name: own[0] for name, own in balancing(spec, weights, frozen).items()}
    return transport_posterior(posterior, Transport(spec, factors))
