"""Interpret curves and times: whether a run has converged, advice, and strength of evidence."""

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from bnn_symm.advice import advise, advise_setting
from bnn_symm.diagnostics.convergence.plateau import MIN_ROWS
from bnn_symm.diagnostics.convergence.time_to_target import (
    MIN_RUNS,
    pairs_needed,
    smallest_p_value,
)
from bnn_symm.diagnostics.statistics.verdicts import Verdict, fill
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

_DRIFT = "{drift_low} to {drift_high} nats per 1,000"
_FLAT = "converged: flat from step {start} of {steps}, at {level} +- {standard_error} nats"
_LONGER, _RHAT = "{longer}", "see R-hat of functions, which uses every draw"


class RunVerdict(Enum):
    """Verdicts on the convergence of a run, with templates of the sentence and the advice.

    `where` is empty, or states that the log density is that at the ends of cycles.
    """

    NO_OBJECTIVE = "the history has no row with an objective, so convergence is unknown"
    DIVERGED = ("diverged after the row at step {steps}: it did not converge", "{recovery}")

    TOO_SHORT = (
        "inconclusive: {rows} rows cannot distinguish a plateau from noise; {needed} are needed",
        "{more_rows}",
    )
    RISING = (
        f"not converged: the objective is rising by {_DRIFT} steps",
        "{slower}",
    )
    FALLING = (f"not converged: the objective still drifts by {_DRIFT} steps", _LONGER)
    BRIEFLY_FLAT = (
        "inconclusive: less than a fifth of the {rows} rows of the curve is flat",
        _LONGER,
    )
    UNCLEAR = (
        f"inconclusive: the drift of the objective is {_DRIFT} steps; twice the steps could change "
        "it by {change} nats",
        _LONGER,
    )
    FLAT = _FLAT
    FLAT_BY_DECAY = (
        f"{_FLAT}; the learning rate decayed to zero there, which flattens any curve",
        "to check whether a longer fit ends lower: {longer}",
    )

    CHAINS_TOO_SHORT = (
        "inconclusive: {rows} {unit} per chain are too few to judge whether the log density{where} "
        "is stationary; {needed} are needed",
        _RHAT,
    )
    DRIFTING = (
        f"not converged: the negative log density{{where}} drifts by {_DRIFT} iterations",
        _LONGER,
    )
    DRIFT_UNCLEAR = (
        f"inconclusive: the drift of the negative log density{{where}} is {_DRIFT} iterations",
        _RHAT,
    )
    STATIONARY_LATE = (
        "the log density is stationary only from iteration {start}, after warm-up ({num_warmup}): "
        "the first draws are not from the posterior",
        "{longer_warmup}",
    )
    STATIONARY = (
        "the log density is stationary from iteration {start}, within warm-up ({num_warmup})"
    )
    CYCLES_STATIONARY_LATE = (
        "the log density at the ends of cycles is stationary only from cycle {first} of {rows}: "
        "earlier draws are not from the posterior",
        _LONGER,
    )
    CYCLES_STATIONARY = "the log density is stationary over the ends of {rows} cycles per chain"


def run_verdict(own: Mapping[str, Any], settled: Mapping[str, Any] | None) -> Verdict:
    """Return the verdict on whether one run has converged.

    Args:
        own: The run as plain data: run, status, steps, and the result of `describe_method`.
        settled: End of its objective, as `describe_convergence` has it; None without rows.
    """
    if settled is None:
        return Verdict(RunVerdict.NO_OBJECTIVE)
    if own["status"] == "failed":
        section = own["section"]
        clip = f"{advise_setting(f'{section}.clip_norm=1.0')}, or " if own["clips"] else ""
        lower = f"{clip}a lower {advise(f'{section}.learning_rate', 'learning_rate')}"
        good_fit = f"from a good fit: {advise_setting('initial=RUN')}"
        recovery = lower if own["learning_rate"] else good_fit
        return Verdict(RunVerdict.DIVERGED, {**own, "recovery": recovery})
    start = settled["start"].get("step")
    numbers = {**own, **settled, "start": start, "needed": MIN_ROWS, "unit": "rows", "where": ""}
    if own["cycle_steps"]:
        numbers |= {"where": " at the ends of cycles", "unit": "cycles"}
    return (_sampler if own["sampler"] or own["cycle_steps"] else _optimizer)(numbers)


