"""Everything that `bnn-symm diagnose` tells of runs, as plain data, and what its pictures are drawn
from.

Of one run: convergence, mixing, the ELBO, calibration. Of several: the same of each under `each`,
    convergence of all
side by side, and, where their weights mean the same, the mixing of their chains taken together
(draws of a closed form are a chain), which says whether fits from different seeds agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bnn_symm.analyses.calibration import describe_calibration
from bnn_symm.analyses.convergence.report import describe_convergence
from bnn_symm.analyses.elbo import describe_elbo
from bnn_symm.analyses.mixing import describe_mixing, joined, no_mixing
from bnn_symm.diagnostics.mixing.chain_statistics import MIN_DRAWS
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.inference import Method
from bnn_symm.posteriors import ClosedFormPosterior
from bnn_symm.runs.compatibility import check_comparable
from bnn_symm.runs.run import NoPosterior, Run
from bnn_symm.threads import use_threads

_APPROXIMATIONS = (
    "fits that differ are different approximations of one posterior: compare their ELBOs, or read "
    "their predictions as a mixture"
)

OnProgress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found.

    Attributes:
        content: of `diagnosis.json`.
        traces: of each run, to draw; of several runs those of their chains together come first.
    """

    content: dict[str, Any]
    traces: list[list[dict[str, Any]]]


def diagnose(
    runs: Sequence[Run],
    *,
    target: str | None = None,
    per_draw: bool = True,
    seed: int = 0,
    on_progress: OnProgress = lambda stage: None,
) -> Diagnosis:
    """Diagnoses runs, one by one and together.

    Args:
        runs: one or more.
        target: that convergence is timed to; see `describe_convergence`.
        per_draw: align draws one by one too, which takes longest.
        seed: of alignments, of draws of the prior and of resamples.
        on_progress: called with a description of each stage when it begins.

    Raises:
        ConfigError: if the target cannot be read, or one run is named twice.
        InvalidRun: if the data of a run changed since its fit.
    """
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise ConfigError(
            "one run is named twice; its chains would count as independent: name each once"
        )
    on_progress("data")
    for run in runs:
        run.dataset()  # whether they changed since a fit is better said now than after the work
    on_progress("convergence")
    content: dict[str, Any] = {"runs": [str(run.path) for run in runs], "warnings": []}
    convergence = describe_convergence(runs, target=target)
    each, traces = [], []
    for run in runs:
        own, panels = _one(run, per_draw, seed, on_progress)
        each.append(own)
        traces.append(panels)
    first = each[0]
    if len(runs) == 1:
        content |= {key: first[key] for key in ("mixing", "elbo", "calibration")}
    else:
        mixing, panels, warnings = _together(runs, each, per_draw, seed, on_progress)
        content |= {"mixing": mixing, "elbo": _best(each), "calibration": None, "each": each}
        content["warnings"] = warnings
        traces = [panels, *traces]
    return Diagnosis(content={**content, "convergence": convergence}, traces=traces)


def _one(
    run: Run, per_draw: bool, seed: int, on_progress: OnProgress
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    name = run.path.name
    try:
        posterior = run.posterior
    except NoPosterior as error:
        reason = str(error)
        elbo = {"value": None, "conclusion": reason, "reason": reason}
        return {
            "run": str(run.path),
            "mixing": no_mixing(reason),
            "elbo": elbo,
            "calibration": None,
        }, []
    with use_threads(run.threads):
        on_progress(f"mixing of {name}")
        method = _method(run)
        if method is not None and method.has_independent_draws:
            mixing, traces = (
                no_mixing(f"not told: draws of {method.name} are independent, there are no chains"),
                [],
            )
        else:
            mixing, traces = describe_mixing(
                posterior, run.dataset(), method=method, per_draw=per_draw, seed=seed
            )
        on_progress(f"ELBO of {name}")
        elbo = describe_elbo(run)
        on_progress(f"calibration of {name}")
        calibration = describe_calibration(run)
    return {
        "run": str(run.path),
        "mixing": mixing,
        "elbo": elbo,
        "calibration": calibration,
    }, traces


def _together(
    runs: Sequence[Run],
    each: Sequence[dict[str, Any]],
    per_draw: bool,
    seed: int,
    on_progress: OnProgress,
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """Mixing of all chains of all runs, or why there is none."""
    reason = next((own["mixing"]["reason"] for own in each if own["calibration"] is None), None)
    warnings: list[str] = []
    if reason is None:
        try:
            warnings = check_comparable(runs)
        except IncompatiblePosteriors as error:
            reason = str(error)
    if reason is None:
        reason = _other_posteriors(runs)
    if reason is None:
        reason, cut = _lengths(runs)
        warnings = [*warnings, *cut]
    if reason is not None:
        return no_mixing(f"not told of the runs together: {reason}"), [], warnings
    on_progress("mixing of all runs together")
    with use_threads(runs[0].threads):
        mixing, traces = describe_mixing(
            joined([run.posterior for run in runs]),
            runs[0].dataset(),
            method=_method(runs[0])
            if all(_method(run) == _method(runs[0]) for run in runs)
            else None,
            per_draw=per_draw,
            seed=seed,
        )
    if any(
        isinstance(run.posterior, ClosedFormPosterior) or run.config.inference.has_independent_draws
        for run in runs
    ):
        # Nothing settles in a fitted law, and more draws of it change nothing.
        mixing["conclusion"] = f"draws of a closed form, taken for a chain: {mixing['conclusion']}"
        mixing["next"] = None if mixing["usable"] else _APPROXIMATIONS
    return mixing, traces, warnings


def _method(run: Run) -> Method | None:
    """Settings of the fit; what another tool's sampler aimed at is not known, unless its user said
    so.
    """
    return (
        None if run.record.get("derived", {}).get("method_assumed", False) else run.config.inference
    )


def _other_posteriors(runs: Sequence[Run]) -> str | None:
    """Why fits of one network do not have one posterior to agree on."""
    first = runs[0].config.inference
    for run in runs[1:]:
        own = run.config.inference
        if (own.temperature, own.tempering) != (first.temperature, first.tempering):
            return (
                f"{run.path} has temperature {own.temperature:g} of the {own.tempering}, "
                f"{runs[0].path} has {first.temperature:g} of the {first.tempering}: these are "
                "different posteriors"
            )
    return None


def _lengths(runs: Sequence[Run]) -> tuple[str | None, list[str]]:
    """Why chains of these lengths cannot be set side by side; and what is lost where they can."""
    lengths = {str(run.path): run.posterior.shape[1] for run in runs}
    shortest = min(lengths, key=lambda name: lengths[name])
    fewest, most = lengths[shortest], max(lengths.values())
    if fewest < MIN_DRAWS <= most:
        draws = f"{fewest} draw{'s' * (fewest > 1)}"
        return (
            f"{shortest} has {draws} a chain, and others have up to {most}, all but {fewest} of "
            "which would be lost",
            [],
        )
    return None, [f"chains are cut to the {fewest} draws of {shortest}"] if fewest < most else []


def _best(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the run with the highest bound."""
    best = max(
        each,
        key=lambda own: -float("inf") if own["elbo"].get("value") is None else own["elbo"]["value"],
    )
    return {"run": best["run"], **best["elbo"]}
