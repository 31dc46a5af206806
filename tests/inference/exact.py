"""Bayesian linear regression on `diabetes`: the exact (tempered) posterior, in float64."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Dataset, load_dataset
from bnn_symm.models import BayesianModel, Gaussian, Prior

NOISE = 0.7
TEMPERINGS = [(1.0, "likelihood"), (0.1, "likelihood"), (0.1, "posterior")]


def linear_model(noise: float | str = NOISE) -> tuple[BayesianModel, Dataset]:
    data = load_dataset("diabetes", dtype=torch.float64)
    net = build_network(MLPConfig(widths=()), input_shape=data.input_shape, num_outputs=1)
    return BayesianModel(net.double(), Prior(), Gaussian(noise=noise)), data


def design(data: Dataset) -> tuple[Tensor, Tensor]:
    """Features with a column of ones for the bias, in the order of the flat vector, and targets."""
    return torch.cat(
        [data.train.x, torch.ones(len(data.train), 1)], 1
    ).double(), data.train.y.double()


@dataclass(frozen=True)
class Exact:
    mean: Tensor
    precision: Tensor

    @property
    def sd(self) -> Tensor:
        return torch.linalg.inv(self.precision).diag().sqrt()

    @property
    def mean_field_sd(self) -> Tensor:
        """Standard deviations of the mean-field optimum: 1 / sqrt of the diagonal of the
        precision."""
        return self.precision.diag().rsqrt()


def exact_posterior(
    data: Dataset, temperature: float = 1.0, tempering: str = "likelihood"
) -> Exact:
    x, y = design(data)
    prior_weight = 1.0 if tempering == "likelihood" else 1.0 / temperature
    precision = x.T @ x / NOISE**2 / temperature + prior_weight * torch.eye(x.shape[1]).double()
    return Exact(torch.linalg.solve(precision, x.T @ y / NOISE**2 / temperature), precision)


def log_evidence(data: Dataset, noise: float = NOISE) -> float:
    """log p(y) in nats, in standardized units."""
    x, y = design(data)
    covariance = noise**2 * torch.eye(len(y)).double() + x @ x.T
    return float(
        torch.distributions.MultivariateNormal(torch.zeros(len(y)).double(), covariance).log_prob(y)
    )


def kl_from_diagonal(loc: Tensor, scale: Tensor, exact: Exact) -> float:
    """KL(Normal(loc, diag scale^2) || exact) in nats."""
    difference = loc - exact.mean
    trace = (exact.precision.diag() * scale.square()).sum()
    log_determinants = -torch.logdet(exact.precision) - 2 * scale.log().sum()
    return float(
        0.5 * (trace + difference @ exact.precision @ difference - len(loc) + log_determinants)
    )


def kl_from_normal(loc: Tensor, covariance: Tensor, exact: Exact) -> float:
    """KL(Normal(loc, covariance) || exact) in nats."""
    difference = loc - exact.mean
    trace = (exact.precision * covariance).sum()
    log_determinants = -torch.logdet(exact.precision) - torch.logdet(covariance)
    return float(
        0.5 * (trace + difference @ exact.precision @ difference - len(loc) + log_determinants)
    )


def log_jacobian(data: Dataset) -> float:
    """What changes a log density of all standardized targets into one in the target's own units."""
    return -len(data.train) * math.log(data.scaling.y_scale)
