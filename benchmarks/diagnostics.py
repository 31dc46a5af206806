"""Measure R-hat, bulk and tail ESS of all weights of a posterior: seconds, memory, and ArviZ.

    python benchmarks/diagnostics.py [--chains 4] [--draws 500] [--weights 100000]

ArviZ is timed on 1,000 of the columns, one by one as it computes them, and its time is scaled up.
The values are compared there.
"""

import argparse
import resource
import time
import warnings

import numpy as np

from bnn_symm.diagnostics import chain_statistics


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--weights", type=int, default=100_000)
    options = parser.parse_args()
    # float32 draws with the autocorrelation of a sampler.
    values = np.random.default_rng(0).standard_normal(
        (options.chains, options.draws, options.weights), dtype=np.float32
    )
    for t in range(1, options.draws):
        values[:, t] = 0.7 * values[:, t - 1] + 0.7 * values[:, t]
    started = time.perf_counter()
    found = chain_statistics(values)
    ours = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"R-hat, bulk and tail ESS of {options.weights:,} weights: {ours:.1f} s, peak {peak:.2f} GB"
    )

    import arviz

    columns = values[:, :, : min(1000, options.weights)].astype(np.float64)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = arviz.convert_to_dataset({"w": columns})
        theirs = [
            arviz.rhat(dataset)["w"].values,
            arviz.ess(dataset)["w"].values,
            arviz.ess(dataset, method="tail")["w"].values,
        ]
    seconds = (time.perf_counter() - started) * options.weights / columns.shape[2]
    own = [array[: columns.shape[2]] for array in (found.rhat, found.ess_bulk, found.ess_tail)]
    difference = max(float(np.max(np.abs(a - b) / b)) for a, b in zip(own, theirs, strict=True))
    print(
        f"ArviZ {arviz.__version__}, scaled up from {columns.shape[2]:,}: {seconds:.0f} s, "
        f"{seconds / ours:.0f} times"
    )
    print(f"largest relative difference: {difference:.1e}")


if __name__ == "__main__":
    main()
