"""Measure the barrier of one layer at a time: the other layers stay at one of the two posteriors.

    alone at the first    L(layer between both, the others of q0) - chord
    alone at the second   L(layer between both, the others of q1) - chord
    cumulative            L(the layers up to this one between both, the later ones of q0) - chord
    chord                 (1 - tau) L(q0) + tau L(q1)

A layer is the parameters of one module. The chord is that between the two posteriors for every
layer, so that a layer that cannot be exchanged has a barrier even where the loss rises
monotonically to the exchange. The cumulative barrier of the last layer is that of the whole path,
at the same positions.

References:
    Adilova, Andriushchenko, Kamp, Fischer and Jaggi (2024), Layer-wise linear mode connectivity,
    arXiv:2307.06966; Singh et al. (2024), Landscaping linear mode connectivity, arXiv:2406.16300.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.diagnostics.barriers.curves import Resampling
from bnn_symm.diagnostics.barriers.interpolation import CoupledDraws, losses
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior
from bnn_symm.posteriors.low_rank import layer_of

_ROOT = "network"


@dataclass(frozen=True, kw_only=True)
class LayerHeight:
    """The barrier of some layers.

    Attributes:
        height: Maximum of the marginal NLL above the chord, in nats per point.
        standard_error: Of `height`, by bootstrap over draws and points.
        tau: Position of the maximum.
    """

    height: float
    standard_error: float
    tau: float


@dataclass(frozen=True, kw_only=True)
class LayerBarrier:
    """The barriers of one layer, on the test split.

    Attributes:
        layer: Name of the module; `network` for parameters of the network itself, and `likelihood`
            for latent variables of the likelihood.
        num_parameters: Number of its coordinates.
        at_first: The layer moves, and the others stay at the first posterior.
        at_second: The layer moves, and the others stay at the second posterior.
        cumulative: The layers up to this one move, and the later ones stay at the first posterior.
    """

    layer: str
    num_parameters: int
    at_first: LayerHeight
    at_second: LayerHeight
    cumulative: LayerHeight


@dataclass(frozen=True)
class LayerPath:
    """A path along which some coordinates move, and the others stay at one end.

    Attributes:
        pairs: The whole path.
        moving: (parameter,), the coordinates that move.
        layers: Names of the modules that move.
        end: Index of the posterior at which the others stay.
    """

    pairs: CoupledDraws
    moving: Bool[Tensor, " parameter"]
    layers: frozenset[str]
    end: int

    def interpolate(self, tau: float) -> Float[Tensor, "draw parameter"]:
        """Return the draws at a position."""
        whole = self.pairs.interpolate([1 - tau, tau])
        return torch.where(self.moving, whole, self.pairs.draws[self.end])

    def model(self, tau: float) -> BayesianModel | None:
        """Return the model at a position, whose statistics move with their layers."""
        whole = self.pairs.model([1 - tau, tau])
        if whole is None:
            return None
        stays = self.pairs.models[self.end].statistics
        return whole.with_statistics(
            {
                name: value if layer_of(name) in self.layers else stays[name]
                for name, value in whole.statistics.items()
            }
        )


def layers_of(model: BayesianModel) -> dict[str, list[slice]]:
    """Return layer -> slices of the flat vector, in its order.

    Args:
        model: The model.
    """
    layers: dict[str, list[slice]] = {}
    for name, where in model.slices().items():
        layers.setdefault(layer_of(name) or _ROOT, []).append(where)
    return layers


def layer_barriers(
    pairs: CoupledDraws, posterior: Posterior, part: Split, num_tau: int, seed: int
) -> list[LayerBarrier]:
    """Return the barrier of every layer, in the order of the flat vector.

    Args:
        pairs: The path.
        posterior: Provides the model and the scaling.
        part: Split of the data that is predicted.
        num_tau: Number of even positions.
        seed: Seed of the bootstrap.

    Raises:
        ConfigError: If the path is not straight.
    """
    if pairs.bend is not None:
        raise ConfigError(
            "layers are moved along straight paths; use path='geodesic' or path='line'"
        )
    tau = [float(t) for t in np.linspace(0, 1, num_tau).round(10)]
    resampling = Resampling.of(len(pairs.draws[0]), len(part), seed)
    layers, size = layers_of(posterior.model), pairs.draws[0].shape[1]

    def evaluate(path: LayerPath, t: float) -> Tensor:
        """Return the loss, and that of every resample."""
        own = losses(posterior, path.interpolate(t), part, path.model(t))
        nll = torch.tensor([own.marginal_nll], dtype=torch.float64)
        return torch.cat([nll, resampling.nll(own.log_likelihood)])

    def path_of(names: Sequence[str], end: int) -> LayerPath:
        moving = torch.zeros(size, dtype=torch.bool, device=pairs.draws[0].device)
        for where in (where for name in names for where in layers[name]):
            moving[where] = True
        return LayerPath(pairs, moving, frozenset(names), end)

    ends = [evaluate(path_of([], end), float(end)) for end in (0, 1)]

    def height(path: LayerPath) -> LayerHeight:
        stays = {0.0: ends[0]} if path.end == 0 else {1.0: ends[1]}
        above = torch.stack(
            [
                (stays[t] if t in stays else evaluate(path, t)) - (1 - t) * ends[0] - t * ends[1]
                for t in tau
            ]
        )
        heights = above.amax(0)
        return LayerHeight(
            height=float(heights[0]),
            standard_error=float(heights[1:].std()),
            tau=tau[int(above[:, 0].argmax())],
        )

    names = list(layers)
    return [
        LayerBarrier(
            layer=name,
            num_parameters=sum(where.stop - where.start for where in layers[name]),
            at_first=height(path_of([name], 0)),
            at_second=height(path_of([name], 1)),
            cumulative=height(path_of(names[: number + 1], 0)),
        )
        for number, name in enumerate(names)
    ]
