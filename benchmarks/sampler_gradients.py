"""Measure seconds per gradient and chain inside NUTS and MCLMC, NumPyro and BlackJAX.

    python -m benchmarks.sampler_gradients [--quick]

Processor seconds of sampling (wall seconds of a shared core are not informative; they are in
`results.json` as well), after warm-up and without compilation, are divided by the gradients of all
chains: one per leapfrog step of a tree, two per step of minimal norm of MCLMC. Steps that a
vectorized sampler computes for chains whose tree is finished take time and are not counted. All
candidates have the same initial values and warm-up; those of NUTS also the same depth and target
acceptance. They are timed long before convergence, where trees reach their maximum depth. The limit
is the matrix products of as many gradients, alone and in one batch.
"""

import itertools
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gradient import matrix_products
from benchmarks.sampler_jax import STEPS_PER_DRAW
from benchmarks.sampler_problems import Problem, problem
from benchmarks.sampler_worker import Answer, Worker, checked_worker
from benchmarks.timing import print_rows, ratio, row, timing_of

# Our engine of each method, and those of its peers.
PEERS = {
    "nuts": {"numpyro": "NumPyro NUTS", "blackjax": "BlackJAX NUTS"},
    "mclmc": {"blackjax_mclmc": "BlackJAX MCLMC"},
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Define the work of a round.

    Attributes:
        warmup: iterations of warm-up.
        depth: maximum depth of trees.
        chains: numbers of chains.
        draws: by method, draws of all chains together in a round.
    """

    warmup: int
    depth: int
    chains: tuple[int, ...]
    draws: dict[str, int]


# There are enough draws because a run of NumPyro has an overhead of 0.3 s.
SETTINGS = {
    "gap_narrow": Setting(
        # After 20 iterations chains of BlackJAX diverge early and wait for the trees of others.
        warmup=100,
        depth=6,
        chains=(4, 16),
        draws={"nuts": 8_000, "mclmc": 4_000},
    ),
    "gap": Setting(warmup=20, depth=6, chains=(4, 16), draws={"nuts": 640, "mclmc": 1_280}),
    "digits": Setting(warmup=4, depth=5, chains=(4, 16), draws={"nuts": 64, "mclmc": 96}),
}
# A smoke test, most of which is compilation.
QUICK = {"gap_narrow": Setting(warmup=4, depth=3, chains=(4,), draws={"nuts": 16, "mclmc": 16})}


def seconds_of_products(setup: Problem, chains: int, repeats: int) -> float | None:
    """Return processor seconds of the matrix products of one gradient per chain, one thread.

    The result is None for a network of single inputs and outputs, which needs no products.
    """
    if all(min(pair) == 1 for pair in itertools.pairwise(setup.sizes)):
        return None
    products = matrix_products(setup, chains)
    products()
    started = time.process_time()
    for _ in range(repeats):
        products()
    return (time.process_time() - started) / repeats / chains


def measure(*, quick: bool = False, repeats: int = 3) -> list[dict[str, Any]]:
    """Return the rows of the table, one for each problem, number of chains and peer."""
    torch.set_num_threads(1)
    settings = QUICK if quick else SETTINGS
    return [
        line
        for name, setting in settings.items()
        for line in _measure(problem(name), setting, 2 if quick else repeats)
    ]


def _measure(setup: Problem, setting: Setting, repeats: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = setup.write(Path(folder) / "problem.npz", chains=max(setting.chains), seeds=[1])
        workers = {
            name: stack.enter_context(checked_worker(name, path))
            for method, peers in PEERS.items()
            for name in (method, *peers)
        }
        for chains in setting.chains:
            answers = _rounds(workers, setting, chains, repeats)
            limit = seconds_of_products(setup, chains, 100)
            for method in PEERS:
                title = f"{chains} chains, per chain; {setup.title}"
                note = _note(method, setting, chains, repeats)
                rows += _rows(method, answers, title, limit, note)
    return rows


def _rounds(
    workers: dict[str, Worker], setting: Setting, chains: int, repeats: int
) -> dict[str, list[Answer]]:
    """Return the answers of every engine, round by round; engines draw in turn."""
    settings, draws = {}, {}
    for method, peers in PEERS.items():
        for name in (method, *peers):
            draws[name] = setting.draws[method] // chains
            settings[name] = {
                "chains": chains,
                "iterations": setting.warmup,
                "draws": draws[name],
                "depth": setting.depth if method == "nuts" else STEPS_PER_DRAW,
                "accept": 0.8,
                "seed": 1,
            }
            if name != method:
                workers[name]("warmup", **settings[name])
                workers[name].sample(draws[name])  # compiles
    answers: dict[str, list[Answer]] = {name: [] for name in workers}
    for _ in range(repeats):
        for name, worker in workers.items():
            if name in PEERS:  # ours warm up and draw in one fit
                worker("warmup", **settings[name])
            answers[name].append(worker.sample(draws[name])[0])
    return answers


def _rows(
    method: str, answers: dict[str, list[Answer]], title: str, limit: float | None, note: str
) -> list[dict[str, Any]]:
    timings = {
        name: timing_of([answer["busy_seconds"] / answer["steps"] for answer in of_worker])
        for name, of_worker in answers.items()
    }
    ours = timings[method]
    products = ""
    if limit is not None:
        products = f"matrix products alone {1e3 * limit:.4f} ms; ours {ours.median / limit:.1f} x"
    return [
        row(
            f"gradient inside {method.upper()}, {title}",
            ours=1e3 * ours.median,
            peer=label,
            theirs=1e3 * timings[name].median,
            unit="ms",
            ratio=ratio(ours, timings[name]),
            target=1.0,
            limit=products,
            note=note + (_useful(answers[name]) if method == "nuts" else ""),
            details={
                "ours": answers[method],
                "theirs": answers[name],
                "matrix_products_seconds": limit,
            },
        )
        for name, label in PEERS[method].items()
    ]


def _note(method: str, setting: Setting, chains: int, repeats: int) -> str:
    work = f"{setting.warmup} iterations of warm-up, {repeats} x {setting.draws[method] // chains}"
    if method == "nuts":
        return f"a timing, not converged: tree depth at most {setting.depth}, {work} draws"
    return f"a timing, not converged: {work} draws of {2 * STEPS_PER_DRAW} gradients"


def _useful(answers: list[Answer]) -> str:
    steps, computed = (sum(answer[key] for answer in answers) for key in ("steps", "lane_steps"))
    return f"; fraction of computed steps that count: {steps / computed:.0%}"


if __name__ == "__main__":
    print_rows(measure, __doc__)
