"""Define the problems on which samplers are measured, as models and as arrays for peers.

`gap`: MLP 1-50-50-1 on 100 points with a gap, Gaussian noise of 0.1 in standardized units.
`gap_few`: the same on 54 of them. `gap_narrow`: MLP 1-16-1 on these 54.
`breast_cancer`: MLP 30-16-1, Bernoulli. `digits`: MLP 64-50-50-10 on 1,500 digits, categorical.
All have tanh units and use float32. A peer reads one npz file with data, prior scales, initial
positions, and the density and its gradient at some points. It checks its model against these
values before anything is timed.

ESS is computed for functions of the network that do not depend on the order of hidden units: at 100
test inputs the output of the network (gap), the log odds of the second class, or the log odds of
the true class. Bulk ESS and R-hat use ranks, so probabilities would give the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import torch

from bnn_symm import (
    BayesianModel,
    Bernoulli,
    Categorical,
    Gaussian,
    MLPConfig,
    Prior,
    build_network,
)
from bnn_symm.data import Dataset, load_dataset
from bnn_symm.inference.fit_context import initial_positions
from bnn_symm.models import AnyLikelihood
from bnn_symm.models.priors.prior import PriorOverride

NOISE = 0.1
TEST_INPUTS = 100
# With a larger split R-hat of any prediction the chains disagree, and ESS is not comparable.
CONVERGED_RHAT = 1.05
# Number of draws whose outputs are computed at once: a few megabytes.
_CHUNK = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Define one network, prior, likelihood and data set.

    Attributes:
        name: on the command line.
        title: in tables.
        sizes: of the layers, including inputs and outputs.
        kind: of likelihood: gaussian, bernoulli or categorical.
    """

    name: str
    title: str
    sizes: tuple[int, ...]
    kind: str
    model: BayesianModel
    dataset: Dataset

    @property
    def test(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the test inputs of the predictions, (input, feature), and their targets."""
        part = self.dataset.test
        rows = torch.linspace(0, len(part) - 1, TEST_INPUTS).round().long()
        return part.x[rows].flatten(1), part.y[rows]

    def log_density(self, position: torch.Tensor) -> torch.Tensor:
        """Return the normalized log density in nats."""
        return -self.model.potential(position, self.dataset.train.x, self.dataset.train.y)

    def predictions(self, positions: np.ndarray) -> np.ndarray:
        """Return predictions, (chain, draw, input), of positions (chain, draw, parameter)."""
        x, y = self.test
        chains, draws, parameters = positions.shape
        flat = positions.reshape(-1, parameters)
        found = np.concatenate(
            [
                self._outputs(torch.tensor(flat[start : start + _CHUNK]), x, y)
                for start in range(0, len(flat), _CHUNK)
            ]
        )
        return found.reshape(chains, draws, TEST_INPUTS)

    def _outputs(self, positions: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            outputs = torch.func.vmap(self.model.outputs, in_dims=(0, None))(positions, x)
        if self.kind != "categorical":
            return outputs[..., 0].numpy()
        true = torch.nn.functional.one_hot(y, outputs.shape[-1]).bool()
        others = outputs.masked_fill(true, -torch.inf).logsumexp(-1)
        return (outputs.masked_fill(~true, 0).sum(-1) - others).numpy()

    def write(self, path: Path, *, chains: int, seeds: Sequence[int]) -> Path:
        """Write the data for peers, with `chains` initial positions for each seed."""
        (block,) = self.model.parameter_prior.blocks
        starts = torch.stack([starting_positions(self.model, chains, seed) for seed in seeds])
        evaluated = [torch.func.grad_and_value(self.log_density)(start) for start in starts[0, :4]]
        np.savez(
            path,
            name=np.array(self.name),
            x=self.dataset.train.x.flatten(1).numpy(),
            y=self.dataset.train.y.numpy(),
            sizes=np.array(self.sizes),
            kind=np.array(self.kind),
            noise=np.array(NOISE),
            scales=block.scales(torch.empty(0)).numpy(),
            seeds=np.array(seeds),
            starts=starts.numpy(),
            values=np.array([float(value) for _, value in evaluated]),
            gradients=torch.stack([gradient for gradient, _ in evaluated]).numpy(),
        )
        return path


def starting_positions(model: BayesianModel, chains: int, seed: int) -> torch.Tensor:
    """Return the initial positions of a fit with this seed, for all candidates."""
    return torch.stack(initial_positions(model, None, chains, seed))


def _problem(
    name: str,
    widths: tuple[int, ...],
    likelihood: AnyLikelihood,
    prior: Prior,
    *,
    data_name: str | None = None,
    **data: Any,
) -> Problem:
    data_name = data_name or name
    dataset = load_dataset(data_name, validation_fraction=0, **data)
    outputs = likelihood.num_net_outputs(dataset.num_outputs)
    net = build_network(
        MLPConfig(widths=widths, activation="tanh"),
        input_shape=dataset.input_shape,
        num_outputs=outputs,
    )
    sizes = (int(np.prod(dataset.input_shape)), *widths, outputs)
    return Problem(
        name=name,
        title=f"MLP {'-'.join(map(str, sizes))}, {data_name}, {len(dataset.train):,} points",
        sizes=sizes,
        kind=likelihood.name,
        model=BayesianModel(net, prior, likelihood),
        dataset=dataset,
    )


@cache
def problem(name: str) -> Problem:
    """Return a problem by name: gap, gap_few, gap_narrow, breast_cancer or digits."""
    match name:
        case "gap_narrow":
            few = {"data_name": "gap", "limit": 54}
            return _problem(name, (16,), Gaussian(noise=NOISE), Prior(scale="fan_in"), **few)
        case "gap" | "gap_few":
            # The first layer has scales that allow the oscillations of the function. The others
            # scale with fan-in; otherwise functions of 50 hidden units per layer are far larger
            # than the data.
            wide = PriorOverride(scale=2.0)
            prior = Prior(scale="fan_in", overrides={"layers.0.*": wide})
            few = {"limit": 54} if name == "gap_few" else {}
            return _problem(name, (50, 50), Gaussian(noise=NOISE), prior, data_name="gap", **few)
        case "breast_cancer":
            return _problem("breast_cancer", (16,), Bernoulli(), Prior(scale="fan_in"))
        case "digits":
            # 297 of 1,797 digits are test points.
            prior = Prior(scale="fan_in")
            return _problem(
                "digits", (50, 50), Categorical(), prior, test_fraction=0.165, limit=1500
            )
    raise SystemExit(
        f"no problem {name!r}; wanted gap, gap_few, gap_narrow, breast_cancer or digits"
    )


def quality(predictions: np.ndarray) -> dict[str, float]:
    """Return the smallest bulk ESS and the largest split R-hat over inputs, by ArviZ.

    Both follow Vehtari et al. 2021 (arXiv:1903.08008).

    Args:
        predictions: (chain, draw, input).
    """
    values = arviz.convert_to_dataset({"prediction": predictions.astype(np.float64)})
    bulk = arviz.ess(values, method="bulk")["prediction"].to_numpy()
    return {
        "ess_bulk_min": float(bulk.min()),
        "ess_bulk_median": float(np.median(bulk)),
        "rhat_max": float(arviz.rhat(values)["prediction"].to_numpy().max()),
    }
