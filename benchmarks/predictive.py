"""Measure the predictive of 1,000 draws on 10,000 inputs against as many deterministic passes.

    python -m benchmarks.predictive [--quick]

All run on one thread. A deterministic pass is the network under `torch.no_grad` on the 10,000
inputs in chunks of 1,024; results are dropped. The predictive is `Posterior.predict` on the slices
of inputs that `Posterior.iter_predict` uses for 1,000 draws. Outputs of all draws exist for one
slice at a time, so memory is bounded. The class probabilities follow from them. Fewer draws are
timed, on those slices, and seconds are scaled, because both sides are proportional to the number of
draws. Peak memory is that of a separate process, for the small network with all 1,000 draws.
"""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.timing import interleaved, print_rows, ratio, row
from bnn_symm import BayesianModel, Categorical, MLPConfig, Prior, SamplePosterior, build_network
from bnn_symm.data import Scaling
from bnn_symm.posteriors.lazy_draws import LazyDraws
from bnn_symm.posteriors.predictive import Predictive

POINTS, CHUNK = 10_000, 1024
# The slices of `iter_predict` for 1,000 draws of 10 outputs: 2^25 numbers at a time.
SLICE = 2**25 // 10_000
# Name -> number of timed draws, inputs, widths.
NETWORKS = {"64-50-50-10": (250, 64, (50, 50)), "784-400-400-10": (5, 784, (400, 400))}


def random_inputs(name: str, draws: int) -> tuple[SamplePosterior, torch.Tensor]:
    """Return random draws of the network's weights, and random inputs."""
    _, features, widths = NETWORKS[name]
    net = build_network(MLPConfig(widths=widths), input_shape=(features,), num_outputs=10)
    model = BayesianModel(net, Prior(), Categorical())
    generator = torch.Generator().manual_seed(0)
    positions = model.initial() + 0.02 * torch.randn(
        1, draws, model.num_parameters, generator=generator
    )
    posterior = SamplePosterior(
        model,
        Scaling(x_mean=torch.zeros(features), x_scale=torch.ones(features)),
        positions=LazyDraws.from_tensor(positions),
    )
    return posterior, torch.randn(POINTS, features, generator=generator)


def predictives(posterior: SamplePosterior, x: torch.Tensor) -> Iterator[Predictive]:
    """Yield the predictive of one slice of the inputs after another."""
    return (posterior.predict(part) for part in x.split(SLICE))


def summarize(posterior: SamplePosterior, x: torch.Tensor) -> torch.Tensor:
    """Return class probabilities of all inputs."""
    return torch.cat([part.probabilities() for part in predictives(posterior, x)])


def peak_megabytes(name: str, draws: int) -> float:
    """Return the peak memory of a process that predicts, beyond the draws themselves."""
    code = f"""
import torch; torch.set_num_threads(1)
from benchmarks.predictive import random_inputs, summarize
def peak():
    lines = open("/proc/self/status")
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000
posterior, x = random_inputs({name!r}, {draws})
before = peak()
summarize(posterior, x)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    return float(done.stdout.strip().splitlines()[-1])


def measure(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the table, one for each network."""
    torch.set_num_threads(1)
    rows = []
    for name, (number, _, _) in NETWORKS.items():
        draws = 5 if quick else number
        posterior, x = random_inputs(name, draws)
        net = posterior.model.net

        def passes(net: Any = net, x: torch.Tensor = x, draws: int = draws) -> None:
            with torch.no_grad():
                for _ in range(draws):
                    for start in range(0, POINTS, CHUNK):
                        net(x[start : start + CHUNK])

        candidates = {
            "outputs": lambda posterior=posterior, x=x: [None for _ in predictives(posterior, x)],
            "probabilities": lambda posterior=posterior, x=x: summarize(posterior, x),
            "passes": passes,
        }
        found = interleaved(candidates, repeats=2 if quick else 9)
        whole = 1000 / draws
        # benchmarks/predict_memory.py measures 1,000 draws of the large network, from a file.
        memory = (
            f"{peak_megabytes(name, 1000):.0f} MB in addition to 1,000 draws"
            if name.startswith("64")
            else ""
        )
        for what in ("outputs", "probabilities"):
            rows.append(
                row(
                    f"predictive of 1,000 draws on {POINTS:,} inputs, {what}; MLP {name}",
                    ours=whole * found[what].median,
                    peer="1,000 deterministic passes",
                    theirs=whole * found["passes"].median,
                    unit="s",
                    ratio=ratio(found[what], found["passes"]),
                    target=1.2 if what == "outputs" else None,
                    limit="the deterministic passes are the limit",
                    note="; ".join(
                        part for part in (f"{draws} draws timed, times {whole:g}", memory) if part
                    ),
                )
            )
    return rows


if __name__ == "__main__":
    print_rows(measure, __doc__)
