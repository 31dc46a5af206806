"""Describe the functions of a prior at several scales: the content of `bnn-symm prior --json`."""

import dataclasses
import math
from typing import Any

import torch

from bnn_symm.advice import advise_setting
from bnn_symm.data import Dataset
from bnn_symm.data.points import rates
from bnn_symm.diagnostics.simulation.prior_predictive import (
    PriorPredictive,
    prior_functions,
    prior_predictive,
)
from bnn_symm.errors import ConfigError
from bnn_symm.formatting import number
from bnn_symm.models import BayesianModel
from bnn_symm.runs.configuration.prepare import Prepared

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
# A median variation within this factor of that of the data has their size. A mean largest class
# probability above this limit amounts to a decision before any data.
_FACTOR, _DECIDED = 3.0, 0.9
# Number of functions drawn as curves, points of a curve, and its extent beyond the data as a
# fraction of their range.
_CURVES, _GRID, _MARGIN = 20, 200, 0.5
# Lower bound of variations, for functions or targets that do not vary at all.
_TINY = 1e-30


def describe_prior(prepared: Prepared, *, num_draws: int) -> dict[str, Any]:
    """Describe the functions of a prior, compare other scales, and advise on the scale.

    Args:
        prepared: data and model of a configuration.
        num_draws: the number of functions drawn from each prior.

    Returns:
        The content of `bnn-symm prior --json`.

    Raises:
        ConfigError: for fewer than two draws, or if all functions overflow.
    """
    model, dataset, seed = prepared.model, prepared.dataset, prepared.config.seed
    predictive = prior_predictive(model, dataset, num_draws=num_draws, seed=seed)
    numbers = {"prior.scale": model.prior.scale, **_numbers(predictive)}
    others = [
        _other(model, dataset, scale, num_draws, seed) for scale in _other_scales(model.prior.scale)
    ]
    content = {
        "data": dataset.name,
        "task": dataset.task,
        "architecture": prepared.config.architecture.name,
        "prior": model.prior.family_name,
        "draws": num_draws,
        "num_outputs": dataset.num_outputs,
        "levels": list(LEVELS),
        "of_data": predictive.data,
        "own": numbers,
        "others": others,
        "sd_at_points": None
        if predictive.sd_at_points is None
        else [
            float(value)
            for value in torch.quantile(
                torch.from_numpy(predictive.sd_at_points), torch.tensor(LEVELS).double()
            )
        ],
        "curves": _curves(model, dataset, num_draws, seed),
    }
    return {**content, **_verdict(content)}


def _other_scales(scale: float | str) -> list[float | str]:
    """Return a few other scales to compare with."""
    if isinstance(scale, str):
        return [1.0, 0.3, 0.1] if scale == "fan_in" else ["fan_in"]
    return ["fan_in", float(f"{scale / 3:.1g}"), float(f"{scale * 3:.1g}")]


def _other(
    model: BayesianModel, dataset: Dataset, scale: float | str, num_draws: int, seed: int
) -> dict[str, Any]:
    """Return the numbers of the prior at another scale, or the error if all functions overflow."""
    prior = dataclasses.replace(model.prior, scale=scale)
    try:
        predictive = prior_predictive(
            BayesianModel(model.net, prior, model.likelihood),
            dataset,
            num_draws=num_draws,
            seed=seed,
        )
    except ConfigError as error:
        return {"prior.scale": scale, "error": str(error)}
    return {"prior.scale": scale, **_numbers(predictive)}


def _numbers(predictive: PriorPredictive) -> dict[str, Any]:
    """Return the quantities of the functions of a prior as plain data."""
    return {
        "quantiles": {name: predictive.quantiles(name, LEVELS) for name in predictive.functions},
        "functions": {
            name: [float(value) for value in values]
            for name, values in predictive.functions.items()
        },
        "overflowing": predictive.overflowing,
    }


def _median(content: dict[str, Any], quantity: str) -> float:
    """Return the median of a quantity."""
    return content["quantiles"][quantity][LEVELS.index(0.5)]


def _verdict(content: dict[str, Any]) -> dict[str, Any]:
    """Return the verdict, and advice: the compared scale whose functions are most like the data."""
    usable = [other for other in content["others"] if "error" not in other]
    classes = content["task"] == "classification"
    quantity = "classes" if classes else "variation"
    target = max(content["of_data"][quantity], _TINY)
    best = min(usable, key=lambda other: _distance(_median(other, quantity), target), default=None)
    distance = _distance(_median(content["own"], quantity), target)
    if best is not None and _distance(_median(best, quantity), target) >= distance:
        best = None  # None of the compared scales is nearer to the data.
    if classes:
        confidence = _median(content["own"], "confidence")
        verdict = "decided" if confidence > _DECIDED else "open"
        sentence = (
            "the median function gives the most likely class a probability of "
            f"{number(confidence)}, on average"
        )
        gain = (
            f"a mean largest probability of {number(_median(best, 'confidence'))}" if best else None
        )
    else:
        ratio = _median(content["own"], quantity) / target
        verdict = (
            "too flat"
            if ratio < 1 / _FACTOR
            else "too wild"
            if ratio > _FACTOR
            else "of their size"
        )
        sentence = f"the median function varies {number(ratio)} times as much as the targets"
        gain = (
            f"functions that vary {number(_median(best, quantity) / target)} times as much"
            if best
            else None
        )
    fine = verdict in ("open", "of their size")
    return {
        "verdict": verdict,
        "said": sentence,
        "next": None
        if fine or best is None
        else f"{advise_setting('prior.scale=' + str(best['prior.scale']))} gives {gain}",
    }


def _distance(value: float, target: float) -> float:
    """Return the absolute log ratio of a value and its target."""
    return abs(math.log(max(value, _TINY) / target))


def _curves(
    model: BayesianModel, dataset: Dataset, num_draws: int, seed: int
) -> dict[str, Any] | None:
    """Return some functions of a regression on one input, in the units of the data."""
    if dataset.input_shape != (1,) or dataset.task in ("classification", "survival"):
        return None
    part, scaling = dataset.train, dataset.scaling
    low, high = float(part.x.min()), float(part.x.max())
    margin = _MARGIN * (high - low)
    grid = torch.linspace(low - margin, high + margin, _GRID, dtype=part.x.dtype)[:, None]
    functions = (
        prior_functions(model, dataset, min(num_draws, _CURVES), seed=seed)
        .predict(grid)
        .draw_mean()[0]
    )
    mean, scale = float(scaling.x_mean[0]), float(scaling.x_scale[0])
    return {
        "input": dataset.feature_names[0],
        "target": dataset.preprocessing.target or "y",
        "x": (mean + scale * grid[:, 0].double()).tolist(),
        "y": functions.tolist(),
        "data_x": (mean + scale * part.x[:, 0].double()).tolist(),
        "data_y": (scaling.y_mean + scaling.y_scale * rates(part).double()).tolist(),
    }
