"""Seconds, memory and objective of aligning two mean-field posteriors, by width.

    python benchmarks/alignment.py [--widths 64 128 ...] [--resnet 1 2 4]

The two are independent random posteriors of an MLP with three hidden layers (784 inputs), or of a ResNet-20 with
`width_multiplier`: unstructured, which is the hardest case for an assignment, and then one and its own noisy
permutation, where the answer is known. `share` is the part of the planted distance that was removed.
"""

import argparse
import resource
import time

import torch

from bnn_symm.alignment import align
from bnn_symm.architectures import MLPConfig, ResNetConfig, build_network
from bnn_symm.data import Scaling
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import GaussianPosterior
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import symmetry_group
from bnn_symm.threads import available_cores

NOISE = 0.5


def model_of(width: int, resnet: bool) -> BayesianModel:
    if resnet:
        net = build_network(ResNetConfig(width_multiplier=width), input_shape=(3, 32, 32), num_outputs=10)
    else:
        net = build_network(MLPConfig(widths=(width,) * 3), input_shape=(784,), num_outputs=10)
    return BayesianModel(net, Prior(scale="fan_in"), Categorical())


def posterior(model: BayesianModel, seed: int) -> GaussianPosterior:
    loc = model.initial(seed)
    noise = torch.rand(loc.shape, generator=torch_generator(seed, "scales"))
    return GaussianPosterior(model, Scaling.identity((1,)), loc=loc, scale=0.01 + 0.04 * noise)


def row(name: str, width: int, resnet: bool) -> None:
    model = model_of(width, resnet)
    started = time.perf_counter()
    group = symmetry_group(model.net)
    derived = time.perf_counter() - started
    first, second = posterior(model, 0), posterior(model, 1)
    started = time.perf_counter()
    found = align(first, second, group=group)
    seconds = time.perf_counter() - started
    planted = first.permute(group.random("planted"))
    spread = first.loc.std()
    shaken = planted.loc + NOISE * spread * torch.randn(planted.loc.shape, generator=torch_generator("noise"))
    noisy = GaussianPosterior(model, first.scaling, loc=shaken, scale=planted.scale)
    started = time.perf_counter()
    recovered = align(first, noisy, group=group)
    planted_seconds = time.perf_counter() - started
    floor = float((shaken - planted.loc).square().sum())
    share = (recovered.distance_before - recovered.distance_after) / (recovered.distance_before - floor)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"| {name} | {model.num_parameters:,} | {derived:.1f} | {seconds:.1f} | {found.solver} | "
        f"{found.distance_before:.1f} | {found.coordinate_from_identity:.1f} | {found.distance_after:.1f} | "
        f"{planted_seconds:.1f} | {share:.4f} | {memory:.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="*", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--resnet", type=int, nargs="*", default=[1, 4])
    options = parser.parse_args()
    torch.set_num_threads(available_cores())
    print("| network | weights | derive s | align s | solver | distance | coordinate | best | planted s | share | GB |")
    print("|" + " --- |" * 11)
    for width in options.widths:
        row(f"MLP 784-{width}-{width}-{width}-10", width, False)
    for multiplier in options.resnet:
        row(f"ResNet-20 x{multiplier}", multiplier, True)


if __name__ == "__main__":
    main()
