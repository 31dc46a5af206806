"""What a prior means, beside other scales of it, as plain data: the content of `bnn-symm prior
--json`.
"""

import dataclasses
import math
from typing import Any

import torch

from bnn_symm.data import Dataset
from bnn_symm.diagnostics.simulation.prior_predictive import (
    PriorPredictive,
    prior_functions,
    prior_predictive,
)
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel
from bnn_symm.runs.configuration.prepare import Prepared

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
# A median variation within this factor of the data's is of their size; the mean over functions of a
# class probability above this limit is as good as a decision before any data.
_FACTOR, _DECIDED = 3.0, 0.9
# Functions drawn as curves, points of a curve, and how far it runs beyond the data, as a fraction
# of their range.
_CURVES, _GRID, _MARGIN = 20, 200, 0.5
# In place of 0, where functions or targets do not vary at all.
_TINY = 1e-30


def describe_prior(prepared: Prepared, *, num_draws: int) -> dict[str, Any]:
    """Functions of the prior in numbers, those of other scales, what to think of them, and what to
    type next.

    Args:
        prepared: data and model of a configuration.
        num_draws: functions of every prior.

    Raises:
        ConfigError: for fewer than two draws, or functions that all overflow.
    """
    model, dataset, seed = prepared.model, prepared.dataset, prepared.config.seed
    found = prior_predictive(model, dataset, num_draws=num_draws, seed=seed)
    own = {"prior.scale": model.prior.scale, **_numbers(found)}
    others = [
        _other(model, dataset, scale, num_draws, seed) for scale in _other_scales(model.prior.scale)
    ]
    content = {
        "data": dataset.name,
        "task": dataset.task,
        "architecture": prepared.config.architecture.name,
        "prior": model.prior.name,
        "draws": num_draws,
        "num_outputs": dataset.num_outputs,
        "levels": list(LEVELS),
        "of_data": found.data,
        "own": own,
        "others": others,
        "sd_at_points": None
        if found.sd_at_points is None
        else [
            float(value)
            for value in torch.quantile(
                torch.from_numpy(found.sd_at_points), torch.tensor(LEVELS).double()
            )
        ],
        "curves": _curves(model, dataset, num_draws, seed),
    }
    return {**content, **_judged(content)}


def _other_scales(scale: float | str) -> list[float | str]:
    """A few of which one may be what the data need."""
    if isinstance(scale, str):
        return [1.0, 0.3, 0.1] if scale == "fan_in" else ["fan_in"]
    return ["fan_in", float(f"{scale / 3:.1g}"), float(f"{scale * 3:.1g}")]


def _other(
    model: BayesianModel, dataset: Dataset, scale: float | str, num_draws: int, seed: int
) -> dict[str, Any]:
    prior = dataclasses.replace(model.prior, scale=scale)
    try:
        found = prior_predictive(
            BayesianModel(model.net, prior, model.likelihood),
            dataset,
            num_draws=num_draws,
            seed=seed,
        )
    except ConfigError as error:  # all of its functions overflow
        return {"prior.scale": scale, "error": str(error)}
    return {"prior.scale": scale, **_numbers(found)}


def _numbers(found: PriorPredictive) -> dict[str, Any]:
    return {
        "quantiles": {name: found.quantiles(name, LEVELS) for name in found.functions},
        "functions": {
            name: [float(value) for value in values] for name, values in found.functions.items()
        },
        "overflowing": found.overflowing,
    }


def _median(own: dict[str, Any], quantity: str) -> float:
    return own["quantiles"][quantity][LEVELS.index(0.5)]


def _judged(content: dict[str, Any]) -> dict[str, Any]:
    """A verdict in words, and if it is not good, the scale of those tried whose functions are most
    like the data.
    """
    usable = [other for other in content["others"] if "error" not in other]
    classes = content["task"] == "classification"
    quantity = "classes" if classes else "variation"
    wanted = max(content["of_data"][quantity], _TINY)
    best = min(usable, key=lambda other: _distance(_median(other, quantity), wanted), default=None)
    own = _distance(_median(content["own"], quantity), wanted)
    if best is not None and _distance(_median(best, quantity), wanted) >= own:
        best = None  # none of those tried is nearer to the data
    if classes:
        confidence = _median(content["own"], "confidence")
        verdict = "decided" if confidence > _DECIDED else "open"
        said = f"the median function gives the most likely class {confidence:.3g} of the probability, on average"
        told = f"a mean largest probability of {_median(best, 'confidence'):.3g}" if best else None
    else:
        ratio = _median(content["own"], quantity) / wanted
        verdict = (
            "too flat"
            if ratio < 1 / _FACTOR
            else "too wild"
            if ratio > _FACTOR
            else "of their size"
        )
        said = f"the median function varies {ratio:.3g} times as much as the targets"
        told = (
            f"functions that vary {_median(best, quantity) / wanted:.3g} times as much"
            if best
            else None
        )
    fine = verdict in ("open", "of their size")
    return {
        "verdict": verdict,
        "said": said,
        "next": None
        if fine or best is None
        else f"--set prior.scale={best['prior.scale']} gives {told}",
    }


def _distance(value: float, wanted: float) -> float:
    """As factors are, the same up and down."""
    return abs(math.log(max(value, _TINY) / wanted))


def _curves(
    model: BayesianModel, dataset: Dataset, num_draws: int, seed: int
) -> dict[str, Any] | None:
    """Some functions of a regression on one input, in the units of the data."""
    if dataset.input_shape != (1,) or dataset.task == "classification":
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
        "data_y": (scaling.y_mean + scaling.y_scale * part.y.double()).tolist(),
    }
