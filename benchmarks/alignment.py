"""Measure alignment: against git-re-basin's weight matching, and its cost by width.

    python -m benchmarks.alignment [--quick]
    python -m benchmarks.alignment --widths 64 128 ... [--resnet 1 2 4]

The first command compares seconds and objective, the inner product of the weights of one network
with the permuted weights of the other, on pairs of independent MLPs 64-w-w-10 with ReLU units,
means only. Independent networks are the hardest case for an assignment. The peer is weight matching
as its paper describes it (algorithm 1), with the same BLAS and the same assignment solver. It is
compared with coordinate matching from one start. The relaxations, which take longer and reach
higher objectives, and the default, the best of several solvers, are shown as well, from one start.

The second command aligns two independent random posteriors of an MLP with three hidden layers (784
inputs), or of a ResNet-20 with `width_multiplier`, and then a posterior and its noisy permutation,
where the answer is known. `share` is the fraction of the planted distance that was removed.

References:
    Ainsworth et al. (2023), arXiv:2209.04836.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.timing import interleaved, ratio, ratio_of, row
from bnn_symm.alignment import Solver, align
from bnn_symm.alignment.objective import alignment_objective
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.frank_wolfe import frank_wolfe
from bnn_symm.alignment.solvers.sinkhorn import sinkhorn
from bnn_symm.architectures import MLPConfig, ResNetConfig, build_network
from bnn_symm.data import Scaling
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import GaussianPosterior
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import Permutation, symmetry_group
from bnn_symm.threads import available_cores

WIDTHS = (256, 512, 1024, 2048)
SOLVERS = {"coordinate": coordinate, "frank_wolfe": frank_wolfe, "sinkhorn": sinkhorn}
TITLES: dict[Solver, str] = {
    "coordinate": "the coordinate solver",
    "frank_wolfe": "Frank-Wolfe",
    "sinkhorn": "Sinkhorn matching",
    "auto": "align by default from one start",
}
# Number of timed rounds, by width: a round of a large width takes minutes.
ROUNDS = {256: 3, 512: 3, 1024: 1, 2048: 1}
NOISE = 0.5


def model_of(width: int, resnet: bool) -> BayesianModel:
    if resnet:
        net = build_network(
            ResNetConfig(width_multiplier=width), input_shape=(3, 32, 32), num_outputs=10
        )
    else:
        net = build_network(MLPConfig(widths=(width,) * 3), input_shape=(784,), num_outputs=10)
    return BayesianModel(net, Prior(scale="fan_in"), Categorical())


def posterior(model: BayesianModel, seed: int) -> GaussianPosterior:
    loc = model.initial(seed)
    noise = torch.rand(loc.shape, generator=torch_generator(seed, "scales"))
    return GaussianPosterior(model, Scaling.identity((1,)), loc=loc, scale=0.01 + 0.04 * noise)


def cost_row(name: str, width: int, resnet: bool) -> None:
    model = model_of(width, resnet)
    started = time.perf_counter()
    group = symmetry_group(model.net)
    derived = time.perf_counter() - started
    first, second = posterior(model, 0), posterior(model, 1)
    started = time.perf_counter()
    result = align(first, second, group=group)
    seconds = time.perf_counter() - started
    planted = first.permute(group.random("planted"))
    spread = first.loc.std()
    shaken = planted.loc + NOISE * spread * torch.randn(
        planted.loc.shape, generator=torch_generator("noise")
    )
    noisy = GaussianPosterior(model, first.scaling, loc=shaken, scale=planted.scale)
    started = time.perf_counter()
    recovered = align(first, noisy, group=group)
    planted_seconds = time.perf_counter() - started
    floor = float((shaken - planted.loc).square().sum())
    share = (recovered.distance_before - recovered.distance_after) / (
        recovered.distance_before - floor
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"| {name} | {model.num_parameters:,} | {derived:.1f} | {seconds:.1f} | {result.solver} | "
        f"{result.distance_before:.1f} | {result.coordinate_from_identity:.1f} | "
        f"{result.distance_after:.1f} | {planted_seconds:.1f} | {share:.4f} | {memory:.2f} |",
        flush=True,
    )


def weight_matching(first: list[Tensor], second: list[Tensor], seed: int) -> list[Tensor]:
    """Match the weights of an MLP with two hidden layers, as git-re-basin does.

    One layer at a time is matched, with the others fixed.

    Args:
        first: weight and bias of each layer of the network that stays.
        second: of the network whose hidden units are permuted.
        seed: of the random order of the layers.

    Returns:
        For each hidden layer, the old index of each new unit.
    """
    (w1, b1, w2, b2, w3, _), (v1, c1, v2, c2, v3, _) = first, second
    own_first = w1 @ v1.T + torch.outer(b1, c1)
    own_second = w3.T @ v3 + torch.outer(b2, c2)
    orders = [torch.arange(len(w1)), torch.arange(len(w2))]
    generator = np.random.default_rng(seed)
    improved = True
    while improved:
        improved = False
        for layer in generator.permutation(2):
            gain = (
                own_first + w2.T @ v2[orders[1]]
                if layer == 0
                else own_second + w2 @ v2[:, orders[0]].T
            )
            rows = torch.arange(len(gain))
            order = torch.from_numpy(linear_sum_assignment(gain.numpy(), maximize=True)[1])
            before, after = (
                float(gain[rows, one].double().sum()) for one in (orders[layer], order)
            )
            if after > before + 1e-9 * abs(before):
                orders[layer], improved = order, True
    return orders


def pair_of(width: int, pair: int) -> list[GaussianPosterior]:
    """Return posteriors around two independent networks 64-w-w-10, of which only means matter."""
    net = build_network(
        MLPConfig(widths=(width, width), activation="relu"), input_shape=(64,), num_outputs=10
    )
    model = BayesianModel(net, Prior(scale="fan_in"), Categorical())
    means = [model.initial(2 * pair + member) for member in range(2)]
    return [
        GaussianPosterior(model, Scaling.identity((1,)), loc=m, scale=torch.full_like(m, 0.01))
        for m in means
    ]


def comparison_rows(width: int, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of one width; every round is another pair of networks."""
    group = symmetry_group(pair_of(width, 0)[0].model.net)
    names = list(group.spec.groups)
    pairs = [pair_of(width, number) for number in range(rounds + 1)]
    gains: dict[str, list[float]] = {name: [] for name in (*TITLES, "peer")}

    def candidate(
        name: str, find: Callable[[GaussianPosterior, GaussianPosterior], Permutation]
    ) -> Callable[[], None]:
        def call() -> None:
            first, second = pairs[len(gains[name])]
            moved = first.model.permute(second.loc, find(first, second)).double()
            gains[name].append(float(first.loc.double() @ moved))

        return call

    def peer(first: GaussianPosterior, second: GaussianPosterior) -> Permutation:
        layers = [[*one.model.unflatten(one.loc).values()] for one in (first, second)]
        orders = weight_matching(*layers, seed=0)
        return Permutation(group.spec, dict(zip(names, orders, strict=True)))

    def ours(solver: Solver) -> Callable[[GaussianPosterior, GaussianPosterior], Permutation]:
        def find(first: GaussianPosterior, second: GaussianPosterior) -> Permutation:
            if solver == "auto":
                return align(first, second, matching="means", group=group, restarts=0).permutation
            objective = alignment_objective(first, second, group.spec, "means")
            return SOLVERS[solver](objective, group, group.spec.identity(), 0)[0]

        return find

    finders = {**{name: ours(name) for name in TITLES}, "peer": peer}
    # No warm-up round at large widths: nothing is compiled, and a round takes minutes.
    warm_up = 1 if rounds > 1 else 0
    result = interleaved(
        {n: candidate(n, f) for n, f in finders.items()}, repeats=rounds, warm_up=warm_up
    )
    higher = {n: [a / b for a, b in zip(gains[n], gains["peer"], strict=True)] for n in gains}
    rows = []
    for name, title in TITLES.items():
        shared: dict[str, Any] = {
            "peer": "git-re-basin's weight matching",
            "details": {"objectives": gains},
        }
        # The relaxations aim at a higher objective: their seconds have no target.
        target = 1.0 if name == "coordinate" else None
        rows.append(
            row(
                f"{title}, MLP 64-{width}-{width}-10: seconds",
                ours=result[name].median,
                theirs=result["peer"].median,
                unit="s",
                ratio=ratio(result[name], result["peer"]),
                target=target,
                note=f"{rounds} pair{'s' * (rounds > 1)} of networks",
                **shared,
            )
        )
        rows.append(
            row(
                f"{title}, MLP 64-{width}-{width}-10: objective",
                ours=float(np.median(gains[name])),
                theirs=float(np.median(gains["peer"])),
                unit="",
                ratio=ratio_of(higher[name]),
                target=1.0,
                sense="at least",
                **shared,
            )
        )
    return rows


def measure(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the table, two for each width and solver."""
    torch.set_num_threads(1)
    return [
        one
        for width in WIDTHS[: 1 if quick else None]
        for one in comparison_rows(width, 2 if quick else ROUNDS[width])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the smallest width, two pairs")
    parser.add_argument(
        "--widths",
        type=int,
        nargs="*",
        help="the cost of aligning posteriors of these MLPs instead",
    )
    parser.add_argument("--resnet", type=int, nargs="*", help="and of these ResNets; default 1 4")
    options = parser.parse_args()
    if options.widths is None and options.resnet is None:
        print(json.dumps(measure(quick=options.quick), indent=1))
        return
    torch.set_num_threads(available_cores())
    print(
        "| network | weights | derive s | align s | solver | distance | coordinate | best | "
        "planted s | share | GB |"
    )
    print("|" + " --- |" * 11)
    for width in options.widths or []:
        cost_row(f"MLP 784-{width}-{width}-{width}-10", width, False)
    for multiplier in options.resnet if options.resnet is not None else [1, 4]:
        cost_row(f"ResNet-20 x{multiplier}", multiplier, True)


if __name__ == "__main__":
    main()