def run_sentence(own: Mapping[str, Any], verdict: Verdict) -> tuple[str, str | None]:
    """Return the verdict on a run as a sentence with its progress, and what to do next.

    Args:
        own: The run, as of `run_verdict`.
        verdict: Result of `run_verdict`.
    """
    resume = advise(
        f"bnn-symm {shell_words('fit', '--resume', own['run'])}{own.get('module_flags', '')}",
        f"resume_run({own['run']!r})",
    )
    progress, advice = {
        "interrupted": ("interrupted at step {steps} of {planned_steps}; ", resume),
        "running": (
            "still running, at step {steps} of {planned_steps}; ",
            "run this command again when it is complete",
        ),
    }.get(own["status"], ("", verdict.next))
    return fill(progress, own) + verdict.text, advice


def _optimizer(numbers: dict[str, Any]) -> Verdict:
    flatness, steps = numbers["flatness"], numbers["planned_steps"]
    if flatness == "too short":
        # Twice the required rows, because the first ones are not on the plateau.
        every = advise_setting(f"{numbers['section']}.log_every={max(1, steps // (4 * MIN_ROWS))}")
        numbers["more_rows"] = every if steps > MIN_ROWS else numbers["longer"]
        return Verdict(RunVerdict.TOO_SHORT, numbers)
    largest = max(abs(numbers["drift_low"]), abs(numbers["drift_high"]))
    if numbers["drift_low"] > 0 and flatness != "reached":
        kind = RunVerdict.RISING
        numbers["slower"] = advise_setting(
            f"{numbers['section']}.learning_rate={numbers['learning_rate'] / 3:.2g}"
        )
    elif flatness == "not reached":
        kind = RunVerdict.FALLING
    elif flatness == "unclear":
        # A flat end may be unclear only because it is short, with a tolerable drift.
        is_short = numbers.get("is_long") is False and largest <= numbers.get("tolerated", 0.0)
        kind = RunVerdict.BRIEFLY_FLAT if is_short else RunVerdict.UNCLEAR
        numbers["change"] = largest * numbers["steps"] / 1000
    else:
        kind = RunVerdict.FLAT_BY_DECAY if numbers["learning_rate_ended"] else RunVerdict.FLAT
    return Verdict(kind, numbers)


def _sampler(numbers: dict[str, Any]) -> Verdict:
    """Return the verdict from every row, or from one per cycle, because curves fall in a cycle."""
    unsettled = {
        "too short": RunVerdict.CHAINS_TOO_SHORT,
        "not reached": RunVerdict.DRIFTING,
        "unclear": RunVerdict.DRIFT_UNCLEAR,
    }
    start, warmup = numbers["start"], numbers["num_warmup"]
    if numbers["flatness"] in unsettled:
        kind = unsettled[numbers["flatness"]]
    elif numbers["cycle_steps"]:
        numbers["first"] = math.ceil(start / numbers["cycle_steps"])
        # With few values a late start is found by chance; it is reported only if the change exceeds
        # the scatter.
        is_late = numbers["first"] > 1 and numbers["way"] > _WAY_OF_CYCLES * numbers["spread"]
        kind = RunVerdict.CYCLES_STATIONARY_LATE if is_late else RunVerdict.CYCLES_STATIONARY
    else:
        kind = RunVerdict.STATIONARY_LATE if start > warmup else RunVerdict.STATIONARY
        longer = advise_setting(f"inference.num_warmup={math.ceil(1.5 * start)}")
        has_warmup = numbers["settles_by"] == "num_warmup"
        numbers["longer_warmup"] = longer if has_warmup else numbers["longer"]
    return Verdict(kind, numbers)


