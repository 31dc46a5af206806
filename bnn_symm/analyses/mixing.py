"""Describe how the chains of a posterior mix: the key `mixing` of `bnn-symm diagnose --json`."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics import mixing, sampler_statistics, verdicts
from bnn_symm.diagnostics.mixing.mixing import Mixing
from bnn_symm.diagnostics.mixing.views import MixingSummary
from bnn_symm.inference import Method
from bnn_symm.posteriors import LazyDraws, Posterior, SamplePosterior

_VIEWS = ("raw", "aligned", "chainwise", "function")


def held_out_part(dataset: Dataset) -> tuple[str, Split]:
    """Return name and points of the part on which functions are compared.

    Args:
        dataset: the data.

    Returns:
        The first part with points among test, validation and train.
    """
    for name in ("test", "validation", "train"):
        part = getattr(dataset, name)
        if len(part):
            return name, part
    raise AssertionError("a data set has points")


def no_mixing(reason: str) -> dict[str, Any]:
    """Return the content of `mixing` for a posterior without chains.

    Args:
        reason: why there are none.
    """
    keys = (*_VIEWS, "aligned_per_draw", "modes", "sampler", "usable", "next", "part", "num_points")
    nothing = dict.fromkeys((*keys, "frozen_chains", "decided_by", "copies"))
    return {"conclusion": reason, "reason": reason, **nothing}


def describe_mixing(
    posterior: Posterior,
    dataset: Dataset,
    *,
    method: Method | None = None,
    per_draw: bool = True,
    seed: int = 0,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return all views of mixing with their verdicts, and traces to draw.

    Args:
        posterior: the posterior; without chains, a reason is returned.
        dataset: the data with the held-out points.
        method: settings of the fit, for the sampler's target and the advice.
        per_draw: whether draws are also aligned one by one.
        seed: the seed of alignments and of draws of the prior.

    Returns:
        The content of `mixing`, and the panels of traces.
    """
    if not isinstance(posterior, SamplePosterior):
        return no_mixing(
            "a closed form has no chains: its draws are independent. Fit several seeds and "
            "diagnose them together"
        ), []
    name, part = held_out_part(dataset)
    result = mixing(posterior, part, per_draw=per_draw, seed=seed)
    sampler = sampler_statistics(
        posterior.sample_stats,
        max_tree_depth=getattr(method, "max_tree_depth", None),
        target=getattr(method, "target_accept_prob", None),
    )
    interpretation = verdicts(result, sampler, method)
    content: dict[str, Any] = {
        "conclusion": interpretation.conclusion,
        "next": interpretation.next,
        "usable": interpretation.usable,
        "decided_by": [quantity.to_dict() for quantity in interpretation.evidence],
        "copies": result.copies.to_dict(),
        "part": name,
        "num_points": result.values.num_points,
    }
    for key, view in result.views.items():
        verdict = interpretation.views.get(key)
        content[key] = view.to_dict() | ({} if verdict is None else {"verdict": verdict.text})
    for key in ("raw", "chainwise"):
        content[key] |= _by_layer_and_unit(result, getattr(result, key))
    for key, aligned, reason in (
        ("aligned", result.aligned, result.aligned_reason),
        ("aligned_per_draw", result.per_draw, result.per_draw_reason),
    ):
        missing = {"status": "undefined", "reason": reason, "verdict": f"not computed: {reason}"}
        content[key] = content.get(key, missing)
        if aligned is not None:
            content[key] |= aligned.to_dict() | _by_layer_and_unit(result, aligned.view)
    content["function"] |= _by_function_kind(result)
    content["chainwise"]["by_chain"] = list(result.by_chain)
    content["frozen_chains"] = list(result.frozen)
    modes = {key: getattr(result, f"{key}_modes") for key in ("raw", "aligned", "function")}
    content["modes"] = {key: own and own.to_dict() for key, own in modes.items()}
    content["sampler"] = None if sampler is None else dataclasses.asdict(sampler)
    return content, _traces(result, posterior, name)


