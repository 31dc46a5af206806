"""Measure value and gradient of the log density against its matrix products.

    python -m benchmarks.gradient [--quick]

The network is MLP 64-50-50-10 on 1,500 digits, with one thread. The limit is the work of any
implementation: for each layer one product forwards and two products backwards (the first layer has
no gradient by its input), on existing arrays in the fastest layout. The ratio is above 1 because of
everything else (tanh, softmax, prior, sums). The potential of the same model in Pyro is shown as
well; its `jit_compile` refuses models that call a module with substituted parameters.
"""

import itertools
from typing import Any

import torch
from pyro.infer.mcmc.util import initialize_model

from benchmarks.sampler_problems import Problem, problem, starting_positions
from benchmarks.timing import interleaved, print_rows, ratio, row
from bnn_symm.inference.density.density import TemperedDensity


def matrix_products(setup: Problem, chains: int) -> Any:
    """Return a call that computes the matrix products of one gradient of each chain.

    The layout is the fastest that we know. Points are the last axis, the first layers of all chains
    are one product with the data, and chains are grouped for the caches as the density groups them.
    Single inputs and outputs need no matrix products.
    """
    group = _density(setup, chains, compile=False).group_size
    x = setup.dataset.train.x.flatten(1)
    layers = []
    for depth, (a, b) in enumerate(itertools.pairwise(setup.sizes)):
        if min(a, b) == 1:
            continue
        batch = () if depth == 0 else (group,)
        rows = group * b if depth == 0 else b
        w, y = torch.randn(*batch, rows, a), torch.randn(*batch, rows, len(x))
        hidden = x.mT if depth == 0 else torch.randn(group, a, len(x))
        layers.append(
            (hidden, w, y, torch.empty_like(hidden), torch.empty_like(w), torch.empty_like(y))
        )

    def products() -> None:
        for _ in range(0, chains, group):
            for depth, (hidden, w, y, of_hidden, of_w, out) in enumerate(layers):
                torch.matmul(w, hidden, out=out)
                torch.matmul(y, hidden.mT, out=of_w)
                if depth:
                    torch.matmul(w.mT, y, out=of_hidden)

    return products


def _density(setup: Problem, chains: int, *, compile: bool) -> TemperedDensity:
    positions = starting_positions(setup.model, chains, 0)
    return TemperedDensity(
        setup.model,
        setup.dataset.train,
        temperature=1.0,
        prior_weight=1.0,
        like=positions,
        compile=compile,
    )


def pyro_gradient(setup: Problem) -> Any:
    """Return a call of the potential of the model in Pyro and its gradient, for one chain."""
    part = setup.dataset.train
    start, potential, *_ = initialize_model(setup.model, model_args=(part.x, part.y))
    leaves = {name: value.detach().requires_grad_() for name, value in start.items()}

    def call() -> None:
        torch.autograd.grad(potential(leaves), list(leaves.values()))

    return call


def measure(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the table, one for each number of chains."""
    torch.set_num_threads(1)
    setup = problem("digits")
    rows = []
    for chains in (1, 16):
        positions = starting_positions(setup.model, chains, 0)
        density = _density(setup, chains, compile=True)
        candidates = {
            "ours": lambda density=density, positions=positions: density(positions),
            "products": matrix_products(setup, chains),
        }
        if chains == 1:
            candidates["Pyro"] = pyro_gradient(setup)
        found = interleaved(candidates, repeats=5 if quick else 40, inner=20 if chains == 1 else 2)
        products = found["products"]
        others = [
            f"{name} {1e3 * found[name].median:.2f} ms, {found[name].median / products.median:.1f} "
            "x"
            for name in found
            if name.startswith("Pyro")
        ]
        rows.append(
            row(
                f"gradient of the log density, {chains} chain{'s' * (chains > 1)}; {setup.title}",
                ours=1e3 * found["ours"].median,
                peer="matrix products alone",
                theirs=1e3 * products.median,
                unit="ms",
                ratio=ratio(found["ours"], products),
                target=1.3,
                limit="the matrix products are the limit",
                note="; ".join(others),
            )
        )
    return rows


if __name__ == "__main__":
    print_rows(measure, __doc__)
