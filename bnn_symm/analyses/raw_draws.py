"""Diagnose draws of another tool without a network and without data.

The views that need neither are: raw weights, each chain against itself, the statistics of the
sampler, and chains that are copies of one another. R-hat of raw weights depends on the numbering of
units, so a large value is not evidence against mixing. Predictions, aligned weights, the ELBO and
calibration are not available.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnn_symm.analyses.mixing import no_mixing
from bnn_symm.diagnostics.mixing.chain_statistics import chain_statistics
from bnn_symm.diagnostics.mixing.copies import Copies, copied_draws
from bnn_symm.diagnostics.mixing.sampler_statistics import sampler_statistics
from bnn_symm.diagnostics.mixing.views import MixingSummary, effective_draws, judge, judge_chainwise
from bnn_symm.posteriors.external.external_draws import join_chains, read_netcdf

_UNKNOWN = (
    "not known without data and a network: name them with --config or --set data.name=..., and "
    "--module or architecture.name"
)


def diagnose_draws(paths: Sequence[str | Path]) -> dict[str, Any]:
    """Return the diagnosis of NetCDF files of chains, with the keys of `diagnosis.json`.

    Args:
        paths: files, whose chains are taken together.

    Raises:
        InvalidRun: if a file cannot be read, or files do not fit together.
    """
    draws = join_chains([read_netcdf(path) for path in paths], paths)
    values, tensors = _flat(draws.arrays)
    chunks = (torch.from_numpy(chain).double() for chain in values)
    copies = copied_draws(chunks, values.shape, tensors)
    halves = [
        chain_statistics(
            np.stack([chain[: len(chain) // 2 or 1], chain[-(len(chain) // 2 or 1) :]])
        )
        for chain in values
    ]
    whole = chain_statistics(values)
    raw = _without_copies(
        judge("raw", whole, effective=effective_draws(halves)), copies, bool(copies)
    )
    chainwise = _without_copies(judge_chainwise(halves, whole), copies, bool(copies.repeats))
    sampler = sampler_statistics(draws.sample_stats)
    usable, conclusion = _conclusion(
        raw, chainwise, copies, None if sampler is None else sampler.problems
    )
    usable = False if sampler is not None and sampler.biased else usable
    mixing = {
        **no_mixing(conclusion),
        "reason": _UNKNOWN,
        "usable": usable,
        "copies": copies.to_dict(),
        "raw": {**raw.to_dict(), "verdict": _verdict(raw)},
        "chainwise": {**chainwise.to_dict(), "verdict": _verdict(chainwise)},
        "sampler": None if sampler is None else dataclasses.asdict(sampler),
        "next": "for predictions and aligned weights, name the data and the network (--config, "
        "--set, --module)",
    }
    elbo = {"value": None, "conclusion": _UNKNOWN, "reason": _UNKNOWN}
    files = [str(path) for path in paths]
    return {
        "runs": files,
        "warnings": [],
        "mixing": mixing,
        "elbo": elbo,
        "calibration": None,
        "convergence": None,
    }


def _flat(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, list[slice]]:
    """Return all arrays side by side, (chain, draw, column), and the columns of each."""
    parts = [array.reshape(*array.shape[:2], -1) for array in arrays.values()]
    ends = np.cumsum([part.shape[2] for part in parts])
    return np.concatenate(parts, axis=2), [
        slice(int(end) - part.shape[2], int(end)) for part, end in zip(parts, ends, strict=True)
    ]


def _without_copies(view: MixingSummary, copies: Copies, is_void: bool) -> MixingSummary:
    """Return the view, with status "no evidence" where copies of chains or draws make it void."""
    if is_void and view.status in ("pass", "too few draws"):
        return view.with_status("no evidence", "; ".join(copies.sentences))
    return view


def _verdict(view: MixingSummary) -> str:
    """Return the status of a view and its reason."""
    return view.status if view.reason is None else f"{view.status}: {view.reason}"


def _conclusion(
    raw: MixingSummary, chainwise: MixingSummary, copies: Copies, problems: Sequence[str] | None
) -> tuple[bool | None, str]:
    """Return whether the draws can be used for predictions, and a sentence.

    Without a network, only a defect decides.
    """
    if copies:
        return (
            False,
            f"{'; '.join(copies.sentences)}. R-hat and ESS of repeated draws do not describe the "
            "posterior",
        )
    if problems:
        return None, f"{problems[0]}. Whether chains agree as functions is {_UNKNOWN}"
    if chainwise.status == "fail":
        return (
            None,
            f"chains are not stationary: {chainwise.reason}. Whether they agree as functions is "
            f"{_UNKNOWN}",
        )
    agree = (
        "raw weights of the chains agree"
        if raw.status == "pass"
        else f"raw weights: {_verdict(raw)}"
    )
    return None, f"{agree}. Whether chains agree as functions is {_UNKNOWN}"
