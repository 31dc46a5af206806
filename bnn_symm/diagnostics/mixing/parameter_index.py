"""Index the parameters of a model by layer and by hidden unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from bnn_symm.models import BayesianModel
from bnn_symm.symmetry import PermutationSpec


def layer_name(name: str) -> str:
    """Return the layer of a tensor; a latent variable of the likelihood is a layer by itself.

    Args:
        name: Name of a tensor.

    Returns:
        Name of the layer.
    """
    layer, _, _ = name.rpartition(".")
    return layer or name


@dataclass(frozen=True)
class ParameterIndex:
    """Layer and unit of the free parameters of a model's flat vector.

    The weights of a unit are those that are permuted with it, incoming and outgoing. Fixed entries
    belong to no unit. A weight between two hidden layers therefore belongs to two units, and a
    weight that no permutation moves to none.

    Attributes:
        model: Model of the flat vector.
        spec: Symmetries of its network; None if they could not be derived, and then there are no
            units.
    """

    model: BayesianModel
    spec: PermutationSpec | None

    @cached_property
    def layers(self) -> dict[str, np.ndarray]:
        """Return layer -> indices into the flat vector."""
        found: dict[str, list[np.ndarray]] = {}
        for name, where in self.model.slices().items():
            found.setdefault(layer_name(name), []).append(np.arange(where.start, where.stop))
        return {layer: np.concatenate(parts) for layer, parts in found.items()}

    @cached_property
    def units(self) -> dict[str, list[np.ndarray]]:
        """Return group -> for each of its units, indices into the flat vector."""
        if self.spec is None:
            return {}
        layers = self.model.layer_entries()
        found: dict[str, list[np.ndarray]] = {}
        for group, unit_group in self.spec.groups.items():
            own: list[list[np.ndarray]] = [[] for _ in range(unit_group.size)]
            for tensor, dim, segment, start in self.spec.occurrences(group):
                if tensor not in layers or segment.within:
                    continue
                for unit, entries in enumerate(segment.by_unit(layers[tensor], dim, start)):
                    own[unit].append(entries.numpy())
            found[group] = [_places(parts) for parts in own]
        # Attention heads own units that lie in tensors, but no axis themselves.
        return {group: own for group, own in found.items() if any(len(places) for places in own)}

    def largest(self, values: Float[np.ndarray, " parameter"]) -> Mapping[str, np.ndarray]:
        """Return group -> (unit,): the largest defined value of each unit, NaN without any."""
        return {
            group: np.array(
                [np.nanmax(own) if np.isfinite(own := values[i]).any() else np.nan for i in places]
            )
            for group, places in self.units.items()
        }

    def means(self, values: Float[np.ndarray, " parameter"]) -> Mapping[str, np.ndarray]:
        """Return group -> (unit,): the mean of each unit's values, NaN for a unit without any."""
        return {
            group: np.array([values[i].mean() if len(i) else np.nan for i in places])
            for group, places in self.units.items()
        }


def _places(parts: list[np.ndarray]) -> np.ndarray:
    index = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
    return index[index > 0] - 1
