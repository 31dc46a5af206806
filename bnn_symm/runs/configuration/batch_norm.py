"""Choose the statistics of frozen batch norm for a fit that starts at other weights.

Statistics belong to the weights at which they were computed. A fit that starts at a run, or at the
mean of its prior, takes the statistics from there.
"""

import copy
import dataclasses

import torch
from torch import Tensor, nn

from bnn_symm.architectures import (
    BatchNormReport,
    estimate_statistics,
    first_inputs,
    frozen_layers,
)
from bnn_symm.models import BayesianModel, PriorMean


def batch_norm_report(net: nn.Module) -> BatchNormReport | None:
    """Return what replaced the batch norm of a network; None if it had none.

    Args:
        net: the network.
    """
    report = getattr(net, "batch_norm_report", None)
    return report if isinstance(report, BatchNormReport) else None


@torch.no_grad()
def statistics_at_prior_mean(model: BayesianModel, mean: PriorMean, points: Tensor) -> None:
    """Replace estimated statistics by those of a prior mean, or estimate them at the prior mean.

    Args:
        model: the model, whose network is changed in place.
        mean: the mean with everything that its run or file holds.
        points: training inputs.
    """
    report = batch_norm_report(model.net)
    if report is None or not report.estimated:
        return
    if _load(model.net, mean.weights, report, "the mean of the prior"):
        return
    clone = copy.deepcopy(model.net)
    values = model.unflatten(model.initial())
    for name, parameter in clone.named_parameters():
        parameter.copy_(values[name])
    estimate_statistics(clone, model.inputs(first_inputs(points)), report.estimated)
    _load(model.net, dict(clone.named_buffers()), report, None)


@torch.no_grad()
def statistics_of_run(model: BayesianModel, source: BayesianModel, path: str) -> None:
    """Replace estimated statistics by those of the network of a run.

    Args:
        model: the model, whose network is changed in place.
        source: the model of the run.
        path: the path of the run.
    """
    report = batch_norm_report(model.net)
    if report is not None and report.estimated:
        _load(model.net, dict(source.net.named_buffers()), report, path)


def _load(
    net: nn.Module, state: dict[str, Tensor], report: BatchNormReport, taken_from: str | None
) -> bool:
    """Copy the statistics of the layers of a report, if a state dict has all of them."""
    layers = frozen_layers(net)
    pairs = [
        (getattr(layers[layer], key), state.get(f"{layer}.{key}" if layer else key))
        for layer in report.estimated
        for key in layers[layer].unit_statistics
    ]
    if any(value is None or value.shape != buffer.shape for buffer, value in pairs):
        return False
    for buffer, value in pairs:
        assert value is not None
        buffer.copy_(value)
    if taken_from is not None:
        net.batch_norm_report = dataclasses.replace(  # pyright: ignore[reportArgumentType]
            report, estimated=[], num_points=0, taken_from=taken_from
        )
    return True
