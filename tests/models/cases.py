"""Every likelihood with a network and targets that fit it, small and in float64."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network
from bnn_symm.models import (
    AnyLikelihood,
    BayesianModel,
    Bernoulli,
    Categorical,
    Gaussian,
    GaussianMixture,
    HeteroscedasticGaussian,
    HeteroscedasticStudentT,
    LogNormal,
    MultivariateGaussian,
    NegativeBinomial,
    Ordinal,
    Poisson,
    Prior,
    StudentT,
    Weibull,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
)
from bnn_symm.models.likelihoods import condition, num_classes, num_columns
from bnn_symm.randomness import torch_generator

NUM_CLASSES = 3


@dataclass(frozen=True)
class Case:
    likelihood: AnyLikelihood
    num_outputs: int
    symmetry: SymmetryConfig = field(default_factory=SymmetryConfig)

    def model(self, prior: Prior | None = None) -> BayesianModel:
        config = MLPConfig(widths=(3,), activation="tanh", norm="layer", symmetry=self.symmetry)
        net = build_network(config, input_shape=(2,), num_outputs=self.num_outputs).double()
        return BayesianModel(net, prior or Prior(), self.likelihood)

    def targets(self, number: int, seed: int = 0) -> Tensor:
        generator = torch_generator(seed, "targets")
        if self.likelihood.task == "classification":
            classes = num_classes(self.likelihood, self.num_outputs)
            return torch.randint(classes, (number,), generator=generator)
        if self.likelihood.task == "count":
            counts = torch.randint(5, (number,), generator=generator).double()
            if condition(self.likelihood) is None:
                return counts
            return torch.stack([counts, 0.2 + torch.rand(number, generator=generator)], dim=1)
        if self.likelihood.task == "survival":
            time = torch.rand(number, generator=generator, dtype=torch.float64) + 0.1
            return torch.stack([time, (torch.arange(number) % 3 > 0).double()], dim=1)
        columns = num_columns(self.likelihood)
        shape = (number,) if columns == 1 else (number, columns)
        return torch.randn(shape, generator=generator, dtype=torch.float64)


CASES = {
    "categorical": Case(Categorical(), NUM_CLASSES),
    "bernoulli": Case(Bernoulli(), 1),
    "gaussian-fixed": Case(Gaussian(noise=0.3), 1),
    "gaussian-learned": Case(Gaussian(log_noise_mean=-0.7, log_noise_sd=0.6), 1),
    "heteroscedastic": Case(HeteroscedasticGaussian(), 2),
    "independent-columns": Case(MultivariateGaussian(num_columns=2, log_noise_mean=-0.4), 2),
    "correlated-columns": Case(MultivariateGaussian(num_columns=3, covariance="full"), 3),
    "student-fixed": Case(StudentT(noise=0.4, degrees_of_freedom=3.0), 1),
    "student-learned": Case(StudentT(log_noise_mean=-0.3, log_excess_sd=0.8), 1),
    "heteroscedastic-student": Case(HeteroscedasticStudentT(log_excess_sd=0.8), 2),
    "heteroscedastic-student-fixed": Case(HeteroscedasticStudentT(degrees_of_freedom=3.0), 2),
    "mixture": Case(GaussianMixture(num_components=3), 9),
    "ordinal": Case(Ordinal(num_classes=4, log_gap_mean=0.2, log_gap_sd=0.7), 1),
    "poisson": Case(Poisson(), 1),
    "negative-binomial-fixed": Case(NegativeBinomial(dispersion=0.6), 1),
    "negative-binomial-learned": Case(NegativeBinomial(log_dispersion_mean=-0.4), 1),
    "zero-inflated-poisson": Case(ZeroInflatedPoisson(), 2),
    "zero-inflated-fixed": Case(ZeroInflatedNegativeBinomial(dispersion=0.6), 2),
    "zero-inflated-learned": Case(ZeroInflatedNegativeBinomial(), 2),
    "poisson-exposure": Case(Poisson(exposure=True), 1),
    "negative-binomial-exposure": Case(NegativeBinomial(exposure=True), 1),
    "zero-inflated-exposure": Case(ZeroInflatedNegativeBinomial(exposure=True), 2),
    "weibull-fixed": Case(Weibull(shape=1.6), 1),
    "weibull-learned": Case(Weibull(log_shape_mean=0.2), 1),
    "lognormal-fixed": Case(LogNormal(noise=0.7), 1),
    "lognormal-learned": Case(LogNormal(log_noise_sd=0.9), 1),
    # With one fixed entry of two inputs, two of the three rows of the first layer's weight would be
    # the same.
    "fixed-entries": Case(
        Categorical(), NUM_CLASSES, SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(0, 1))
    ),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch_generator(seed, "normal"), dtype=torch.float64)
