"""Count the modes of chains: unaligned, modulo symmetry, and as functions.

Two chains differ in a unit if the means of its weights differ by more than the spread of the
chains,

    (1/n) sum_w (m_w - m'_w)^2 / (s_w^2 + s'_w^2) > 1,

which for two chains is a root mean square R-hat above 1.4. Chains that differ in no unit, and in no
layer as a whole, are in one mode, and so are chains that a third one connects. For aligned chains
this counts modes modulo symmetry. For functions, with points in place of units, it counts modes
that no alignment can join.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float, Int

from bnn_symm.diagnostics.mixing.parameter_index import ParameterIndex
from bnn_symm.summaries import Result

# Limit of the squared difference of means over the sum of variances.
_APART = 1.0


@dataclass(frozen=True, kw_only=True)
class Modes(Result):
    """The modes of chains.

    Attributes:
        labels: (chain,), modes numbered by their first chain.
        separation: (chain, chain), the largest mean of squared differences over sums of variances;
            chains above 1 are separate.
    """

    _keys = ("count", "labels", "separation")

    labels: Int[np.ndarray, " chain"]
    separation: Float[np.ndarray, "chain chain"]

    @property
    def count(self) -> int:
        """Return the number of modes."""
        return int(self.labels.max()) + 1


@dataclass(frozen=True, kw_only=True)
class ChainMoments:
    """Mean and standard deviation of each chain.

    Attributes:
        mean: (chain, column).
        sd: (chain, column).
    """

    mean: Float[np.ndarray, "chain column"]
    sd: Float[np.ndarray, "chain column"]

    @classmethod
    def from_draws(cls, values: Float[np.ndarray, "chain draw column"]) -> "ChainMoments":
        """Compute moments in float64; the standard deviation of a constant is exactly 0."""
        with np.errstate(invalid="ignore"):  # draws that are not finite
            sd = np.where(values.max(1) == values.min(1), 0.0, values.std(1, dtype=np.float64))
            return cls(mean=values.mean(1, dtype=np.float64), sd=sd)

    @staticmethod
    def join(parts: "Sequence[ChainMoments]") -> "ChainMoments":
        """Concatenate the moments of several chunks of columns."""
        return ChainMoments(
            mean=np.concatenate([part.mean for part in parts], axis=1),
            sd=np.concatenate([part.sd for part in parts], axis=1),
        )


def modes_of_weights(moments: ChainMoments, parameter_index: ParameterIndex) -> Modes:
    """Return the modes of chains compared unit by unit, and layer by layer.

    Args:
        moments: Moments of the weights of each chain.
        parameter_index: Layer and unit of each parameter.

    Returns:
        The modes and the separation of the chains.
    """

    def worst(difference: np.ndarray) -> float:
        of_units = [
            value
            for values in parameter_index.means(difference).values()
            for value in values
            if not np.isnan(value)
        ]
        of_layers = [
            float(difference[where].mean())
            for where in parameter_index.layers.values()
            if len(where)
        ]
        return max([*of_units, *of_layers])

    return _modes(moments, worst)


def modes_of_functions(moments: ChainMoments, num_outputs: int) -> Modes:
    """Return the modes of chains compared point by point.

    Args:
        moments: Moments of outputs; columns are (point, output), the last one fastest.
        num_outputs: Number of outputs per point.

    Returns:
        The modes and the separation of the chains.
    """
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
                # If nothing varies, chains are separate if they are at different values.
                difference = np.where(square == 0, 0.0, square / spread)
            separation[i, j] = separation[j, i] = worst(difference)
    _, labels = scipy.sparse.csgraph.connected_components(separation <= _APART, directed=False)
    order: Mapping[int, int] = {
        int(label): i for i, label in enumerate(dict.fromkeys(labels.tolist()))
    }
    return Modes(labels=np.array([order[int(label)] for label in labels]), separation=separation)
