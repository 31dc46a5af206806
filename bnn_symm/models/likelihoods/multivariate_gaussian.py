"""Define the likelihood of several numbers for each point. Targets are standardized, by column."""

import math
from typing import Literal

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from bnn_symm.errors import ConfigError
from bnn_symm.models.likelihoods.gaussian import Gaussian
from bnn_symm.models.likelihoods.likelihood import Latents, NumberLikelihood, matrix_root
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import Positive, PositiveInt, settings


@settings
class MultivariateGaussian(NumberLikelihood):
    """Model y ~ Normal(outputs, D C D), with the learned noise D of each column and correlations C.

    With `covariance: full`, C is a correlation matrix in terms of its canonical partial
    correlations tanh(z_ij), j < i, which are unconstrained: z_ij is the correlation of columns i
    and j given columns 0, ..., j - 1, on Fisher's scale (Lewandowski, Kurowicka and Joe 2009,
    doi:10.1016/j.jmva.2009.04.008). Its Cholesky factor has the entries

        L_ij = tanh(z_ij) prod_{m < j} sech(z_im),   L_ii = prod_{m < i} sech(z_im).

    Attributes:
        num_columns: number of target columns; null: that of the data.
        covariance: `diagonal`: the noise of different columns is independent; `full`: it is
            correlated.
        log_noise_mean: prior mean of the log of the noise of each column, in standardized units.
        log_noise_sd: prior standard deviation of the log of the noise. The defaults are those of
            `gaussian`.
        correlation_sd: standard deviation of the normal priors of z_ij, which have mean 0. At the
            default, correlations of two columns are nearly uniform, as under LKJ(1), whose z have a
            standard deviation of 0.91; smaller values favor small correlations.
    """

    name: Literal["multivariate_gaussian"] = "multivariate_gaussian"
    num_columns: PositiveInt | None = None
    covariance: Literal["diagonal", "full"] = "diagonal"
    log_noise_mean: float = -1.0
    log_noise_sd: Positive = 1.0
    correlation_sd: Positive = 0.9

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """Return the priors of `log_noise_0`, ..., and of `z_1_0`, ... of a full covariance.

        Raises:
            ConfigError: if the number of columns is not known.
        """
        if self.num_columns is None:
            raise ConfigError(
                "likelihood multivariate_gaussian: the number of columns is not known; write "
                "MultivariateGaussian(num_columns=K), with K = dataset.num_outputs"
            )
        noise = (self.log_noise_mean, self.log_noise_sd)
        result = {f"log_noise_{i}": noise for i in range(self.num_columns)}
        if self.covariance == "full":
            result |= {
                _pair(i, j): (0.0, self.correlation_sd)
                for i in range(self.num_columns)
                for j in range(i)
            }
        return result

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return the number of target columns: one mean for each.

        Args:
            num_outputs: number of target columns of the data set.

        Raises:
            ConfigError: if the likelihood is for another number.
        """
        if self.num_columns not in (None, num_outputs):
            raise ConfigError(
                f"likelihood.num_columns={self.num_columns}, but the data have {num_outputs} "
                "target columns; remove likelihood.num_columns"
            )
        return num_outputs

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point output"],
        y: Float[Tensor, "point output"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Return the joint log density of the columns."""
        total = torch.full_like(outputs[..., 0], -0.5 * math.log(2 * math.pi) * y.shape[-1])
        white: list[Tensor] = []
        for i in range(y.shape[-1]):
            log_sd = latents[f"log_noise_{i}"].unsqueeze(-1)
            residual = (y[:, i] - outputs[..., i]) * (-log_sd).exp()
            if self.covariance == "full":
                # Forward substitution, row by row, with 1 / sech = cosh.
                log_diagonal = torch.zeros_like(log_sd)
                for j in range(i):
                    z = latents[_pair(i, j)].unsqueeze(-1)
                    residual = residual - z.tanh() * log_diagonal.exp() * white[j]
                    log_diagonal = log_diagonal - _log_cosh(z)
                residual = residual * (-log_diagonal).exp()
                log_sd = log_sd + log_diagonal
            white.append(residual)
            total = total - 0.5 * residual.square() - log_sd
        return total

    def _cholesky(self, latents: Latents) -> Float[Tensor, "*draw column column"]:
        """Return the Cholesky factor of the covariance."""
        size = self.num_columns or 0
        like = latents["log_noise_0"]
        rows = []
        for i in range(size):
            row, log_diagonal = [], torch.zeros_like(like)
            for j in range(i):
                z = latents[_pair(i, j)] if self.covariance == "full" else torch.zeros_like(like)
                row.append(z.tanh() * log_diagonal.exp())
                log_diagonal = log_diagonal - _log_cosh(z)
            row += [log_diagonal.exp(), *[torch.zeros_like(like)] * (size - i - 1)]
            rows.append(latents[f"log_noise_{i}"].exp().unsqueeze(-1) * torch.stack(row, -1))
        return torch.stack(rows, -2)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's MultivariateNormal over the columns."""
        factor = self._cholesky(latents).unsqueeze(-3)
        return dist.MultivariateNormal(outputs, scale_tril=factor)

    def marginal(self, column: int, latents: Latents) -> tuple[Gaussian, dict[str, Tensor]]:
        """Return the likelihood of one column alone, and its latent variables.

        Args:
            column: number of the column.
            latents: latent variables, each (...).
        """
        return Gaussian(), {"log_noise": latents[f"log_noise_{column}"]}

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[y] of each column given each draw, (..., point, column)."""
        return outputs

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[y] of each column given each draw, (..., point, column)."""
        noise = [latents[f"log_noise_{i}"] for i in range(outputs.shape[-1])]
        return (2 * torch.stack(noise, -1)).exp().unsqueeze(-2).expand_as(outputs)

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return a root of the information of the means and the latent variables.

        Of the means it is the inverse covariance S^-1, and of the variables t_a, t_b of S it is
        tr(S^-1 dS/dt_a S^-1 dS/dt_b) / 2.
        """
        names = list(self.latents)
        values = torch.stack([latents[name] for name in names])

        def factor(own: Tensor) -> Tensor:
            return self._cholesky(dict(zip(names, own.unbind(), strict=True)))

        inverse = torch.linalg.inv(factor(values))
        jacobian = torch.func.jacrev(factor)(values)
        # With S = L L^T and A_a = L^-1 dL/dt_a: tr(...) / 2 = tr((A_a + A_a^T)(A_b + A_b^T)) / 2.
        change = torch.einsum("ij,jka->aik", inverse, jacobian)
        change = change + change.mT
        information = 0.5 * torch.einsum("aij,bij->ab", change, change)
        root = torch.block_diag(inverse, matrix_root(information))
        return root.expand(len(outputs), *root.shape)


def _pair(i: int, j: int) -> str:
    """Return the name of the variable of the correlation of two columns, i > j."""
    return f"z_{i}_{j}"


def _log_cosh(z: Tensor) -> Tensor:
    return z + softplus(-2 * z) - math.log(2)
