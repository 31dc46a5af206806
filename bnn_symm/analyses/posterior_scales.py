"""Compare posterior and prior standard deviations layer by layer, as plain data."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bnn_symm.diagnostics.mixing.parameter_index import ParameterIndex
from bnn_symm.posteriors import Posterior, SamplePosterior

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Levels of the quantiles over the weights of a layer."""


def describe_posterior_scales(posterior: Posterior) -> dict[str, Any]:
    """Return quantiles, over the weights of each layer, of posterior scales and |mean| / sd.

    Args:
        posterior: the posterior.

    Returns:
        `quantiles`: the levels; `reason`: why there are no layers, or None; `note`: how to
        interpret several chains, or None; `layers`: name -> `num_parameters`, `sd` and
        `signal_to_noise` (one number for each level), `prior_sd` (the smallest and the largest of
        its weights), `narrowed` (the median of posterior over prior sd), `told_from_zero` (the
        fraction of weights with |mean| > sd) and `num_constant` (the number of constant weights,
        which are left out).
    """
    chains, draws, _ = posterior.shape
    content: dict[str, Any] = {
        "quantiles": list(QUANTILES),
        "reason": None,
        "note": None,
        "layers": {},
    }
    if isinstance(posterior, SamplePosterior):
        if chains * draws == 1:
            return content | {"reason": "one draw has no standard deviation"}
        if chains > 1:
            content["note"] = (
                f"over {chains} chains together: if they permute units differently, or are in "
                "different modes, the standard deviations are those of the mixture"
            )
    sd = posterior.standard_deviation().double().cpu().numpy()
    mean = posterior.mean().double().cpu().numpy()
    prior = posterior.model.prior_standard_deviations(torch.empty(0, dtype=torch.float64)).numpy()
    for layer, where in ParameterIndex(posterior.model, None).layers.items():
        content["layers"][layer] = _layer_scales(mean[where], sd[where], prior[where])
    if all(layer["sd"] is None for layer in content["layers"].values()):
        return content | {"reason": "no weight ever changes"}
    return content


def _layer_scales(mean: np.ndarray, sd: np.ndarray, prior: np.ndarray) -> Mapping[str, Any]:
    """Return the quantiles of one layer."""
    varies = sd > 0
    scales: dict[str, Any] = {
        "num_parameters": len(sd),
        "num_constant": int((~varies).sum()),
        "prior_sd": [float(prior.min()), float(prior.max())],
    }
    if not varies.any():
        return scales | dict.fromkeys(("sd", "signal_to_noise", "narrowed", "told_from_zero"))
    mean, sd, prior = mean[varies], sd[varies], prior[varies]
    ratio = np.abs(mean) / sd
    return scales | {
        "sd": [float(value) for value in np.quantile(sd, QUANTILES)],
        "signal_to_noise": [float(value) for value in np.quantile(ratio, QUANTILES)],
        "narrowed": float(np.median(sd / prior)),
        "told_from_zero": float((ratio > 1).mean()),
    }
