r"""Measure the smallest bulk ESS of predictions per second: our samplers, and NUTS of peers.

    python -m benchmarks.effective_samples [--problems breast_cancer gap digits] [--quick]
    python -m benchmarks.effective_samples --only ChEES-HMC MCLMC --energy-variance 0.01 \
        --log runs.jsonl

ESS is the smallest over 100 test inputs, all chains together. Seconds are processor seconds,
because wall seconds of a shared core are not informative (`results.json` has both). They are
measured after warm-up and including warm-up; compilation is separate. The comparison of ChEES-HMC
was chosen before it was measured, with NUTS shown as well. By default MCLMC has the energy variance
of `auto`; its steps per draw were chosen on these problems. It is not adjusted, so its notes
compare the means and standard deviations of its predictions with those of ChEES-HMC, if that runs
too, Monte Carlo errors of both included. A candidate with an R-hat above 1.05 in any repeat is
marked "not converged": its ESS is not valid, and its ratios are omitted. Pyro runs four chains, one
after another.

Every run is written to `--log` as soon as it is measured, one line of JSON each.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sampler_problems import CONVERGED_RHAT, Problem, problem, quality
from benchmarks.sampler_worker import checked_worker
from benchmarks.timing import ratio_of, row
from bnn_symm.inference import Automatic

PROBLEMS = ("breast_cancer", "gap", "digits")
OURS, MCLMC, BESIDE = "ChEES-HMC", "MCLMC", "NUTS"
NUMPYRO, PYRO = "NumPyro NUTS", "Pyro NUTS, jit"
ENGINES = {OURS: "chees_hmc", MCLMC: "mclmc", BESIDE: "nuts", NUMPYRO: "numpyro", PYRO: "pyro"}
# Problem -> candidate -> (chains, warm-up iterations, draws, tree depth). ChEES-HMC has no trees,
# and MCLMC has steps per draw in their place.
SETTINGS = {
    "breast_cancer": {
        OURS: (16, 200, 200, 10),
        MCLMC: (16, 300, 400, 3),
        BESIDE: (16, 200, 200, 10),
        NUMPYRO: (16, 200, 200, 10),
        PYRO: (4, 200, 200, 10),
    },
    "gap": {
        OURS: (16, 200, 100, 8),
        MCLMC: (16, 300, 300, 40),
        BESIDE: (16, 200, 60, 8),
        NUMPYRO: (16, 200, 150, 8),
    },
    "digits": {
        OURS: (16, 150, 80, 6),
        MCLMC: (16, 200, 200, 3),
        BESIDE: (16, 100, 50, 6),
        NUMPYRO: (16, 100, 50, 6),
    },
}
ENERGY_VARIANCE = Automatic().energy_variance
REPEATS = {"breast_cancer": 3, "gap": 2, "digits": 2}
# A smoke test.
QUICK = {OURS: (16, 20, 20, 4), NUMPYRO: (16, 20, 20, 4)}
# Ratios of this package to the peer.
TARGETS = {
    ("gap", NUMPYRO): 5.0,
    ("breast_cancer", NUMPYRO): 5.0,
    ("breast_cancer", PYRO): 20.0,
    ("digits", NUMPYRO): 1.5,
}


def measure(
    *,
    quick: bool = False,
    problems: Sequence[str] = PROBLEMS,
    repeats: int | None = None,
    log: Path | None = None,
    only: Sequence[str] = tuple(ENGINES),
    energy_variance: float = ENERGY_VARIANCE,
) -> list[dict[str, Any]]:
    """Return the rows of the table: for every problem and peer, after and including warm-up."""
    torch.set_num_threads(1)
    rows = []
    for name in problems[:1] if quick else problems:
        number = repeats or (1 if quick else REPEATS[name])
        candidates = (QUICK if quick else SETTINGS[name]).items()
        chosen = {label: settings for label, settings in candidates if label in only}
        if not chosen:
            raise SystemExit(f"none of {', '.join(only)} is measured on {name}")
        rows += _rows(problem(name), _run(problem(name), chosen, number, log, energy_variance))
    return rows


def _run(
    setup: Problem,
    candidates: dict[str, tuple[int, int, int, int]],
    repeats: int,
    log: Path | None,
    energy_variance: float,
) -> dict[str, list[dict[str, Any]]]:
    """Return candidate -> its results, seed by seed."""
    runs: dict[str, list[dict[str, Any]]] = {label: [] for label in candidates}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        most = max(chains for chains, *_ in candidates.values())
        path = setup.write(Path(folder) / "problem.npz", chains=most, seeds=range(1, repeats + 1))
        workers = {
            label: stack.enter_context(checked_worker(ENGINES[label], path)) for label in candidates
        }
        for seed in range(1, repeats + 1):
            exact = None
            for label, worker in workers.items():
                settings = dict(
                    zip(("chains", "iterations", "draws", "depth"), candidates[label], strict=True)
                )
                own = {"energy_variance": energy_variance} if label == MCLMC else {}
                warm = worker("warmup", seed=seed, accept=0.8, **settings, **own)
                answer, positions = worker.sample(settings["draws"])
                predictions = setup.predictions(positions)
                run = _result(settings, predictions, warm, answer) | {"seed": seed}
                if label == OURS:
                    exact = predictions
                elif label == MCLMC and exact is not None:
                    run |= _bias(predictions, exact)
                runs[label].append(run)
                if log is not None:
                    with log.open("a") as lines:
                        lines.write(
                            json.dumps({"problem": setup.name, "candidate": label} | run) + "\n"
                        )
    return runs


def _bias(predictions: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Return how predictions, (chain, draw, input), differ from those of an exact sampler."""
    sd = exact.std((0, 1))
    shift = (predictions.mean((0, 1)) - exact.mean((0, 1))) / sd
    spread = predictions.std((0, 1)) / sd
    return {
        "mean_difference": float(np.sqrt(np.mean(shift**2))),
        "sd_ratio": float(np.exp(np.log(spread).mean())),
        "largest_sd_ratio": float(spread.max()),
    }


