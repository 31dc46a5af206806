"""The likelihoods and priors of this package keep the contract that users run on their own."""

import math

import pyro.distributions as dist
import pytest
import torch

from bnn_symm.likelihoods import Gaussian
from bnn_symm.models import Prior
from bnn_symm.models.priors.families import FAMILIES, Laplace
from bnn_symm.testing import check_likelihood, check_prior
from tests.models.cases import CASES, normal
from tests.user_classes import LaplaceNoise, ScaledNormals


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_likelihoods_of_the_package(case) -> None:
    check_likelihood(case.likelihood, normal(4, case.num_outputs), case.targets(4))


@pytest.mark.parametrize("name", FAMILIES)
def test_priors_of_the_package(name) -> None:
    check_prior(Prior(name=name, scale="fan_in", degrees_of_freedom=5.0))


def test_classes_of_users() -> None:
    check_likelihood(LaplaceNoise(), normal(4, 1), normal(4, seed=1))
    check_prior(ScaledNormals())


class WrongConstant(Gaussian):
    def log_prob(self, outputs, y, latents):
        return super().log_prob(outputs, y, latents) - 0.1


class WrongSamples(Gaussian):
    def distribution(self, outputs, latents):
        return dist.Normal(outputs[..., 0], 1.1)


class WrongVariance(Gaussian):
    def variance(self, outputs, latents):
        return 2 * super().variance(outputs, latents)


class WrongCDF(Gaussian):
    def cdf(self, outputs, value, latents):
        return super().cdf(outputs, value + 0.1, latents)


class Unbatched(Gaussian):
    def log_prob(self, outputs, y, latents):
        return super().log_prob(outputs, y, latents).flatten()


class DataDependent(Gaussian):
    def log_prob(self, outputs, y, latents):
        return super().log_prob(outputs, y, latents) if outputs.max() > -9 else outputs[..., 0]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (WrongConstant, "against that of distribution"),
        (WrongSamples, "against that of distribution"),
        (WrongVariance, "^variance"),
        (WrongCDF, "^cdf|quantile"),
        (Unbatched, r"expected \(2, 3, point\)"),
    ],
)
def test_what_breaks_the_contract_of_likelihoods_is_named(kind, words) -> None:
    with pytest.raises(AssertionError, match=words):
        check_likelihood(kind(noise=0.7), normal(4, 1), normal(4, seed=1))


def test_control_flow_by_data_cannot_be_vectorized() -> None:
    with pytest.raises(RuntimeError, match="data-dependent"):
        check_likelihood(DataDependent(noise=0.7), normal(4, 1), normal(4, seed=1))


class NoScale(Laplace):
    def log_prob(self, value, scale):
        return -value.abs() - math.log(2.0)


class WrongFamilySamples(Laplace):
    def distribution(self, loc, scale):
        return dist.Normal(loc, scale)


class WrongCrossEntropy(Laplace):
    def cross_entropy(self, loc, sd, scale):
        return super().cross_entropy(loc, sd, scale) + 0.1


class ByPosition(Laplace):
    def log_prob(self, value, scale):
        return super().log_prob(value, scale) + (0.1 * torch.arange(value.numel())).reshape(
            value.shape
        )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (NoScale, "unit_variance"),
        (WrongFamilySamples, "Pyro distribution"),
        (WrongCrossEntropy, "^cross_entropy: its error is 0.1 nats"),
        (ByPosition, "integral of the density"),
    ],
)
def test_what_breaks_the_contract_of_priors_is_named(kind, words) -> None:
    with pytest.raises(AssertionError, match=words):
        check_prior(kind())
