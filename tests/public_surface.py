"""What a user writes, checked by pyright in strict mode: every type on the way is known.

Nothing here runs: `make types` reads it.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

import bnn_symm
from bnn_symm import (
    NUTS,
    BayesianModel,
    MeanFieldVI,
    MLPConfig,
    Posterior,
    Prior,
    SamplePosterior,
    align,
    align_samples,
    barrier,
    build_network,
    fit_run,
    load_config,
    load_dataset,
    load_run,
    permutation_spec,
    symmetry_group,
    synchronize,
)
from bnn_symm.diagnostics import mixing, score
from bnn_symm.likelihoods import Categorical, Gaussian


def fit(seed: int) -> Posterior:
    data = load_dataset("digits")
    net: nn.Module = build_network(
        MLPConfig(widths=(8,)), input_shape=data.input_shape, num_outputs=10, seed=seed
    )
    return MeanFieldVI(num_steps=10).fit(
        BayesianModel(net, Prior(), Categorical()), data, seed=seed
    )


def compare(first: Posterior, second: Posterior) -> float:
    data = load_dataset("digits")
    moved = align(first, second).apply(second)
    height: float = barrier(first, moved, data).height
    order: float = symmetry_group(first.model.net).log10_order
    groups: list[str] = list(permutation_spec(first.model.net).groups)
    together = synchronize([first, second]).apply([first, second])
    return height + order + len(groups) + len(together)


def sample(x: Tensor) -> Tensor:
    data = load_dataset("diabetes")
    model = BayesianModel(nn.Linear(10, 1), Prior(), Gaussian(noise=0.5))
    posterior = NUTS(num_chains=2).fit(model, data, seed=0)
    assert isinstance(posterior, SamplePosterior)
    print(mixing(posterior, data.test), score(posterior, data.test), align_samples(posterior))
    return posterior.predict(x).mean()


def run(folder: Path) -> str:
    finished = fit_run(load_config(None, ["data.name=iris"]), folder)
    again = load_run(folder)
    version: str = bnn_symm.__version__
    return f"{finished.status} {again.status} {version} {torch.__version__}"
