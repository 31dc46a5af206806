r"""Temperature scaling: one number that makes class probabilities flatter or sharper, fitted on the validation part.

    p(y | x) = mean_s softmax(z_s(x) / tau)_y

for draws s of a posterior; tau minimises the NLL of this mixture. It is not the temperature T of the posterior: the
draws stay what they are. For one draw the predicted classes do too; of several, the mixture may change its mind.

For one draw the NLL has one minimum. For a mixture there may be a second one near tau = 0, where every draw votes for
one class and the votes are counted; what is found is the minimum to which the NLL falls from tau = 1.

References:
    Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599, section 4.2.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from bnn_symm.data import Part
from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.models import Bernoulli, Categorical
from bnn_symm.posteriors import Posterior, Predictive
from bnn_symm.symmetry import Permutation

# Where tau is looked for. At the ends probabilities are those of the largest logit alone, or nearly uniform.
_LOWEST, _HIGHEST = 0.01, 100.0
# Places, evenly spaced in log tau, over which it is followed downhill; the middle one is tau = 1.
_PLACES = 21
# Points that it is fitted to at most: the outputs of all draws there are in memory at once.
_MOST_POINTS = 5000


@dataclass(frozen=True, kw_only=True)
class TemperatureScaling:
    """A fitted temperature of the logits.

    Attributes:
        logit_temperature: tau; above 1 where predictions were too sure.
        points: that it was fitted to.
        nll_before: of these points, in nats a point, at tau = 1.
        nll: the same at tau.
        is_bounded: whether tau lies at an end of the range that was searched, 0.01 to 100.
    """

    logit_temperature: float
    points: int
    nll_before: float
    nll: float
    is_bounded: bool

    def apply(self, posterior: Posterior) -> "TemperatureScaledPosterior":
        """The posterior with its predictions scaled."""
        return TemperatureScaledPosterior(posterior, self.logit_temperature)

    @property
    def conclusion(self) -> str:
        """In words."""
        tau = self.logit_temperature
        found = f"{tau:.4g}, {'an end of the range that was searched' if self.is_bounded else _meaning(tau)}"
        return (
            f"logits divided by {found}; NLL of the {self.points} validation points: {self.nll_before:.4g} before, "
            f"{self.nll:.4g} after"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data, `conclusion` included."""
        return {"conclusion": self.conclusion, **dataclasses.asdict(self)}


def _meaning(logit_temperature: float) -> str:
    return "since predictions were too sure" if logit_temperature > 1 else "since predictions were not sure enough"


def fit_temperature(posterior: Posterior, part: Part) -> TemperatureScaling:
    """The temperature of the logits that predicts a part best.

    Args:
        posterior: of a classification.
        part: points that are neither fitted nor tested, such as the validation part; of many, the first 5,000.

    Raises:
        ConfigError: if the target is no class.
        InvalidData: if the part has no points.
    """
    likelihood = posterior.model.likelihood
    if not isinstance(likelihood, Categorical | Bernoulli):
        raise ConfigError(
            f"temperature scaling is for class probabilities, and likelihood {likelihood.name} has none; leave out "
            f"--temperature-scaling"
        )
    if len(part) == 0:
        raise InvalidData(
            "temperature scaling is fitted on the validation part, which has no points; fit with "
            "data.validation_fraction=0.1"
        )
    part = part.take(slice(0, _MOST_POINTS))
    # In float64, so that a minimum can be told from its neighbours.
    predictives = [
        dataclasses.replace(predictive, outputs=predictive.outputs.double())
        for predictive in posterior.iter_predict(part.x)
    ]
    targets = part.y.cpu().split([predictive.outputs.shape[2] for predictive in predictives])

    def nll(log_temperature: float) -> float:
        parts = [
            _scaled(predictive, math.exp(log_temperature)).log_prob(y)
            for predictive, y in zip(predictives, targets, strict=True)
        ]
        return -float(torch.cat(parts).mean())

    places = np.linspace(math.log(_LOWEST), math.log(_HIGHEST), _PLACES)
    values = [nll(float(place)) for place in places]
    best = _PLACES // 2
    while True:
        around = [max(0, best - 1), min(_PLACES - 1, best + 1)]
        lower = min(around, key=lambda place: values[place])
        if values[lower] >= values[best]:
            break
        best = lower
    found = minimize_scalar(nll, bounds=tuple(places[around]), method="bounded", options={"xatol": 1e-6})
    tau = math.exp(float(found.x))
    return TemperatureScaling(
        logit_temperature=tau,
        points=len(part),
        nll_before=nll(0.0),
        nll=float(found.fun),
        is_bounded=not _LOWEST * 1.01 < tau < _HIGHEST / 1.01,
    )


class TemperatureScaledPosterior(Posterior):
    """A posterior whose predictions have their logits divided by a number; its draws are those of the posterior.

    Args:
        base: the posterior.
        logit_temperature: tau, positive.
    """

    def __init__(self, base: Posterior, logit_temperature: float):
        super().__init__(base.model, base.scaling, info=base.info, history=base.history)
        self.kind = base.kind
        self.logit_temperature = logit_temperature
        self._base = base

    @property
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter)."""
        return self._base.shape

    def _read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        return self._base._read(chain, start, stop)

    def mean(self) -> Float[Tensor, " parameter"]:
        """Of the posterior."""
        return self._base.mean()

    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """Of the posterior."""
        return self._base.standard_deviation()

    def draws(self, num_samples: int | None = None, *, seed: int = 0) -> Float[Tensor, "draw parameter"]:
        """Of the posterior."""
        return self._base.draws(num_samples, seed=seed)

    def permute(self, permutation: Permutation) -> "TemperatureScaledPosterior":
        """Of the network with its hidden units permuted; it predicts the same."""
        return TemperatureScaledPosterior(self._base.permute(permutation), self.logit_temperature)

    def predict(self, x: Float[Tensor, "point *feature"]) -> Predictive:
        """The predictive distribution of the posterior, its logits divided by the temperature."""
        return _scaled(self._base.predict(x), self.logit_temperature)

    def save(self, path: str | Path, *, max_megabytes: float = 200.0) -> None:
        """Refused: files of posteriors have no temperature of logits.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{path}: a posterior is saved without temperature scaling; save the one that was scaled, and keep its "
            f"logit temperature, {self.logit_temperature:.6g}, beside it"
        )


def _scaled(predictive: Predictive, logit_temperature: float) -> Predictive:
    return dataclasses.replace(predictive, outputs=predictive.outputs / logit_temperature)
