"""The split of a gap: the middle third of a feature for testing."""

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.errors import InvalidData


def gap_mask(values: np.ndarray) -> np.ndarray:
    """Return True for the points between the first and second terciles of a feature, inclusive.

    Training on the outer thirds and testing on the middle third evaluates the uncertainty *between*
    the data.

    Args:
        values: (point,).

    Raises:
        InvalidData: if ties leave no points on one side of the gap.

    References:
        Foong et al. (2019), 'In-Between' Uncertainty in Bayesian Neural Networks, arXiv:1906.11537.
    """
    lower, upper = np.quantile(values, [1 / 3, 2 / 3])
    inside = (values >= lower) & (values <= upper)
    if not inside.any() or lower <= values.min() or upper >= values.max():
        raise InvalidData(
            f"the gap feature has too few distinct values ({len(np.unique(values))}), expected "
            "values on both sides of its middle third; choose another with "
            f"{advise_setting('data.gap_feature=COLUMN')}"
        )
    return inside
