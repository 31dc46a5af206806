"""Time candidates in turn, compute ratios of rounds, and build rows of `benchmarks/README.md`.

Seconds on a shared machine drift by tens of per cent within minutes. Candidates are therefore timed
in turn, a, b, c, a, b, c, ..., and a ratio is the median over rounds of the ratio within a round,
in which the machine was the same for both. The first round is discarded: it compiles, allocates and
fills caches.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Hold the seconds of one call of a candidate.

    Attributes:
        median: over rounds.
        low: lower quartile.
        high: upper quartile.
        seconds: of one call, round by round.
    """

    median: float
    low: float
    high: float
    seconds: list[float]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Hold a ratio of two candidates: the median over rounds and the quartiles."""

    median: float
    low: float
    high: float


def interleaved(
    candidates: dict[str, Callable[[], object]],
    *,
    repeats: int,
    inner: int | dict[str, int] = 1,
    warm_up: int = 1,
) -> dict[str, Timing]:
    """Return the seconds of each candidate, timed in turn.

    Args:
        candidates: name -> call to time; its result is dropped.
        repeats: number of rounds that count.
        inner: calls of a candidate in a row within a round, so that a round is much longer than the
            resolution of the clock; or name -> calls.
        warm_up: rounds of one call each before those that count.
    """
    calls = inner if isinstance(inner, dict) else dict.fromkeys(candidates, inner)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(warm_up):
        for call in candidates.values():
            call()
    gc.collect()
    for _ in range(repeats):
        for name, call in candidates.items():
            started = time.perf_counter()
            for _ in range(calls[name]):
                call()
            seconds[name].append((time.perf_counter() - started) / calls[name])
    return {name: timing_of(own) for name, own in seconds.items()}


def timing_of(seconds: Sequence[float]) -> Timing:
    """Return a `Timing` of seconds measured round by round elsewhere."""
    low, median, high = _quartiles(seconds)
    return Timing(median=median, low=low, high=high, seconds=list(seconds))


def ratio(a: Timing, b: Timing) -> Ratio:
    """Return a over b: the median of the ratios of rounds, and their quartiles."""
    return ratio_of([first / second for first, second in zip(a.seconds, b.seconds, strict=True)])


def ratio_of(values: Sequence[float]) -> Ratio:
    """Return a `Ratio` of values that were measured round by round."""
    low, median, high = _quartiles(values)
    return Ratio(median=median, low=low, high=high)


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return (values[0],) * 3
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def row(
    quantity: str,
    *,
    ours: float | None,
    peer: str,
    theirs: float | None,
    unit: str,
    ratio: Ratio | None,
    target: float | None = None,
    sense: Literal["at most", "at least"] = "at most",
    limit: str = "",
    note: str = "",
    details: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a row of the table, as plain data.

    Args:
        quantity: the measured quantity and the problem.
        ours: median of this package, in `unit`; None for a row about peers only.
        peer: the candidate of the comparison.
        theirs: median of the peer.
        unit: of both: s, ms, ESS/s, MB.
        ratio: ours over the peer's; None if one of the two is missing, which `note` explains.
        target: of the ratio; None for a row that is shown for comparison.
        sense: whether the target is an upper or a lower bound.
        limit: the physical limit of this quantity, and the distance of ours from it, as text.
        note: other facts: quality, and the reason for a missed target.
        details: more numbers for `results.json`.
    """
    met = None
    if target is not None and ratio is not None:
        met = ratio.median <= target if sense == "at most" else ratio.median >= target
    return {
        "quantity": quantity,
        "ours": ours,
        "peer": peer,
        "theirs": theirs,
        "unit": unit,
        "ratio": None
        if ratio is None
        else {"median": ratio.median, "low": ratio.low, "high": ratio.high},
        "target": target,
        "sense": sense,
        "met": met,
        "limit": limit,
        "note": note,
        "details": details or {},
    }


def print_rows(measure: Callable[..., list[dict[str, Any]]], description: str | None) -> None:
    """Run a module's command line: print `measure` as JSON; `--quick` is a smoke test."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test: few repeats")
    print(json.dumps(measure(quick=parser.parse_args().quick), indent=1))


def machine() -> dict[str, Any]:
    """Return processor, cores, memory, system, versions of measured packages, and the date."""
    versions = {}
    for name in (
        "bnn_symm",
        "torch",
        "pyro-ppl",
        "numpy",
        "scipy",
        "jax",
        "numpyro",
        "blackjax",
        "bayesian-torch",
    ):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gigabytes": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1
        ),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _processor() -> str:
    """Return the model in /proc/cpuinfo, with family and model numbers if needed."""
    found: dict[str, str] = {}
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    name = found.get("model name") or platform.processor() or platform.machine()
    vectors = [
        flag for flag in ("avx2", "avx512f", "amx_tile") if flag in found.get("flags", "").split()
    ]
    family, model = found.get("cpu family", "?"), found.get("model", "?")
    return f"{name} (family {family}, model {model}, {' '.join(vectors)})"
