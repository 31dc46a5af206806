"""ChEES-HMC and cheaper methods on breast cancer, after Izmailov et al. (2021).

The network is an MLP with ten tanh units and a standard normal prior; replicates are splits of the
data. Settings are `hmc` (16 chains), `hmc again` (another seed), `cold` (the posterior at a tenth
of the temperature), `narrow` and `wide` (prior standard deviations of a third and of three), `map`,
`deep_ensemble` (10 members), `mean_field_vi` and `sgld`. Measures are `nll` and `accuracy` of the
test split, `nll_shifted` with standard normal noise added to the standardized inputs,
`total_variation` of the class probabilities to those of `hmc`, and for chains `rhat_weights` and
`rhat_functions`, the largest R-hat.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnn_symm import load_config
from bnn_symm.diagnostics import mixing
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.runs import Run
from claims.fits import fitted

REPLICATES = 5
_COMMON = (
    "data.name=breast_cancer",
    "architecture.widths=[10]",
    "architecture.activation=tanh",
    "threads=1",
)
_HMC = (
    "inference.name=chees_hmc",
    "inference.num_chains=16",
    "inference.num_warmup=500",
    "inference.num_draws=250",
)
_METHODS: dict[str, tuple[str, ...]] = {
    "hmc": _HMC,
    "hmc again": _HMC,
    "cold": (*_HMC, "inference.temperature=0.1", "inference.tempering=posterior"),
    "narrow": (*_HMC, "prior.scale=0.333"),
    "wide": (*_HMC, "prior.scale=3.0"),
    "map": ("inference.name=map",),
    "deep_ensemble": ("inference.name=deep_ensemble", "inference.num_members=10"),
    "mean_field_vi": ("inference.name=mean_field_vi",),
    "sgld": ("inference.name=sgld",),
}


def measure(replicate: int, runs: Path) -> list[dict[str, Any]]:
    """Return the row of each method.

    Args:
        replicate: number of the split.
        runs: directory of the experiment.

    Returns:
        The rows.
    """
    reference, rows = None, []
    for setting, keys in _METHODS.items():
        seed = replicate + (100 if setting == "hmc again" else 0)
        split = [f"data.split_seed={replicate}", f"seed={seed}"]
        run = fitted(load_config(None, [*_COMMON, *keys, *split]), runs)
        probabilities = _probabilities(run, 0.0)
        reference = probabilities if reference is None else reference
        y = run.dataset().test.y.long().numpy()
        row = {
            "setting": setting,
            "nll": _nll(probabilities, y),
            "accuracy": float((probabilities.argmax(1) == y).mean()),
            "nll_shifted": _nll(_probabilities(run, 1.0), y),
            "total_variation": float(0.5 * np.abs(probabilities - reference).sum(1).mean()),
        }
        if setting == "hmc":
            assert isinstance(run.posterior, SamplePosterior)
            found = mixing(run.posterior, run.dataset().test, per_draw=False)
            row["rhat_weights"] = found.raw.rhat_max
            row["rhat_functions"] = found.function.rhat_max
        rows.append(row)
    return rows


def _probabilities(run: Run, noise: float) -> np.ndarray:
    x = run.dataset().test.x
    generator = torch.Generator().manual_seed(0)
    x = x + noise * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return run.posterior.predict(x).probabilities().numpy()


def _nll(probabilities: np.ndarray, y: np.ndarray) -> float:
    chosen = probabilities[np.arange(len(y)), y]
    return float(-np.log(np.maximum(chosen, np.finfo(chosen.dtype).tiny)).mean())