def _by_layer_and_unit(result: Mixing, view: MixingSummary) -> dict[str, Any]:
    """Return the numbers by layer, and the largest R-hat of each hidden unit."""
    layers = {layer: view.numbers(where) for layer, where in result.parameter_index.layers.items()}
    units = {
        group: [_plain(value) for value in values]
        for group, values in result.parameter_index.largest(
            np.where(view.constant, np.nan, view.rhat)
        ).items()
    }
    return {"by_layer": layers, "rhat_max_by_unit": units}


def _by_function_kind(result: Mixing) -> dict[str, Any]:
    """Return the numbers of function values by kind: outputs, points and log likelihood."""
    outputs = result.values.outputs[0, 0].size
    total = len(result.function.rhat) - 1
    kinds = {
        "outputs": np.arange(outputs),
        "points": np.arange(outputs, total),
        "log_likelihood": np.array([total]),
    }
    return {"by_kind": {kind: result.function.numbers(where) for kind, where in kinds.items()}}


def _traces(result: Mixing, posterior: SamplePosterior, part: str) -> list[dict[str, Any]]:
    """Return traces of the weight with the largest R-hat and of the log likelihood.

    The weight is traced raw and aligned.
    """
    if posterior.shape[1] == 1:
        return []
    panels = []
    index = _worst_weight(result)
    if index is not None:
        name = _parameter_name(result, index)
        panels.append({"title": f"{name}, raw", "values": _column(posterior, index)})
        if result.aligned is not None and not result.aligned.group.is_trivial:
            values = _column(result.aligned.posterior, index)
            panels.append({"title": f"{name}, aligned (one permutation a chain)", "values": values})
    title = f"log likelihood of {result.values.num_points} {part} points, nats"
    return [*panels, {"title": title, "values": result.values.log_likelihood}]


def _worst_weight(result: Mixing) -> int | None:
    """Return the index of the weight with the largest R-hat, preferably of a hidden unit."""
    unit_weights = [
        index
        for indices in result.parameter_index.units.values()
        for index in indices
        if len(index)
    ]
    where = (
        np.unique(np.concatenate(unit_weights)) if unit_weights else np.arange(len(result.raw.rhat))
    )
    rhat = np.where(result.raw.constant, np.nan, result.raw.rhat)[where]
    return None if np.isnan(rhat).all() else int(where[np.nanargmax(rhat)])


def _parameter_name(result: Mixing, index: int) -> str:
    """Return the name of a coordinate of the flat vector: its tensor and the index within it."""
    model = result.parameter_index.model
    name, where = next(
        (name, where) for name, where in model.slices().items() if where.start <= index < where.stop
    )
    place = np.unravel_index(index - where.start, model.shapes[name]) if model.shapes[name] else ()
    return f"{name}[{', '.join(str(int(i)) for i in place)}]" if place else name


def _column(posterior: SamplePosterior, index: int) -> np.ndarray:
    """Return the draws of one coordinate, (chain, draw)."""
    chains, draws, _ = posterior.shape
    values = torch.cat([chunk[:, index].cpu() for chunk in posterior.iter_draws()])
    return values.unflatten(0, (chains, draws)).double().numpy()


def _plain(value: float) -> float | None:
    """Return a finite number as a float, and None for others."""
    return float(value) if math.isfinite(value) else None


def concatenate_chains(posteriors: Sequence[Posterior]) -> SamplePosterior:
    """Return a posterior whose chains are those of several; draws of a closed form are a chain.

    Args:
        posteriors: posteriors in one parameter space.
    """
    first = posteriors[0]
    stats: Mapping[str, np.ndarray] = {}
    if all(isinstance(p, SamplePosterior) and p.sample_stats for p in posteriors):
        samples = [p for p in posteriors if isinstance(p, SamplePosterior)]
        draws = min(p.shape[1] for p in samples)
        shared = set.intersection(*(set(p.sample_stats) for p in samples))
        stats = {
            name: np.concatenate([p.sample_stats[name][:, :draws] for p in samples])
            for name in sorted(shared)
        }
    with torch.no_grad():
        return SamplePosterior(
            first.model,
            first.scaling,
            positions=LazyDraws.stack([posterior.positions for posterior in posteriors]),
            sample_stats=stats,
        )
