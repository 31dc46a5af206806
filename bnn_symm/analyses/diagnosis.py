"""Diagnose runs: the content of `bnn-symm diagnose --json`, and the data of its figures.

For one run: convergence, mixing, the ELBO and calibration. For several runs: the same for each
under `each`, the convergence of all side by side, and, if their weights are comparable, the mixing
of their chains taken together (draws of a closed form count as a chain), which shows whether fits
from different seeds agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bnn_symm.analyses.convergence.report import describe_convergence
from bnn_symm.analyses.elbo import describe_elbo
from bnn_symm.analyses.mixing import concatenate_chains, describe_mixing, no_mixing
from bnn_symm.analyses.predictions.calibration import describe_calibration
from bnn_symm.diagnostics.mixing.chain_statistics import MIN_DRAWS
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.inference import Method
from bnn_symm.posteriors import ClosedFormPosterior
from bnn_symm.runs.compatibility import check_comparable
from bnn_symm.runs.run import NoPosterior, Run
from bnn_symm.threads import use_threads

_APPROXIMATIONS = (
    "different fits are different approximations of one posterior: compare their ELBOs, or "
    "interpret their predictions as a mixture"
)

OnProgress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Hold the result of a diagnosis.

    Attributes:
        content: the content of `diagnosis.json`.
        traces: panels of each run, to draw; for several runs, those of all chains together first.
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
    """Diagnose runs one by one and together.

    Args:
        runs: one run or more.
        target: the target of the time to convergence; see `describe_convergence`.
        per_draw: whether draws are also aligned one by one, which takes longest.
        seed: the seed of alignments, of draws of the prior and of resamples.
        on_progress: called with a description of each stage when it begins.

    Returns:
        The diagnosis.

    Raises:
        ConfigError: if the target is not valid, or a run is named twice.
        InvalidRun: if the data of a run changed since its fit.
    """
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise ConfigError(
            "a run is named twice, and its chains would count as independent; name each run once"
        )
    on_progress("data")
    for run in runs:
        run.dataset()  # Raises before any work is done if the data changed since the fit.
    on_progress("convergence")
    content: dict[str, Any] = {"runs": [str(run.path) for run in runs], "warnings": []}
    convergence = describe_convergence(runs, target=target)
    each, traces = [], []
    for run in runs:
        diagnosis, panels = _diagnose_run(run, per_draw, seed, on_progress)
        each.append(diagnosis)
        traces.append(panels)
    first = each[0]
    if len(runs) == 1:
        content |= {key: first[key] for key in ("mixing", "elbo", "calibration")}
    else:
        mixing, panels, warnings = _diagnose_together(runs, each, per_draw, seed, on_progress)
        content |= {"mixing": mixing, "elbo": _best(each), "calibration": None, "each": each}
        content["warnings"] = warnings
        traces = [panels, *traces]
    return Diagnosis(content={**content, "convergence": convergence}, traces=traces)


def _diagnose_run(
    run: Run, per_draw: bool, seed: int, on_progress: OnProgress
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Diagnose the mixing, ELBO and calibration of one run."""
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
        fitted = method is not None and method.has_independent_draws
        if fitted and posterior.shape[0] == 1:
            method_name = run.config.inference.name
            reason = f"not defined: draws of {method_name} are independent, without chains"
            mixing, traces = no_mixing(reason), []
        else:
            mixing, traces = describe_mixing(
                posterior, run.dataset(), method=method, per_draw=per_draw, seed=seed
            )
            if fitted:
                _mark_as_fitted(mixing, "members are independent fits")
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


def _diagnose_together(
    runs: Sequence[Run],
    each: Sequence[dict[str, Any]],
    per_draw: bool,
    seed: int,
    on_progress: OnProgress,
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """Describe the mixing of all chains of all runs, or return the reason why it is not defined."""
    reason = next((own["mixing"]["reason"] for own in each if own["calibration"] is None), None)
    warnings: list[str] = []
    if reason is None:
        try:
            warnings = check_comparable(runs)
        except IncompatiblePosteriors as error:
            reason = str(error)
    if reason is None:
        reason = _posterior_difference(runs)
    if reason is None:
        reason, cut = _length_difference(runs)
        warnings = [*warnings, *cut]
    if reason is not None:
        return no_mixing(f"not defined for the runs together: {reason}"), [], warnings
    on_progress("mixing of all runs together")
    with use_threads(runs[0].threads):
        mixing, traces = describe_mixing(
            concatenate_chains([run.posterior for run in runs]),
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
        of_weights = any(run.posterior.of_weights is not run.posterior for run in runs)
        how = ", by the network itself" if of_weights else ""
        _mark_as_fitted(mixing, f"draws of a closed form{how}, used as a chain")
    return mixing, traces, warnings


def _mark_as_fitted(mixing: dict[str, Any], what: str) -> None:
    """Change the advice on chains that are draws of fitted distributions.

    These have no warm-up, and more draws of them do not change them.
    """
    mixing["conclusion"] = f"{what}: {mixing['conclusion']}"
    mixing["next"] = None if mixing["usable"] else _APPROXIMATIONS


def _method(run: Run) -> Method | None:
    """Return the settings of the fit; None if the method of external draws was assumed."""
    return (
        None if run.record.get("derived", {}).get("method_assumed", False) else run.config.inference
    )


def _posterior_difference(runs: Sequence[Run]) -> str | None:
    """Return why fits of one network approximate different posteriors; None if they do not."""
    first = runs[0].config.inference
    for run in runs[1:]:
        other = run.config.inference
        if (other.temperature, other.tempering) != (first.temperature, first.tempering):
            return (
                f"{run.path} has temperature {other.temperature:g} of the {other.tempering}, "
                f"{runs[0].path} has {first.temperature:g} of the {first.tempering}: these are "
                "different posteriors"
            )
    return None


def _length_difference(runs: Sequence[Run]) -> tuple[str | None, list[str]]:
    """Return why chains of different lengths cannot be compared, or a note on cut draws."""
    lengths = {str(run.path): run.posterior.shape[1] for run in runs}
    shortest = min(lengths, key=lambda name: lengths[name])
    fewest, most = lengths[shortest], max(lengths.values())
    if fewest < MIN_DRAWS <= most:
        draws = f"{fewest} draw{'s' * (fewest > 1)}"
        return (
            f"{shortest} has {draws} per chain and others have up to {most}, of which only "
            f"{fewest} could be used",
            [],
        )
    return None, [f"chains are cut to the {fewest} draws of {shortest}"] if fewest < most else []


def _best(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the ELBO of the run with the highest one."""
    best = max(
        each,
        key=lambda own: -float("inf") if own["elbo"].get("value") is None else own["elbo"]["value"],
    )
    return {"run": best["run"], **best["elbo"]}
