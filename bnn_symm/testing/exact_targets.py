"""The exact posterior of Bayesian linear regression on `diabetes`, in float64, for tests.

A network without hidden units and with Gaussian noise of a known scale is a linear model. Its
posterior is normal for every temperature, with mean, covariance and evidence in closed form.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.arguments import checked
from bnn_symm.data import Dataset, load_dataset
from bnn_symm.errors import require_extra
from bnn_symm.models import BayesianModel, Gaussian, Prior, Tempering
from bnn_symm.posteriors import Posterior

NOISE = 0.7
TEMPERINGS: list[tuple[float, Tempering]] = [
    (1.0, "likelihood"),
    (0.1, "likelihood"),
    (0.1, "posterior"),
]
"""The pairs of `temperature` and `tempering` under which a method should be tested."""


@dataclass(frozen=True)
class ExactPosterior:
    """A normal posterior over the flat parameter vector.

    Attributes:
        mean: its mean.
        precision: the inverse of its covariance.
    """

    mean: Float[Tensor, " parameter"]
    precision: Float[Tensor, "parameter parameter"]

    @property
    def sd(self) -> Float[Tensor, " parameter"]:
        """Return the standard deviations."""
        return torch.linalg.inv(self.precision).diag().sqrt()

    @property
    def mean_field_sd(self) -> Float[Tensor, " parameter"]:
        """Return the standard deviations of the optimum of mean-field VI."""
        return self.precision.diag().rsqrt()


@checked
def linear_regression(
    noise: float | Literal["learned"] = NOISE,
) -> tuple[BayesianModel, Dataset]:
    """Return the linear model and its data.

    Args:
        noise: scale of the noise; with `learned`, the exact posterior is not known.
    """
    data = load_dataset("diabetes", dtype=torch.float64)
    net = build_network(MLPConfig(widths=()), input_shape=data.input_shape, num_outputs=1)
    return BayesianModel(net.double(), Prior(), Gaussian(noise=noise)), data


@checked
def design_matrix(
    data: Dataset,
) -> tuple[Float[Tensor, "point parameter"], Float[Tensor, " point"]]:
    """Return the features with a column of ones for the bias, and the targets.

    Args:
        data: the data of `linear_regression`. The columns have the order of the flat vector.
    """
    ones = torch.ones(len(data.train), 1)
    return torch.cat([data.train.x, ones], 1).double(), data.train.y.double()


@checked
def exact_posterior(
    data: Dataset, temperature: float = 1.0, tempering: Tempering = "likelihood"
) -> ExactPosterior:
    """Return the exact tempered posterior of `linear_regression`.

    Args:
        data: its data.
        temperature: as in the settings of a method.
        tempering: as in the settings of a method.
    """
    x, y = design_matrix(data)
    prior_weight = 1.0 if tempering == "likelihood" else 1.0 / temperature
    precision = x.T @ x / NOISE**2 / temperature + prior_weight * torch.eye(x.shape[1]).double()
    mean = torch.linalg.solve(precision, x.T @ y / NOISE**2 / temperature)
    return ExactPosterior(mean, precision)


@checked
def log_evidence(data: Dataset, noise: float = NOISE) -> float:
    """Return log p(y) in nats, in standardized units.

    Args:
        data: the data of `linear_regression`.
        noise: scale of the noise.
    """
    x, y = design_matrix(data)
    covariance = noise**2 * torch.eye(len(y)).double() + x @ x.T
    normal = torch.distributions.MultivariateNormal(torch.zeros(len(y)).double(), covariance)
    return float(normal.log_prob(y))


@checked
def log_jacobian(data: Dataset) -> float:
    """Return the term that turns a log density of standardized targets into one in their own unit.

    Args:
        data: the data.
    """
    return -data.train.total(data.scaling.log_jacobian(data.train.y))


@checked
def kl_from_diagonal(
    loc: Float[Tensor, " parameter"], scale: Float[Tensor, " parameter"], exact: ExactPosterior
) -> float:
    """Return KL(Normal(loc, diag scale^2) || exact) in nats.

    Args:
        loc: mean of the approximation.
        scale: its standard deviations.
        exact: the exact posterior.
    """
    return kl_from_normal(loc, scale.square().diag(), exact)


@checked
def kl_from_normal(
    loc: Float[Tensor, " parameter"],
    covariance: Float[Tensor, "parameter parameter"],
    exact: ExactPosterior,
) -> float:
    """Return KL(Normal(loc, covariance) || exact) in nats.

    Args:
        loc: mean of the approximation.
        covariance: its covariance.
        exact: the exact posterior.
    """
    difference = loc - exact.mean
    trace = (exact.precision * covariance).sum()
    log_determinants = -torch.logdet(exact.precision) - torch.logdet(covariance)
    return float(
        0.5 * (trace + difference @ exact.precision @ difference - len(loc) + log_determinants)
    )


@checked
def assert_exact_moments(
    posterior: Posterior,
    exact: ExactPosterior,
    *,
    num_errors: float = 4,
    min_ess: float = 400,
    max_rhat: float = 1.01,
) -> None:
    """Assert that draws of Markov chains have the exact means and variances.

    The tolerance is a number of Monte Carlo standard errors, estimated from the draws. With 4 of
    them, one of the 22 moments of a correct fit is further off with a probability of about
    22 * 6e-5 = 0.1 %.

    Args:
        posterior: the draws, in float64 and of at least two chains.
        exact: the exact posterior.
        num_errors: tolerance in Monte Carlo standard errors.
        min_ess: smallest effective sample size, below which the standard errors are unreliable.
        max_rhat: upper limit of R-hat; independent draws of short chains need a larger one.

    Raises:
        AssertionError: if a moment is further off.
    """
    require_extra("arviz", "arviz", "assert_exact_moments")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    chains, draws, _ = posterior.shape
    values = posterior.draws().double().unflatten(0, (chains, draws)).numpy()
    for i in range(values.shape[-1]):
        one, mean, sd = values[..., i], float(exact.mean[i]), float(exact.sd[i])
        squares = (one - mean) ** 2
        assert arviz.rhat(one) < max_rhat
        assert arviz.ess(one) >= min_ess
        assert abs(one.mean() - mean) <= num_errors * arviz.mcse(one)
        assert abs(squares.mean() - sd**2) <= num_errors * arviz.mcse(squares)
