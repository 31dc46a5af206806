"""Interpret curves and times: whether a run has converged, advice, and strength of evidence."""

import math
from collections.abc import Sequence
from typing import Any

from bnn_symm.diagnostics.convergence.plateau import MIN_ROWS
from bnn_symm.diagnostics.convergence.time_to_target import MIN_RUNS, smallest_p_value
from bnn_symm.errors import shell_words

CLOCK_WORDS = {
    "step": "steps",
    "epoch": "epochs",
    "gradient_evaluations": "gradient evaluations",
    "seconds": "seconds",
}
# Conventional significance levels.
_EVIDENCE, _STRONG = 0.05, 0.01

# The ends of cycles must have changed by this number of standard deviations for late convergence to
# be reported.
_WAY_OF_CYCLES = 3.0

_ADVICE_OF_DIVERGED = {
    True: "--set inference.clip_norm=1.0, or a lower inference.learning_rate",
    False: "a lower inference.learning_rate",
}


def number(value: float | int | None) -> str:
    """Format a number with three significant digits, or as an integer from 100 on.

    Args:
        value: A number, or None.

    Returns:
        The formatted number; `-` for None.
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def run_verdict(own: dict[str, Any], settled: dict[str, Any] | None) -> tuple[str, str | None]:
    """Return whether one run has converged, and what to do next.

    Args:
        own: The run as plain data: run, status, steps, and the result of `describe_method`.
        settled: End of its objective, as `convergence_report` describes it; None without rows.

    Returns:
        A verdict, and advice or None.
    """
    if settled is None:
        reason = "the history has no row with an objective, so convergence is unknown"
        return reason, _resume(own) if own["status"] == "interrupted" else None
    if own["status"] == "failed":
        at = number(own["steps"])
        return (
            f"diverged after the row at step {at}: it did not converge",
            _ADVICE_OF_DIVERGED[bool(own["clips"])]
            if own["learning_rate"]
            else "from a good fit: --set initial=RUN",
        )
    interpret = _cyclical if own["cycle_steps"] else _sampler if own["sampler"] else _optimizer
    verdict, advice = interpret(own, settled)
    if own["status"] == "interrupted":
        steps = f"{number(own['steps'])} of {number(own['planned_steps'])}"
        verdict = f"interrupted at step {steps}; {verdict}"
        advice = _resume(own)
    elif own["status"] == "running":
        steps = f"{number(own['steps'])} of {number(own['planned_steps'])}"
        verdict = f"still running, at step {steps}; {verdict}"
        advice = "run this command again when it is complete"
    return verdict, advice


def _resume(own: dict[str, Any]) -> str:
    return f"bnn-symm {shell_words('fit', '--resume', own['run'])}{own.get('module_flags', '')}"


def _optimizer(own: dict[str, Any], settled: dict[str, Any]) -> tuple[str, str | None]:
    longer = own["longer"]
    flatness = settled["flatness"]
    if flatness == "too short":
        # Twice the required rows, because the first ones are not on the plateau.
        every = max(1, own["planned_steps"] // (4 * MIN_ROWS))
        advice = f"--set inference.log_every={every}" if own["planned_steps"] > MIN_ROWS else longer
        return (
            f"inconclusive: {settled['rows']} rows cannot distinguish a plateau from noise; "
            f"{MIN_ROWS} are needed",
            advice,
        )
    drift = (
        f"{number(abs(settled['drift']))} nats per 1,000 steps "
        f"({number(settled['drift_low'])} to {number(settled['drift_high'])})"
    )
    if settled["drift_low"] > 0 and flatness != "reached":
        return (
            f"not converged: the objective is rising by {drift}",
            f"--set inference.learning_rate={own['learning_rate'] / 3:.2g}",
        )
    if flatness == "not reached":
        return f"not converged: the objective is still falling by {drift}", longer
    if flatness == "unclear" and _is_short(settled):
        return (
            "convergence is inconclusive: the curve is flat over less than a fifth of its "
            f"{settled['rows']} rows",
            longer,
        )
    if flatness == "unclear":
        worst = max(abs(settled["drift_low"]), abs(settled["drift_high"]))
        return (
            "convergence is inconclusive: the drift of the objective is between "
            f"{number(settled['drift_low'])} and {number(settled['drift_high'])} nats per 1,000 "
            f"steps; twice the steps could change it by {number(worst * own['steps'] / 1000)} nats",
            longer,
        )
    verdict = (
        f"converged: flat from step {number(settled['start']['step'])} of {number(own['steps'])}, "
        f"at {number(settled['level'])} +- {number(settled['standard_error'])} nats"
    )
    if settled["learning_rate_ended"]:
        verdict += "; the learning rate decayed to zero there, which flattens any curve"
        return verdict, f"to check whether a longer fit ends lower: {longer}"
    return verdict, None


def _is_short(settled: dict[str, Any]) -> bool:
    """Return whether a flat end is unclear only because it is short, with a tolerable drift."""
    largest = max(abs(settled["drift_low"]), abs(settled["drift_high"]))
    return settled.get("is_long") is False and largest <= settled.get("tolerated", 0.0)


def _sampler(own: dict[str, Any], settled: dict[str, Any]) -> tuple[str, str | None]:
    warmup, flatness = own["num_warmup"], settled["flatness"]
    more = own["longer"]
    if flatness == "too short":
        return (
            f"inconclusive: {settled['rows']} rows per chain are too few to judge whether the log "
            f"density is stationary; {MIN_ROWS} are needed",
            "see R-hat, which uses every draw",
        )
    ends = f"{number(settled['drift_low'])} to {number(settled['drift_high'])}"
    if flatness == "not reached":
        return (
            f"not converged: the negative log density still drifts by {ends} nats per 1,000 "
            "iterations",
            more,
        )
    start = settled["start"]["step"]
    if flatness == "unclear":
        return (
            "the stationarity of the log density is inconclusive: its drift is between "
            f"{ends} nats per 1,000 iterations",
            "see R-hat of each chain against itself, which uses every draw",
        )
    if start > warmup:
        return (
            f"the log density is stationary only from iteration {number(start)}, after warm-up "
            f"({number(warmup)}): the first draws are not from the posterior",
            f"--set inference.num_warmup={math.ceil(1.5 * start)}"
            if own["settles_by"] == "num_warmup"
            else more,
        )
    return (
        f"the log density is stationary from iteration {number(start)}, within warm-up "
        f"({number(warmup)})",
        None,
    )


def _cyclical(own: dict[str, Any], settled: dict[str, Any]) -> tuple[str, str | None]:
    """Return the verdict from one value per cycle, because curves rise and fall in a cycle."""
    more, flatness, cycles = own["longer"], settled["flatness"], settled["rows"]
    functions = "see R-hat of functions, which uses every draw"
    if flatness == "too short":
        return (
            "inconclusive: the log density rises and falls within each cycle, and the ends of "
            f"{cycles} cycles per chain are too few; {MIN_ROWS} are needed",
            functions,
        )
    ends = f"{number(settled['drift_low'])} to {number(settled['drift_high'])}"
    ends = f"{ends} nats per 1,000 iterations"
    if flatness == "not reached":
        return (
            f"not converged: the negative log density at the ends of cycles still drifts by {ends}",
            more,
        )
    if flatness == "unclear":
        return (
            "the stationarity of the log density at the ends of cycles is inconclusive: its drift "
            f"is between {ends}",
            functions,
        )
    first = math.ceil(settled["start"]["step"] / own["cycle_steps"])
    # With few values a late start is found by chance; it is reported only if the change exceeds the
    # scatter.
    if first > 1 and settled["way"] > _WAY_OF_CYCLES * settled["spread"]:
        return (
            "the log density at the ends of cycles is stationary only from cycle "
            f"{first} of {cycles}: earlier draws are not from the posterior",
            more,
        )
    return f"the log density is stationary over the ends of {cycles} cycles per chain", None


def speed_sentence(label: str, clock: str, speed: dict[str, Any]) -> str:
    """Return a sentence on how fast one group is.

    Args:
        label: Name of the group.
        clock: Name of the clock.
        speed: `Speed` as plain data.

    Returns:
        The sentence.
    """
    reached = speed["num_runs"] - speed["num_censored"]
    head = f"{label}: {reached} of {speed['num_runs']} runs reach the target"
    median = speed["median"]
    if median["value"] is None:
        return f"{head}, too few for a median within {number(speed['tau'])} {CLOCK_WORDS[clock]}"
    text = f"{head}, half of them by {number(median['value'])} {CLOCK_WORDS[clock]}"
    if speed["num_runs"] < MIN_RUNS:
        return f"{text} (no interval from fewer than {MIN_RUNS} runs)"
    high = "the end of observation" if median["high"] is None else number(median["high"])
    return f"{text} (95 % interval {number(median['low'])} to {high})"


def comparison_sentence(labels: Sequence[str], test: dict[str, Any], num_comparisons: int) -> str:
    """Return which of two groups is faster, by how much, and how strong the evidence is.

    Args:
        labels: Names of both groups.
        test: `SpeedTest` as plain data, with adjusted p-value and clock.
        num_comparisons: Number of comparisons of the adjustment.

    Returns:
        The sentence.
    """
    first, second = labels
    ratio = test["ratio"]
    if ratio["value"] is None:
        return f"{first} and {second}: both reach the target at the first row"
    if test["p_value"] is None and all(test["reached"][side] == 0 for side in ("first", "second")):
        return (
            f"{first} and {second}: neither reaches the target, so the comparison is inconclusive"
        )
    faster, slower, value, low, high = first, second, ratio["value"], ratio["low"], ratio["high"]
    if value > 1:
        faster, slower, value = second, first, 1 / value
        low, high = (None if end in (None, 0) else 1 / end for end in (high, low))
    interval = (
        f" (95 % interval {number(low)} to {number(high)})"
        if low is not None and high is not None
        else ""
    )
    censored = test["num_censored"]["first"] + test["num_censored"]["second"]
    bound = ", runs that did not reach the target counted up to their end" if censored else ""
    clock = CLOCK_WORDS[test["clock"]]
    return (
        f"{faster} needs {number(value)} times the {clock} of {slower}{interval}{bound}: "
        f"{_evidence(test, num_comparisons)}"
    )


def _evidence(test: dict[str, Any], num_comparisons: int) -> str:
    p = test["p_adjusted"]
    how = f"{test['num_pairs']} pairs by seed" if test["paired"] else "not paired, log-rank"
    if p is None:
        return f"no evidence: no run is informative ({how})"
    many = f", adjusted for {num_comparisons} comparisons" if num_comparisons > 1 else ""
    numbers = f"p = {p:.2g}{many}; {how}"
    if p <= _EVIDENCE:
        return f"{'strong evidence' if p <= _STRONG else 'evidence'} that it is faster ({numbers})"
    if test["paired"]:
        least = smallest_p_value(test["num_informative"])
        needed = next(
            n for n in range(1, 40) if num_comparisons * smallest_p_value(n) <= _EVIDENCE or n == 14
        )
        if least * num_comparisons > _EVIDENCE:
            return (
                f"no evidence yet ({numbers}); {test['num_informative']} informative pairs cannot "
                f"give p below {min(1.0, least * num_comparisons):.2g}: fit at least {needed} "
                "seeds of each"
            )
    return f"no evidence that either is faster ({numbers})"
