"""Measure the peak memory of prediction from a file: it must stay below 2 GB.

    python benchmarks/predict_memory.py

The posterior has 1,000 draws of an MLP with 500,000 weights, and predicts 10,000 inputs.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from bnn_symm import BayesianModel, Categorical, MLPConfig, Prior, build_network
from bnn_symm.data import Scaling
from bnn_symm.posteriors import LazyDraws, SamplePosterior, load_posterior, save_posterior

DRAWS, POINTS, LIMIT_GB = 1000, 10_000, 2.0


def generated_draws(parameters: int) -> LazyDraws:
    """Generate draws when they are read, so that writing the file takes no memory either."""

    def read(chain: int, start: int, stop: int) -> torch.Tensor:
        return 0.05 * torch.randn(
            stop - start, parameters, generator=torch.Generator().manual_seed(start)
        )

    return LazyDraws((1, DRAWS, parameters), read)


def main() -> int:
    net = build_network(MLPConfig(widths=(400, 400)), input_shape=(1, 28, 28), num_outputs=10)
    model = BayesianModel(net, Prior(), Categorical())
    scaling = Scaling.identity((1, 28, 28))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "posterior.nc"
        save_posterior(
            SamplePosterior(model, scaling, positions=generated_draws(model.num_parameters)), path
        )
        posterior = load_posterior(path, model, scaling)
        x = torch.randn(POINTS, 1, 28, 28)
        started = time.perf_counter()
        rows = sum(len(part.mutual_information()) for part in posterior.iter_predict(x))
        seconds = time.perf_counter() - started
        gigabytes = path.stat().st_size / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{model.num_parameters} parameters, {DRAWS} draws ({gigabytes:.1f} GB), {rows} points: "
        f"{seconds:.0f} s, peak memory {peak:.2f} GB (limit {LIMIT_GB:g} GB)"
    )
    return 0 if peak <= LIMIT_GB else 1


if __name__ == "__main__":
    sys.exit(main())
