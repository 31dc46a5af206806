"""Compare training on the symmetrized ELBO with training on the plain ELBO.

    python -m benchmarks.symmetrized_vi_study [--seeds 5] [--steps 2000]

The network has one hidden layer and few points: y = sin(1.5 x) + sigma noise at N points, x uniform
on [-2, 2], n ReLU units, prior Normal(0, 1), known noise. Each seed draws different data, initial
values and noise, the same for both trainings. The values are those of `diagnose`: the ELBO of q,
the exact mutual information I, and their sum, the ELBO of q averaged over all n! permutations. With
N = 20 and sigma = 0.1 units are distinct without help, I is log n! after either training, and the
gap is a constant.

References:
    Gelberg et al. (2024), arXiv:2408.05496; Kurle et al. (2022), arXiv:2209.07157.
"""

import argparse
import math
import statistics

import numpy as np
import torch

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import DataConfig, Dataset
from bnn_symm.diagnostics.elbo.elbo import elbo
from bnn_symm.diagnostics.elbo.symmetrized_elbo import SymmetrizedElbo, symmetrized_elbo
from bnn_symm.estimators.training_data import training_data
from bnn_symm.inference import MeanFieldVI, SymmetrizedVI
from bnn_symm.models import BayesianModel, Gaussian, Prior
from bnn_symm.posteriors import GaussianPosterior
from bnn_symm.randomness import key_seed, numpy_generator
from bnn_symm.threads import use_threads

# (points, sigma); the last is the control.
DATA = ((10, 0.5), (10, 1.0), (20, 0.1))
WIDTHS = (3, 5)


def draw_data(points: int, sigma: float, seed: int) -> Dataset:
    """Return data with only a training split, without standardization."""
    generator = numpy_generator(seed, "symmetrized vi study")
    x = generator.uniform(-2, 2, size=(points, 1))
    y = np.sin(1.5 * x[:, 0]) + sigma * generator.standard_normal(points)
    return training_data(
        x,
        y,
        DataConfig(validation_fraction=0.0, standardize=False),
        task="regression",
        class_labels=(),
        feature_names=None,
        target_names=("y",),
        dtype=torch.float64,
        seed=seed,
    )


def fitted(
    method: MeanFieldVI, width: int, sigma: float, data: Dataset, seed: int
) -> SymmetrizedElbo:
    """Return the ELBO of a fit as `diagnose` reports it."""
    net = build_network(MLPConfig(widths=(width,)), input_shape=(1,), num_outputs=1).double()
    model = BayesianModel(net, Prior(), Gaussian(noise=sigma))
    start = model.initial(key_seed(seed, "initial value"))
    initial = GaussianPosterior(
        model, data.scaling, loc=start, scale=torch.full_like(start, method.initial_scale)
    )
    posterior = method.fit(model, data, seed=seed, initial=initial)
    assert isinstance(posterior, GaussianPosterior)
    plain = elbo(posterior, data.train, seed=seed)
    assert plain is not None
    return symmetrized_elbo(posterior, plain, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="data sets (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=2000, help="of each fit (default: %(default)s)"
    )
    options = parser.parse_args()
    keys = {"num_steps": options.steps, "num_samples": 8}
    methods = {"plain": MeanFieldVI(**keys), "symmetrized": SymmetrizedVI(**keys)}
    print(
        "| N | sigma | n | log n! | trained | ELBO(q) | I | ELBO(q^G) | gain of ELBO(q^G), paired |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with use_threads(1):
        for points, sigma in DATA:
            for width in WIDTHS:
                found: dict[str, list[SymmetrizedElbo]] = {name: [] for name in methods}
                for seed in range(options.seeds):
                    data = draw_data(points, sigma, seed)
                    for name, method in methods.items():
                        found[name].append(fitted(method, width, sigma, data, seed))
                _print_rows(points, sigma, width, found)


def _print_rows(
    points: int, sigma: float, width: int, found: dict[str, list[SymmetrizedElbo]]
) -> None:
    gains = [
        new.value - old.value for old, new in zip(found["plain"], found["symmetrized"], strict=True)
    ]
    for name, own in found.items():
        cells = [
            _spread([one.elbo for one in own]),
            _spread([one.mutual_information for one in own]),
            _spread([one.value for one in own]),
            _spread(gains) if name == "symmetrized" else "",
        ]
        head = f"{points} | {sigma:g} | {width} | {math.lgamma(width + 1):.2f} | {name}"
        print(f"| {head} | {' | '.join(cells)} |", flush=True)


def _spread(values: list[float]) -> str:
    """Return mean and standard deviation over seeds."""
    spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


if __name__ == "__main__":
    main()
