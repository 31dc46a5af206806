"""Describe the convergence of runs: the key `convergence` of `bnn-symm diagnose --json`.

Convergence is judged by the objective (for a sampler, the negative log density). Speed is measured
by the time to a target (`target`) on every clock, and by the area under the curve, which needs no
target. Only histories and configurations are read: data and posteriors are not loaded.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.analyses.convergence.comparisons import COMPARED_CLOCKS, compare_groups
from bnn_symm.analyses.convergence.seed_groups import SeedGroup, group_by_seed
from bnn_symm.analyses.convergence.target import (
    Reference,
    Target,
    choose_quantity,
    describe_target,
    is_sampler,
    parse_target,
    resolve_targets,
)
from bnn_symm.analyses.convergence.times import chain_times, common_clocks, run_areas, run_times
from bnn_symm.diagnostics.convergence.convergence import (
    CLOCKS,
    QUANTITIES,
    Curve,
    TimeToTarget,
    band,
    curves_of_history,
    slowest,
)
from bnn_symm.diagnostics.convergence.cycle_averages import ends_of_cycles, without_exploration
from bnn_symm.diagnostics.convergence.interpretation import (
    run_sentence,
    run_verdict,
    speed_sentence,
)
from bnn_symm.diagnostics.convergence.plateau import (
    Plateau,
    find_plateau,
    pooled_drift,
    pooled_flatness,
)
from bnn_symm.diagnostics.convergence.time_to_target import speed
from bnn_symm.inference import Method, Mixture
from bnn_symm.runs.configuration.unused_settings import without_unused_settings
from bnn_symm.runs.run import Run, code_of, module_flags

# Order of flatness in which the worst chain of a run is chosen.
_WORST = ("not reached", "unclear", "too short", "reached")
# A learning rate below this fraction of its maximum has decayed.
_DECAYED = 0.01
# The rows of a sampler scatter as the posterior does; a drift of this many spreads is tolerated.
_SAMPLER_SPREADS = 2.0


def describe_convergence(runs: Sequence[Run], *, target: str | None = None) -> dict[str, Any]:
    """Describe whether runs have converged, how fast, and which groups are faster.

    Args:
        runs: one run or more; runs that differ only in their seeds form a group.
        target: `0.95`, `elbo=95%` or `validation_nll=0.3`; default: 95 % of the distance.

    Returns:
        `quantity`, `direction`, `reference`, `target`; `runs`, `groups`, `comparisons`, each a list
        of dictionaries with a `verdict` or `sentence`; `notes`; `verdict` and `next` for all runs.

    Raises:
        ConfigError: for an invalid target, or a quantity that no history has.
        InvalidRun: if a history is damaged.
    """
    request = parse_target(target)
    configs = without_unused_settings([run.config for run in runs])
    groups = group_by_seed(configs)
    histories = [run.directory.read_history() for run in runs]
    every = [
        {name: curves_of_history(history, name) for name in QUANTITIES} for history in histories
    ]
    quantity, reference = choose_quantity(request, groups, configs, every)
    curves = [by_quantity[quantity] for by_quantity in every]
    by_default = request.fraction is None and request.value is None
    targets = resolve_targets(
        request,
        quantity,
        reference,
        groups,
        curves,
        drawn=[curves_of_history(without_exploration(history), quantity) for history in histories],
        samplers=[is_sampler(config) for config in configs],
        failed=[run.status == "failed" for run in runs],
    )
    group_of = {member: number for number, group in enumerate(groups) for member in group.members}
    described = [
        {
            **_run(run, histories[i], every[i]["objective"]),
            "group": group_of[i],
            **_time_to_target(curves[i], targets[group_of[i]], quantity),
        }
        for i, run in enumerate(runs)
    ]
    times = run_times(runs, curves, [targets[group_of[i]] for i in range(len(runs))])
    areas = run_areas(runs, curves)
    for i, description in enumerate(described):
        description["area"] = {
            clock: values[i] for clock, values in areas.items() if values[i] is not None
        }
    described_groups = [
        _group(
            group,
            group_target,
            [described[i] for i in group.members],
            [curves[i] for i in group.members],
            times,
        )
        for group, group_target in zip(groups, targets, strict=True)
    ]
    return {
        "quantity": quantity,
        "direction": QUANTITIES[quantity].better,
        "reference": reference,
        "target": target,
        "runs": described,
        "groups": described_groups,
        "comparisons": compare_groups(groups, times, areas),
        "notes": _notes(by_default, quantity, reference, described, len(groups)),
        "verdict": _verdict(described),
        "next": list(
            dict.fromkeys(description["next"] for description in described if description["next"])
        ),
    }


def describe_method(inference: Method) -> dict[str, Any]:
    """Return the settings of a method that sentences about a run use, as plain data.

    Args:
        inference: the method.

    Returns:
        The settings; `longer` is the override for a longer run, and `section` the section of the
        settings of the optimization.
    """
    fitted = inference.member if isinstance(inference, Mixture) else inference
    return {
        "method": inference.name,
        "sampler": inference.is_sampler,
        "num_warmup": getattr(inference, "num_warmup", 0),
        "cycle_steps": getattr(inference, "cycle_steps", None),
        "settles_by": inference.warmup_setting,
        "longer": advise_setting(inference.longer_fit_override()),
        "learning_rate": getattr(fitted, "learning_rate", None),
        "clips": fitted.clips_norms,
        "section": "inference" if fitted is inference else "inference.member",
        "planned_steps": inference.steps_per_chain,
    }


def _run(run: Run, history: Sequence[dict[str, Any]], objective: list[Curve]) -> dict[str, Any]:
    """Describe the convergence of one run."""
    description = {
        "run": str(run.path),
        "module_flags": module_flags(code_of(run.config)),
        "name": run.path.name,
        "seed": run.config.seed,
        "status": run.status,
        **describe_method(run.config.inference),
        "steps": int(max((curve.budget("step") for curve in objective), default=0)),
        "rows": len(history),
        "chains": len(objective),
    }
    if description["cycle_steps"]:
        drawn = curves_of_history(without_exploration(history), "objective")
        objective = [
            ends_of_cycles(curve, description["cycle_steps"]) for curve in drawn or objective
        ]
    settled = _final_plateau(
        objective, history, spreads=_SAMPLER_SPREADS if description["sampler"] else 0.0
    )
    verdict, advice = run_sentence(description, run_verdict(description, settled))
    converged = (
        {"reached": True, "not reached": False}.get(settled["flatness"]) if settled else None
    )
    return {
        **description,
        # A run that diverged or was interrupted may look flat at its end.
        "converged": False
        if run.status == "failed"
        else converged
        if run.status == "complete"
        else None,
        "end": settled,
        "verdict": verdict,
        "next": advice,
    }


def _final_plateau(
    objective: list[Curve], history: Sequence[dict[str, Any]], *, spreads: float
) -> dict[str, Any] | None:
    """Describe the plateau at the end of a run: drift of the worst chain, and mean level."""
    if not objective:
        return None
    plateaus = [find_plateau(curve, spreads=spreads) for curve in objective]
    worst = min(
        plateaus, key=lambda plateau: (_WORST.index(plateau.flatness), -abs(plateau.drift or 0.0))
    )
    starts = [
        {clock: float(values[plateau.start]) for clock, values in curve.clocks.items()}
        for plateau, curve in zip(plateaus, objective, strict=True)
        if plateau.start is not None
    ]
    drift = {key: getattr(worst, key) for key in ("drift", "drift_low", "drift_high", "tolerated")}
    flatness = worst.flatness
    if spreads:
        flatness = pooled_flatness(plateaus)
        # Decided by the drift of all chains together, which is reported.
        if flatness in ("reached", "unclear"):
            mean, reach, tolerated = pooled_drift(plateaus)
            drift = {
                "drift": mean,
                "drift_low": mean - reach,
                "drift_high": mean + reach,
                "tolerated": tolerated,
            }
    rates = [row["learning_rate"] for row in history if row.get("learning_rate") is not None]
    return {
        **drift,
        "flatness": flatness,
        "is_long": all(plateau.is_long is not False for plateau in plateaus),
        "rows": min(len(curve) for curve in objective),
        "level": _mean(plateaus, "level"),
        "standard_error": _standard_error(plateaus),
        "spread": _mean(plateaus, "spread"),
        "way": _mean(plateaus, "way"),
        # On each clock, that of the last chain.
        "start": {
            clock: max(clocks[clock] for clocks in starts)
            for clock in (starts[0] if starts else ())
        },
        "by_chain": [plateau.flatness for plateau in plateaus],
        "learning_rate_ended": bool(rates) and rates[-1] < _DECAYED * max(rates),
    }


def _mean(plateaus: Sequence[Plateau], name: str) -> float | None:
    """Return the mean of an attribute of all plateaus; None if one has none."""
    values = [getattr(plateau, name) for plateau in plateaus]
    return None if None in values else float(np.mean(values))


def _standard_error(plateaus: Sequence[Plateau]) -> float | None:
    """Return the standard error of the mean level; None if a plateau has none."""
    errors = [plateau.standard_error for plateau in plateaus if plateau.standard_error is not None]
    return (
        float(np.sqrt(np.square(errors).sum()) / len(errors))
        if len(errors) == len(plateaus)
        else None
    )


def _time_to_target(curves: list[Curve], group_target: Target, quantity: str) -> dict[str, Any]:
    """Describe when a run reached the target, on every clock."""
    if not curves or group_target.value is None:
        reason = group_target.reason or f"its history has no {quantity}"
        return {
            "reached": None,
            "reached_reason": reason,
            "at_first_row": False,
            "total_gradient_evaluations": None,
        }
    times = {clock: chain_times(curves, group_target, clock) for clock in common_clocks(curves)}
    work = times.get("gradient_evaluations")
    return {
        "reached": {clock: dataclasses.asdict(slowest(chains)) for clock, chains in times.items()},
        "reached_reason": None,
        "at_first_row": slowest(times["step"]).time
        <= max(float(curve.clocks["step"][0]) for curve in curves),
        # Of all chains together; a lower bound if one of them did not reach the target.
        "total_gradient_evaluations": None
        if work is None
        else float(sum(time.time for time in work)),
    }


def _group(
    group: SeedGroup,
    group_target: Target,
    members: Sequence[dict[str, Any]],
    curves: Sequence[list[Curve]],
    times: dict[str, list[TimeToTarget | None]],
) -> dict[str, Any]:
    """Describe the speed of a group, with bands over its seeds."""
    speeds = {}
    for clock, row in times.items():
        group_times = [time for time in (row[i] for i in group.members) if time is not None]
        if group_times:
            speeds[clock] = dataclasses.asdict(speed(group_times))
    bands = {}
    finished = [description["status"] == "complete" for description in members]
    for clock in COMPARED_CLOCKS:
        band_values = band(curves, clock, finished=finished)
        if band_values is not None:
            bands[clock] = {
                key: value.tolist()
                for key, value in dataclasses.asdict(band_values).items()
                if key != "clock"
            }
    main = next((clock for clock in ("gradient_evaluations", *CLOCKS) if clock in speeds), None)
    if main is None:
        sentence = (
            f"{group.label}: no time to a target: {group_target.reason or 'no row of history'}"
        )
    else:
        sentence = speed_sentence(group.label, main, speeds[main])
    return {
        "label": group.label,
        "differences": group.differences,
        "runs": list(group.members),
        "seeds": [list(seeds) for seeds in group.seeds],
        "target": describe_target(group_target),
        "num_converged": sum(description["converged"] is True for description in members),
        "speed": speeds,
        "bands": bands,
        "sentence": sentence,
    }


def _verdict(described: Sequence[dict[str, Any]]) -> str:
    """Return the verdict for all runs."""
    if len(described) == 1:
        return described[0]["verdict"]
    states = [description["converged"] for description in described]
    names = {True: "have converged", False: "have not", None: "are inconclusive"}
    counts = [f"{states.count(state)} {name}" for state, name in names.items() if state in states]
    return f"of {len(described)} runs {', '.join(counts)}"


def _notes(
    by_default: bool,
    quantity: str,
    reference: Reference,
    described: Sequence[dict[str, Any]],
    groups: int,
) -> list[str]:
    """Return notes on the interpretation of the numbers."""
    several, what = groups > 1, "ELBO" if quantity == "elbo" else "training NLL"
    states = [description["status"] for description in described]
    failed, stopped = states.count("failed"), states.count("interrupted") + states.count("running")
    # The time of a first row is only an upper bound; samplers log at fixed intervals.
    early = [description["sampler"] for description in described if description["at_first_row"]]
    every = f"{described[0]['section']}.log_every=1"
    advice = "" if any(early) else f"; use {advise_setting(every)} for the exact time"
    is_certain = any(description["converged"] for description in described)
    notes = {
        f"the groups minimize different functions: times are to a target of the {what}, which all "
        "of them log": by_default and several and quantity in ("elbo", "nll"),
        "the groups have no quantity in common: times are to the plateau of each group, so fast "
        "does not mean good": reference == "own" and several,
        "no run has certainly converged: the target depends on where the best one stopped, and "
        "would change with longer runs": reference != "value" and not is_certain,
        f"{failed} diverged: counted as censored at the longest budget of all runs": failed,
        f"{stopped} stopped early or still running: counted as censored at the last step": stopped,
        f"{len(early)} at the target at the first row of the history, and possibly earlier"
        f"{advice}": early,
        "seconds depend on the machine that each run was fitted on": several,
    }
    return [note for note, applies in notes.items() if applies]