def _result(
    settings: dict[str, Any], predictions: np.ndarray, warm: dict[str, Any], answer: dict[str, Any]
) -> dict[str, Any]:
    result = quality(predictions)
    busy, warm_busy = answer["busy_seconds"], warm["busy_seconds"]
    return {
        **settings,
        **result,
        "warmup_seconds": warm["seconds"],
        "sampling_seconds": answer["seconds"],
        "compile_seconds": warm["compile_seconds"] + answer["compile_seconds"],
        "warmup_busy_seconds": warm_busy,
        "sampling_busy_seconds": busy,
        "divergences": answer["divergences"],
        "steps_per_draw": answer["steps_per_draw"],
        "after": result["ess_bulk_min"] / busy,
        "included": result["ess_bulk_min"] / (busy + warm_busy),
    }


def _converged(runs: list[dict[str, Any]]) -> bool:
    return all(run["rhat_max"] <= CONVERGED_RHAT for run in runs)


def _rows(setup: Problem, runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    pairs = [(OURS, NUMPYRO), (OURS, PYRO), (MCLMC, NUMPYRO)]
    return [
        _row(setup, runs, key, title, own, peer)
        for key, title in (("after", "after warm-up"), ("included", "warm-up included"))
        for own, peer in pairs
        if own in runs and peer in runs
    ]


def _row(
    setup: Problem,
    runs: dict[str, list[dict[str, Any]]],
    key: str,
    title: str,
    own: str,
    peer: str,
) -> dict[str, Any]:
    ours, theirs = (runs[label] if _converged(runs[label]) else None for label in (own, peer))
    result = None
    if ours and theirs:
        result = ratio_of([a[key] / b[key] for a, b in zip(ours, theirs, strict=True)])
    shown = [label for label in runs if label in (own, peer) or (own == OURS and label == BESIDE)]
    return row(
        f"smallest bulk ESS of predictions per second, {own}, {title}; {setup.title}",
        ours=statistics.median(run[key] for run in ours) if ours else None,
        peer=peer,
        theirs=statistics.median(run[key] for run in theirs) if theirs else None,
        unit="ESS/s",
        ratio=result,
        target=TARGETS.get((setup.name, peer)),
        sense="at least",
        limit="the limit is independent draws, with an ESS of about their number",
        note="; ".join(_description(label, runs[label]) for label in shown),
        details={"runs": {label: runs[label] for label in shown}},
    )


def _description(label: str, runs: list[dict[str, Any]]) -> str:
    keys = ("ess_bulk_min", "after", "included", "compile_seconds", "steps_per_draw")
    middle = {key: statistics.median(run[key] for run in runs) for key in keys}
    first = runs[0]
    bias = ""
    if "sd_ratio" in first:
        means, spread = (
            statistics.median(run[key] for run in runs) for key in ("mean_difference", "sd_ratio")
        )
        most = max(run["largest_sd_ratio"] for run in runs)
        bias = (
            f", means differ by {means:.3f} standard deviations (root mean square), standard "
            f"deviations by a factor of {spread:.3f} (at most {most:.3f})"
        )
    rates = (
        f"{middle['after']:.1f} and with warm-up {middle['included']:.1f} per second, "
        if _converged(runs)
        else ""
    )
    return (
        f"{label} ({first['chains']} chains, {first['iterations']} + {first['draws']}): "
        f"{'' if _converged(runs) else 'not converged, '}largest R-hat "
        f"{max(run['rhat_max'] for run in runs):.3f}, ESS {middle['ess_bulk_min']:.0f}, "
        f"{rates}{middle['steps_per_draw']:.0f} steps per draw, "
        f"divergences {sum(run['divergences'] for run in runs)}, "
        f"compilation {middle['compile_seconds']:.0f} s{bias}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument(
        "--repeats", type=int, help="runs of each candidate, each with its own seed"
    )
    parser.add_argument("--log", type=Path, help="file that every run is appended to at once")
    parser.add_argument("--only", nargs="*", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--energy-variance", type=float, default=ENERGY_VARIANCE, help="of MCLMC")
    parser.add_argument("--quick", action="store_true", help="a smoke test: short trees, few draws")
    options = parser.parse_args()
    rows = measure(
        quick=options.quick,
        problems=options.problems,
        repeats=options.repeats,
        log=options.log,
        only=options.only,
        energy_variance=options.energy_variance,
    )
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
