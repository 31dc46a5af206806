"""Checks of the data, the network and the memory before a fit starts."""

from typing import Any

import torch

from bnn_symm.advice import advise
from bnn_symm.arguments import check_finite
from bnn_symm.data import Dataset, Split
from bnn_symm.errors import ConfigError
from bnn_symm.io.memory import check_memory, num_bytes_of
from bnn_symm.models import BayesianModel
from bnn_symm.models.likelihoods import num_columns


def check_points(model: BayesianModel, dataset: Dataset) -> None:
    """Check that the model can be fitted to the data, and that the network is a pure function.

    Args:
        model: the model.
        dataset: its training and validation splits are checked.

    Raises:
        ConfigError: if a part has invalid values, or the network does not match the data.
    """
    for name in ("train", "validation"):
        part = getattr(dataset, name)
        check_finite(f"dataset.{name}.x", part.x)
        check_finite(f"dataset.{name}.y", part.y)
        columns = num_columns(model.likelihood)
        shape = (len(part.x),) if columns == 1 else (len(part.x), columns)
        if part.y.shape != shape:
            raise ConfigError(
                f"dataset.{name}.y: got shape {tuple(part.y.shape)} for {len(part.x)} points, "
                f"expected {shape}, the targets of likelihood {model.likelihood.name}{_hint(part)}"
            )
        if part.weight is not None:
            _check_weight(f"dataset.{name}.weight", part.weight, len(part))
        if dataset.task == "classification" and len(part.y):
            _check_classes(f"dataset.{name}.y", part.y, dataset.num_outputs)
    model.check_function(model.inputs(dataset.train.x))
    wanted = model.likelihood.num_net_outputs(dataset.num_outputs)
    if model.num_outputs != wanted:
        raise ConfigError(
            f"the network has {model.num_outputs} outputs, expected {wanted} for these data with "
            f"likelihood {model.likelihood.name}; change its last layer"
        )


def _hint(part: Split) -> str:
    """Return what to do if counts have exposures that the likelihood does not read."""
    if part.y.dim() == 2 and part.y.shape[1] == 2:
        return "; for counts with exposures create it with exposure=True"
    return ""


def _check_weight(name: str, weight: torch.Tensor, length: int) -> None:
    check_finite(name, weight)
    if weight.shape != (length,) or (weight < 0).any() or (length and not weight.any()):
        raise ConfigError(
            f"{name}: got shape {tuple(weight.shape)} and a smallest value of "
            f"{float(weight.min()) if weight.numel() else 0:g}, expected ({length},) numbers of 0 "
            "or more that are not all 0"
        )


def _check_classes(name: str, y: torch.Tensor, number: int) -> None:
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ConfigError(
            f"{name}: got a tensor of {y.dtype}, expected class indices; convert it with .long()"
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= number:
        raise ConfigError(
            f"{name}: got classes from {low} to {high}, expected indices from 0 to {number - 1} "
            "(num_outputs - 1)"
        )


def draws_shape(method: Any, model: BayesianModel) -> tuple[int, int, int]:
    """Return (chain, draw, parameter), the shape of the draws that a fit stores.

    Args:
        method: the inference method. Methods that fit a parametric distribution store no draws.
        model: the model.
    """
    chains = getattr(method, "num_chains", getattr(method, "num_members", 1))
    draws = getattr(method, "num_draws", 1) if method.is_sampler else 1
    return chains, draws, model.num_parameters


def check_draws(method: Any, model: BayesianModel) -> None:
    """Check that the draws of a fit fit into memory.

    Args:
        method: the inference method. Methods that fit a parametric distribution store no draws.
        model: the model.

    Raises:
        NotEnoughMemory: if the draws need more memory than is available.
    """
    chains, draws, _ = shape = draws_shape(method, model)
    check_memory(
        num_bytes_of(shape, model.dtype.itemsize),
        f"a posterior of {chains} chains of {draws} draws of {model.num_parameters} parameters",
        advise(
            "lower inference.num_draws or inference.num_chains",
            "lower num_draws or num_chains, or use fit_run, which stores draws on disk",
        ),
    )
