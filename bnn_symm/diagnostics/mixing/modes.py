"""How many modes chains sit in, as they are, modulo symmetry, and as functions.

Two chains are apart in a unit if the means of its weights differ by more than the chains spread
there,

    (1/n) sum_w (m_w - m'_w)^2 / (s_w^2 + s'_w^2) > 1,

which for two chains is a root mean square R-hat above 1.4. Chains that are apart in no unit, and in
no layer as a whole, are in one mode, and so are chains that a third one joins. Of aligned chains
this counts modes modulo symmetry; of functions, with points in place of units, it counts what no
alignment could join.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components

from bnn_symm.diagnostics.mixing.parameter_index import ParameterIndex

# Squared difference of means over the sum of variances.
_APART = 1.0


@dataclass(frozen=True, kw_only=True)
class Modes:
    """Which chains share a mode.

    Attributes:
        labels: (chain,), modes numbered by their first chain.
        separation: (chain, chain), the largest mean of squared differences over sums of variances;
            above 1 is apart.
    """

    labels: Int[np.ndarray, " chain"]
    separation: Float[np.ndarray, "chain chain"]

    @property
    def count(self) -> int:
        """Modes."""
        return int(self.labels.max()) + 1


@dataclass(frozen=True, kw_only=True)
class ChainMoments:
    """Means and standard deviations of each chain.

    Attributes:
        mean: (chain, column).
        sd: (chain, column).
    """

    mean: Float[np.ndarray, "chain column"]
    sd: Float[np.ndarray, "chain column"]

    @classmethod
    def of(cls, values: Float[np.ndarray, "chain draw column"]) -> "ChainMoments":
        """Accumulated in float64; the standard deviation of what never changes is exactly 0."""
        with np.errstate(invalid="ignore"):  # draws that are not finite
            sd = np.where(values.max(1) == values.min(1), 0.0, values.std(1, dtype=np.float64))
            return cls(mean=values.mean(1, dtype=np.float64), sd=sd)

    @staticmethod
    def join(parts: "Sequence[ChainMoments]") -> "ChainMoments":
        """Those of several chunks of columns, one after the other."""
        return ChainMoments(
            mean=np.concatenate([part.mean for part in parts], axis=1),
            sd=np.concatenate([part.sd for part in parts], axis=1),
        )


def modes_of_weights(moments: ChainMoments, places: ParameterIndex) -> Modes:
    """Chains compared unit by unit, and layer by layer."""

    def worst(difference: np.ndarray) -> float:
        of_units = [
            value
            for values in places.means(difference).values()
            for value in values
            if not np.isnan(value)
        ]
        of_layers = [
            float(difference[where].mean()) for where in places.layers.values() if len(where)
        ]
        return max([*of_units, *of_layers])

    return _modes(moments, worst)


def modes_of_functions(moments: ChainMoments, num_outputs: int) -> Modes:
    """Chains compared point by point; columns are (point, output), the last one fastest."""
    return _modes(
        moments, lambda difference: float(difference.reshape(-1, num_outputs).mean(1).max())
    )


def _modes(moments: ChainMoments, worst: Callable[[np.ndarray], float]) -> Modes:
    chains = len(moments.mean)
    separation = np.zeros((chains, chains))
    for i in range(chains):
        for j in range(i):
            square = (moments.mean[i] - moments.mean[j]) ** 2
            spread = moments.sd[i] ** 2 + moments.sd[j] ** 2
            with np.errstate(divide="ignore", invalid="ignore"):
                # Where nothing varies, chains are apart if they stand in different places.
                difference = np.where(square == 0, 0.0, square / spread)
            separation[i, j] = separation[j, i] = worst(difference)
    _, labels = connected_components(separation <= _APART, directed=False)
    order: Mapping[int, int] = {
        int(label): i for i, label in enumerate(dict.fromkeys(labels.tolist()))
    }
    return Modes(labels=np.array([order[int(label)] for label in labels]), separation=separation)
