r"""Scale the temperature of class probabilities, fitted on the validation split.

    p_tau(y | x)  proportional to  p(y | x)^(1 / tau),     p(y | x) the mixture over all draws

tau minimizes the NLL, which has a single minimum, because it is convex in 1 / tau. For a single
draw this divides its logits. The most likely class does not change. tau is not the temperature T of
the posterior: the draws do not change, but their disagreement in predictions, such as mutual
information, is lost, because a single calibrated distribution remains.

Dividing the logits of every draw before averaging is a different method: as tau decreases every
draw votes for one class, so the NLL of a mixture may have its minimum without calibration.

References:
    Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599, section 4.2.
"""

import dataclasses
import math
from dataclasses import dataclass

import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.data import Split
from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.formatting import number
from bnn_symm.models import Categorical
from bnn_symm.models.likelihoods import is_classification, num_classes
from bnn_symm.posteriors import LazyDraws, Posterior, Predictive
from bnn_symm.summaries import Result
from bnn_symm.symmetry import Permutation

# Range of tau. At the ends only the most likely class has probability, or all are nearly uniform.
_LOWEST, _HIGHEST = 0.01, 100.0


@dataclass(frozen=True, kw_only=True)
class TemperatureScaling(Result):
    """A fitted temperature of the log probabilities.

    Attributes:
        logit_temperature: tau; above 1 if predictions were overconfident.
        points: Number of points of the fit.
        nll_before: NLL of these points, in nats per point, at tau = 1.
        nll: The same at tau.
        is_bounded: Whether tau is at an end of its range, 0.01 to 100.
    """

    _keys = ("conclusion", "logit_temperature", "points", "nll_before", "nll", "is_bounded")

    logit_temperature: float
    points: int
    nll_before: float
    nll: float
    is_bounded: bool

    def apply(self, posterior: Posterior) -> "TemperatureScaledPosterior":
        """Return the posterior with its predictions scaled."""
        return TemperatureScaledPosterior(posterior, self.logit_temperature)

    @property
    def conclusion(self) -> str:
        """Return a description of tau and its effect on the NLL."""
        tau = self.logit_temperature
        reason = "an end of its range" if self.is_bounded else _meaning(tau)
        return (
            f"log probabilities divided by {number(tau, 4)}, {reason}; NLL of the {self.points} "
            "validation points: "
            f"{number(self.nll_before, 4)} before, {number(self.nll, 4)} after"
        )


def _meaning(logit_temperature: float) -> str:
    return (
        "because predictions were overconfident"
        if logit_temperature > 1
        else "because predictions were underconfident"
    )


def fit_temperature(posterior: Posterior, part: Split) -> TemperatureScaling:
    """Fit the temperature that minimizes the NLL of a part.

    Args:
        posterior: Posterior of a classification.
        part: Points that are neither fitted nor tested, such as the validation split.

    Returns:
        The temperature, and the NLL before and after.

    Raises:
        ConfigError: If the target is not a class.
        InvalidData: If the part has no points.
    """
    likelihood = posterior.model.likelihood
    if not is_classification(likelihood):
        raise ConfigError(
            f"temperature scaling needs class probabilities, and likelihood {likelihood.name} has "
            f"none{advise('; remove --temperature-scaling', '')}"
        )
    if len(part) == 0:
        raise InvalidData(
            "temperature scaling is fitted on the validation split, which has no points; fit with "
            "data.validation_fraction=0.1"
        )
    log_p = torch.cat([_mixture(predictive) for predictive in posterior.iter_predict(part.x)])
    tau, before, after = optimal_temperature(log_p, part.y.to(log_p.device))
    return TemperatureScaling(
        logit_temperature=tau,
        points=len(part),
        nll_before=before,
        nll=after,
        is_bounded=not _LOWEST * 1.01 < tau < _HIGHEST / 1.01,
    )


def optimal_temperature(
    log_p: Float[Tensor, "point class"], y: Int[Tensor, " point"]
) -> tuple[float, float, float]:
    """Return the temperature of log probabilities that minimizes the NLL.

    Args:
        log_p: In float64, so that the minimum is resolved.
        y: The classes.

    Returns:
        The temperature, between 0.01 and 100, and the NLL at temperature 1 and at this one.
    """

    def nll(log_temperature: float) -> float:
        scaled = (log_p / math.exp(log_temperature)).log_softmax(-1)
        return -float(scaled.gather(1, y[:, None]).mean())

    ends = (math.log(_LOWEST), math.log(_HIGHEST))
    result = scipy.optimize.minimize_scalar(
        nll, bounds=ends, method="bounded", options={"xatol": 1e-6}
    )
    return math.exp(float(result.x)), nll(0.0), float(result.fun)


class TemperatureScaledPosterior(Posterior):
    """A posterior with scaled predictions; its draws are those of the base posterior.

    Args:
        base: The posterior.
        logit_temperature: tau, positive.
    """

    def __init__(self, base: Posterior, logit_temperature: float):
        super().__init__(base.model, base.scaling, info=base.info, history=base.history)
        self.kind = base.kind
        self.logit_temperature = logit_temperature
        self._base = base

    @property
    def positions(self) -> LazyDraws:
        """Return the draws of the base posterior."""
        return self._base.positions

    def mean(self) -> Float[Tensor, " parameter"]:
        """Return the mean of the base posterior."""
        return self._base.mean()

    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """Return the standard deviation of the base posterior."""
        return self._base.standard_deviation()

    def draws(
        self, num_samples: int | None = None, *, seed: int = 0
    ) -> Float[Tensor, "draw parameter"]:
        """Return draws of the base posterior."""
        return self._base.draws(num_samples, seed=seed)

    def permute(self, permutation: Permutation) -> "TemperatureScaledPosterior":
        """Return the posterior with its hidden units permuted; predictions do not change."""
        return TemperatureScaledPosterior(self._base.permute(permutation), self.logit_temperature)

    def predict(self, x: Float[Tensor, "point *feature"]) -> Predictive:
        """Return the scaled mixture, as the prediction of one draw."""
        return _scaled(self._base.predict(x), self.logit_temperature)


def draw_log_probabilities(predictive: Predictive) -> Float[Tensor, "draw point class"]:
    """Return the log probabilities of every draw, in float64.

    Args:
        predictive: Of a classification.
    """
    outputs, likelihood = predictive.outputs.double(), predictive.likelihood
    if isinstance(likelihood, Categorical):  # all classes at once
        return outputs.flatten(0, 1).log_softmax(-1)
    latents = {name: value.double() for name, value in predictive.latents.items()}
    labels = range(num_classes(likelihood, outputs.shape[-1]))
    points = torch.arange(outputs.shape[2])
    by_class = [
        likelihood.log_prob(outputs, torch.full_like(points, label), latents) for label in labels
    ]
    return torch.stack(by_class, dim=-1).flatten(0, 1)


def _mixture(predictive: Predictive) -> Float[Tensor, "point class"]:
    """Return log probabilities of the mixture over all draws."""
    by_draw = draw_log_probabilities(predictive)
    return by_draw.logsumexp(0) - math.log(len(by_draw))


def _scaled(predictive: Predictive, logit_temperature: float) -> Predictive:
    logits = _mixture(predictive) / logit_temperature
    outputs = logits.to(predictive.outputs.dtype)[None, None]
    return dataclasses.replace(predictive, outputs=outputs, latents={}, likelihood=Categorical())
