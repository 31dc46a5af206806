"""Seconds of a leapfrog step and chain inside NUTS, 16 chains: this toolkit, NumPyro and BlackJAX.

    python -m benchmarks.leapfrog [--quick]

Seconds of the processor (a core that others want too gives wall seconds that say little; these are
in `results.json` too) in drawing, after warm-up and without compilation, over the leapfrog steps
that the chains' trees hold. Steps that a vectorized sampler computes for chains whose tree is
finished cost time and do not count. This is a timing: all have the same starts, warm-up, depth and
target acceptance, long before anything has converged, where trees reach their bound. The limit is
the matrix products of as many gradients, alone and in one batch.
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
# (warm-up iterations, draws a round, tree depth). A run of NumPyro costs 0.3 s apart from its
# draws: enough of them.
SETTINGS = {"gap": (20, 40, 6), "digits": (10, 8, 5)}
# A smoke test, most of which is compilation.
QUICK = {"gap": (4, 3, 3)}


def seconds_of_products(own: Problem, repeats: int) -> float:
    """Processor seconds of the matrix products of one gradient of one chain, of a batch of them,
    one thread."""
    products = matrix_products(own, CHAINS)
    products()
    started = time.process_time()
    for _ in range(repeats):
        products()
    return (time.process_time() - started) / repeats / CHAINS


def measure(*, quick: bool = False, repeats: int = 5) -> list[dict[str, Any]]:
    """Rows of the table, one a problem and peer."""
    torch.set_num_threads(1)
    settings = QUICK if quick else SETTINGS
    return [
        line
        for name in settings
        for line in _measure(problem(name), *settings[name], 2 if quick else repeats)
    ]


def _measure(
    own: Problem, iterations: int, draws: int, depth: int, repeats: int
) -> list[dict[str, Any]]:
    engines = ["nuts", *ENGINES]
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = own.write(Path(folder) / "problem.npz", chains=CHAINS, seeds=[1])
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
        name: timing_of([own["busy_seconds"] / own["steps"] for own in told])
        for name, told in answers.items()
    }
    limit = seconds_of_products(own, 100)
    ours = timings["nuts"]
    return [
        row(
            f"leapfrog step inside NUTS, {CHAINS} chains, a chain; {own.title}",
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
                f"{repeats} x {draws} draws; steps of theirs that count, of those computed: "
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
    steps = sum(answer["steps"] for answer in answers)
    return f"{steps / sum(answer['lane_steps'] for answer in answers):.0%}"


if __name__ == "__main__":
    print_rows(measure, __doc__)