def speed_sentence(label: str, clock: str, speed: Mapping[str, Any]) -> str:
    """Return a sentence on how fast one group is.

    Args:
        label: Name of the group.
        clock: Name of the clock.
        speed: `Speed` as plain data.
    """
    numbers = {**speed, **speed["median"], "label": label, "clock": CLOCK_WORDS[clock]}
    numbers |= {"reached": speed["num_runs"] - speed["num_censored"], "needed": MIN_RUNS}
    text = "{label}: {reached} of {num_runs} runs reach the target, "
    if numbers["value"] is None:
        return fill(text + "too few for a median within {tau} {clock}", numbers)
    interval = "95 % interval {low} to {high}"
    if speed["num_runs"] < MIN_RUNS:
        interval = "no interval from fewer than {needed} runs"
    elif numbers["high"] is None:
        numbers["high"] = "the end of observation"
    return fill(f"{text}half of them by {{value}} {{clock}} ({interval})", numbers)


class SpeedVerdict(Enum):
    """Verdicts on the comparison of the speeds of two groups, with their templates."""

    AT_FIRST_ROW = "{first} and {second}: both reach the target at the first row"
    NEITHER = "{first} and {second}: neither reaches the target, so the comparison is inconclusive"
    NOT_INFORMATIVE = "{ratio_text}: no evidence, since no run is informative ({how})"
    FASTER = "{ratio_text}: {strength} that it is faster ({p_text})"
    TOO_FEW = (
        "{ratio_text}: no evidence yet ({p_text}); {num_informative} informative pairs cannot give "
        "p below {least:.2g}: fit at least {needed} seeds of each"
    )
    NO_EVIDENCE = "{ratio_text}: no evidence that either is faster ({p_text})"


def comparison_verdict(
    labels: Sequence[str], test: Mapping[str, Any], num_comparisons: int
) -> Verdict:
    """Return which of two groups is faster, by how much, and how strong the evidence is.

    Args:
        labels: Names of both groups.
        test: `SpeedTest` as plain data, with adjusted p-value and clock.
        num_comparisons: Number of comparisons of the adjustment.
    """
    first, second = labels
    ratio, p = test["ratio"], test["p_adjusted"]
    numbers = {**test, "first": first, "second": second}
    if ratio["value"] is None:
        return Verdict(SpeedVerdict.AT_FIRST_ROW, numbers)
    if test["p_value"] is None and not any(test["reached"].values()):
        return Verdict(SpeedVerdict.NEITHER, numbers)
    how = f"{test['num_pairs']} pairs by seed" if test["paired"] else "not paired, log-rank"
    numbers |= {"ratio_text": _ratio_text(labels, test), "how": how}
    if p is None:
        return Verdict(SpeedVerdict.NOT_INFORMATIVE, numbers)
    many = f", adjusted for {num_comparisons} comparisons" if num_comparisons > 1 else ""
    numbers["p_text"] = f"p = {p:.2g}{many}; {how}"
    if p <= _EVIDENCE:
        numbers["strength"] = "strong evidence" if p <= _STRONG else "evidence"
        return Verdict(SpeedVerdict.FASTER, numbers)
    least = num_comparisons * smallest_p_value(test["num_informative"]) if test["paired"] else 0.0
    numbers |= {"least": min(1.0, least), "needed": pairs_needed(num_comparisons)}
    return Verdict(SpeedVerdict.TOO_FEW if least > _EVIDENCE else SpeedVerdict.NO_EVIDENCE, numbers)


def _ratio_text(labels: Sequence[str], test: Mapping[str, Any]) -> str:
    """Return the time of the faster group as a multiple of that of the slower one."""
    (faster, slower), ratio = labels, test["ratio"]
    value, low, high = ratio["value"], ratio["low"], ratio["high"]
    if value > 1:
        faster, slower, value = slower, faster, 1 / value
        low, high = (None if end in (None, 0) else 1 / end for end in (high, low))
    text = "{faster} needs {value} times the {clock} of {slower}"
    if low is not None and high is not None:
        text += " (95 % interval {low} to {high})"
    if any(test["num_censored"].values()):
        text += ", runs that did not reach the target counted up to their end"
    numbers = {"faster": faster, "slower": slower, "value": value, "low": low, "high": high}
    return fill(text, {**numbers, "clock": CLOCK_WORDS[test["clock"]]})
