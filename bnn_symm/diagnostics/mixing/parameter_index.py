"""A number of every weight, told by layer and by hidden unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from bnn_symm.models import BayesianModel
from bnn_symm.symmetry import PermutationSpec


def layer_of(name: str) -> str:
    """The layer that a tensor belongs to; latent variables of the likelihood are a layer of their
    own.
    """
    layer, _, _ = name.rpartition(".")
    return layer or name


@dataclass(frozen=True)
class ParameterIndex:
    """Where the free coordinates of a model's flat vector belong.

    A unit owns whatever moves with it: what makes it, and what reads it. Fixed entries belong to
        nobody. So a weight
    between two hidden layers belongs to two units, and what no permutation moves, to none.

    Attributes:
        model: whose flat vector it is.
        spec: of its network; None where it could not be derived, and then there are no units.
    """

    model: BayesianModel
    spec: PermutationSpec | None

    @cached_property
    def layers(self) -> dict[str, np.ndarray]:
        """Layer -> indices into the flat vector."""
        found: dict[str, list[np.ndarray]] = {}
        for name, where in self.model.slices().items():
            found.setdefault(layer_of(name), []).append(np.arange(where.start, where.stop))
        return {layer: np.concatenate(parts) for layer, parts in found.items()}

    @cached_property
    def units(self) -> dict[str, list[np.ndarray]]:
        """Group -> for each of its units, indices into the flat vector."""
        if self.spec is None:
            return {}
        layers = self.model.layer_entries()
        found: dict[str, list[np.ndarray]] = {}
        for group, one in self.spec.groups.items():
            own: list[list[np.ndarray]] = [[] for _ in range(one.size)]
            for tensor, dim, segment, start in self.spec.occurrences(group):
                if tensor not in layers or segment.within:
                    continue
                for unit, entries in enumerate(segment.by_unit(layers[tensor], dim, start)):
                    own[unit].append(entries.numpy())
            found[group] = [_places(parts) for parts in own]
        # Heads own units that lie in tensors, and no axis themselves.
        return {group: own for group, own in found.items() if any(len(places) for places in own)}

    def largest(self, values: Float[np.ndarray, " parameter"]) -> Mapping[str, np.ndarray]:
        """Group -> (unit,): the largest of each unit's defined values, NaN for a unit without
        any.
        """
        return {
            group: np.array(
                [np.nanmax(own) if np.isfinite(own := values[i]).any() else np.nan for i in places]
            )
            for group, places in self.units.items()
        }

    def means(self, values: Float[np.ndarray, " parameter"]) -> Mapping[str, np.ndarray]:
        """Group -> (unit,): the mean of each unit's values, NaN for a unit without any."""
        return {
            group: np.array([values[i].mean() if len(i) else np.nan for i in places])
            for group, places in self.units.items()
        }


def _places(parts: list[np.ndarray]) -> np.ndarray:
    index = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
    return index[index > 0] - 1
