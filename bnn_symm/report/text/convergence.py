"""Format the convergence of runs: verdicts, times to the target, comparisons and advice."""

from typing import Any

from bnn_symm.diagnostics.convergence.interpretation import CLOCK_WORDS
from bnn_symm.formatting import first_lines, mean_and_interval, number, with_error
from bnn_symm.report.text.tables import table

# Maximum numbers of printed runs, comparisons and pieces of advice; the JSON has all.
_RUNS, _COMPARISONS, _NEXT = 12, 10, 3
_CLOCKS = ("gradient_evaluations", "seconds")


def convergence_text(content: dict[str, Any]) -> str:
    """Return verdicts, tables of runs and of their kinds, comparisons, notes and advice.

    Args:
        content: of `analyses.convergence.report.describe_convergence`.

    Returns:
        The text.
    """
    lines = [f"convergence: {content['verdict']}"]
    if len(content["runs"]) > 1:
        lines += [_runs(content), *_verdicts(content["runs"])]
    lines.append(f"target: {target_text(content)}")
    if len(content["runs"]) == 1:
        lines.append(f"  {_one_run(content['runs'][0])}")
    else:
        lines.append(_groups(content["groups"]))
    sentences = [test["sentence"] for test in content["comparisons"]]
    lines += [f"  {line}" for line in first_lines(sentences, _COMPARISONS, "comparisons")]
    lines += [f"note: {note}" for note in content["notes"]]
    lines += [f"next: {advice}" for advice in content["next"][:_NEXT]]
    return "\n".join(lines)


def target_text(content: dict[str, Any]) -> str:
    """Return a description of the target of the time to convergence.

    Args:
        content: of `analyses.convergence.report.describe_convergence`.

    Returns:
        A phrase.
    """
    quantity = content["quantity"].replace("_", " ")
    aims = [group["target"] for group in content["groups"]]
    known = [aim for aim in aims if aim["value"] is not None]
    if not known:
        return f"undefined for {quantity}: {aims[0]['reason']}"
    band = "the stationary band of the negative log density, its level +- 2 standard deviations"
    bands = [aim["kind"] == "band" for aim in known]
    if all(bands):
        return band
    first = next(aim for aim in known if aim["kind"] != "band")
    if first["kind"] == "value":
        return f"{quantity} = {number(first['value'], 6)}"
    share = (first["start"] - first["value"]) / (first["start"] - first["level"])
    fraction = f"{quantity} at {number(100 * share)} % of the distance"
    if content["reference"] == "own":
        also = f"; for samplers, {band}" if any(bands) else ""
        return f"{fraction} from the start of each kind of run to its own best plateau{also}"
    start, level, value = (number(first[key]) for key in ("start", "level", "value"))
    return f"{fraction} from {start} to the best plateau {level}, which is {value}"


def _runs(content: dict[str, Any]) -> str:
    several = len(content["groups"]) > 1
    rows = []
    # Runs that have not converged first.
    runs = sorted(content["runs"], key=lambda run: run["converged"] is True)
    for run in runs[:_RUNS]:
        end = run["end"] or {}
        verdict = {True: "yes", False: "no", None: "inconclusive"}[run["converged"]]
        label = [content["groups"][run["group"]]["label"]] if several else []
        start = number(end["start"].get("step")) if end and verdict == "yes" else "-"
        drift = "-"
        if end and end["drift"] is not None:
            ends = {"low": end["drift_low"], "high": end["drift_high"]}
            drift = mean_and_interval({"mean": end["drift"], **ends})
        cells = [run["status"], verdict, start, _level(end), drift, _time_cell(run)]
        rows.append([run["name"], *label, *cells])
    header = [
        "run",
        *(["kind"] if several else []),
        "status",
        "converged",
        "flat from step",
        "objective, nats",
    ]
    text = table([*header, "drift per 1,000 steps", "gradient evaluations to target"], rows)
    return "\n".join([text, *first_lines([""] * len(runs), _RUNS, "runs")[_RUNS:]])


def _level(end: dict[str, Any]) -> str:
    return with_error(end["level"], end["standard_error"]) if end else "-"


def _time_cell(run: dict[str, Any]) -> str:
    time = (run["reached"] or {}).get("gradient_evaluations")
    if time is None:
        return "-"
    return f"not within {number(time['budget'])}" if time["censored"] else number(time["time"])


def _verdicts(runs: list[dict[str, Any]]) -> list[str]:
    """Return the verdicts of the runs whose convergence is not certain."""
    others = [run for run in runs if run["converged"] is not True]
    lines = [f"{run['name']}: {run['verdict']}" for run in others]
    return [f"  {line}" for line in first_lines(lines, _RUNS, "such runs")]


def _one_run(run: dict[str, Any]) -> str:
    if run["reached"] is None:
        return f"no time: {run['reached_reason']}"
    times = run["reached"]
    reached = [clock for clock, time in times.items() if not time["censored"]]
    if not reached:
        budgets = ", ".join(
            f"{number(time['budget'])} {CLOCK_WORDS[clock]}" for clock, time in times.items()
        )
        return f"not reached within {budgets}"
    parts = []
    for clock in reached:
        low, high = times[clock]["low"], times[clock]["high"]
        spread = (
            f" ({number(low)} to {number(high)})" if low is not None and high is not None else ""
        )
        parts.append(f"{number(times[clock]['time'])} {CLOCK_WORDS[clock]}{spread}")
    chains = f"; the slowest of {run['chains']} chains" if run["chains"] > 1 else ""
    spread = "in parentheses, the range for two standard errors of the smoothed curve"
    return f"reached after {', '.join(parts)}{chains}; {spread}"


def _groups(groups: list[dict[str, Any]]) -> str:
    rows = []
    for group in groups:
        row = [group["label"], len(group["runs"]), group["num_converged"]]
        speeds = [group["speed"].get(clock) for clock in _CLOCKS]
        known = next((speed for speed in speeds if speed), None)
        row.append(
            "-"
            if known is None
            else f"{known['num_runs'] - known['num_censored']} of {known['num_runs']}"
        )
        rows.append([*row, *(_median(speed) for speed in speeds)])
    header = [
        "kind of run",
        "runs",
        "converged",
        "reached",
        "median gradient evaluations",
        "median seconds",
    ]
    return table(header, rows)


def _median(speed: dict[str, Any] | None) -> str:
    if speed is None:
        return "-"
    median = speed["median"]
    if median["value"] is None:
        return f"> {number(speed['tau'])}"
    if median["low"] is None:
        return number(median["value"])
    high = "..." if median["high"] is None else number(median["high"])
    return f"{number(median['value'])} ({number(median['low'])} to {high})"
