"""Measure seconds per leapfrog step and chain inside NUTS with 16 chains, NumPyro and BlackJAX.

    python -m benchmarks.leapfrog [--quick]

Processor seconds of sampling (wall seconds of a shared core are not informative; they are in
`results.json` as well), after warm-up and without compilation, are divided by the leapfrog steps of
the trees of all chains. Steps that a vectorized sampler computes for chains whose tree is finished
take time and are not counted. All candidates have the same initial values, warm-up, depth and
target acceptance. They are timed long before convergence, where trees reach their maximum depth.
The limit is the matrix products of as many gradients, alone and in one batch.
"""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.gradient import matrix_products
from benchmarks.sampler_problems import Problem, problem
from benchmarks.sampler_worker import checked_worker
from benchmarks.timing import print_rows, ratio, row, timing_of

CHAINS = 16
ENGINES = {"numpyro": "NumPyro NUTS", "blackjax": "BlackJAX NUTS"}
# (warm-up iterations, draws per round, tree depth). There are enough draws because a run of
# NumPyro has an overhead of 0.3 s.
SETTINGS = {"gap": (20, 40, 6), "digits": (10, 8, 5)}
# A smoke test, most of which is compilation.
QUICK = {"gap": (4, 3, 3)}


def seconds_of_products(setup: Problem, repeats: int) -> float:
    """Return processor seconds of the matrix products of one gradient per chain, one thread."""
    products = matrix_products(setup, CHAINS)
    products()
    started = time.process_time()
    for _ in range(repeats):
        products()
    return (time.process_time() - started) / repeats / CHAINS


def measure(*, quick: bool = False, repeats: int = 5) -> list[dict[str, Any]]:
    """Return the rows of the table, one for each problem and peer."""
    torch.set_num_threads(1)
    settings = QUICK if quick else SETTINGS
    return [
        line
        for name in settings
        for line in _measure(problem(name), *settings[name], 2 if quick else repeats)
    ]


def _measure(
    setup: Problem, iterations: int, draws: int, depth: int, repeats: int
) -> list[dict[str, Any]]:
    engines = ["nuts", *ENGINES]
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = setup.write(Path(folder) / "problem.npz", chains=CHAINS, seeds=[1])
        workers = {name: stack.enter_context(checked_worker(name, path)) for name in engines}
        settings = {"chains": CHAINS, "iterations": iterations, "draws": draws, "depth": depth}
        settings |= {"accept": 0.8, "seed": 1}
        for name in ENGINES:
            workers[name]("warmup", **settings)
            workers[name].sample(draws)  # compiles
        for _ in range(repeats):
            for name, worker in workers.items():
                if name == "nuts":  # warms up and draws in one fit
                    worker("warmup", **settings)
                answers[name].append(worker.sample(draws)[0])
    timings = {
        name: timing_of([answer["busy_seconds"] / answer["steps"] for answer in of_worker])
        for name, of_worker in answers.items()
    }
    limit = seconds_of_products(setup, 100)
    ours = timings["nuts"]
    return [
        row(
            f"leapfrog step inside NUTS, {CHAINS} chains, per chain; {setup.title}",
            ours=1e3 * ours.median,
            peer=label,
            theirs=1e3 * timings[name].median,
            unit="ms",
            ratio=ratio(ours, timings[name]),
            target=1.0,
            limit=f"matrix products alone {1e3 * limit:.4f} ms; ours {ours.median / limit:.1f} x",
            note=(
                f"a timing, not converged: tree depth at most {depth}, {iterations} iterations of "
                "warm-up, "
                f"{repeats} x {draws} draws; fraction of computed steps that count: "
                f"{_useful(answers[name])}"
            ),
            details={
                "ours": answers["nuts"],
                "theirs": answers[name],
                "matrix_products_seconds": limit,
            },
        )
        for name, label in ENGINES.items()
    ]


def _useful(answers: list[dict[str, Any]]) -> str:
    steps, computed = (sum(answer[key] for answer in answers) for key in ("steps", "lane_steps"))
    return f"{steps / computed:.0%}"


if __name__ == "__main__":
    print_rows(measure, __doc__)
