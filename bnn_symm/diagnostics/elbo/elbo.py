"""Estimate the evidence lower bound of a closed-form posterior, with its Monte Carlo error.

    ELBO = E_q[log p(y | w)] - KL(q || p) <= log p(y),

in nats, always untempered, for the whole training split, in the target's own units (including the
Jacobian of the standardization). The KL is analytic or a quadrature; only the expected log
likelihood is sampled.

Posterior and prior are independent over layers, so the KL is a sum over layers. Within a layer a
tensor contributes what it adds to the previous ones, and where weights do not covary, each
coordinate has its own KL. Divided by the number of parameters of a layer, it is the cost of
describing one of them to the precision of the posterior (Hinton and van Camp 1993).

References:
    Hinton and van Camp (1993), doi:10.1145/168304.168306; Blei, Kucukelbir and McAuliffe (2017),
    arXiv:1601.00670.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.architectures import count_flops
from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.diagnostics.mixing.parameter_index import layer_name
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import ClosedFormPosterior, GaussianPosterior, Posterior
from bnn_symm.randomness import torch_generator
from bnn_symm.torch_internals import batchable_kernels

# Sampling ends at the larger of these standard errors, in nats and as a share of the ELBO, or after
# this work, whichever comes first. A fit should not spend more on its ELBO than on its steps.
_STANDARD_ERROR, _SHARE = 0.005, 1e-4
_FLOPS = 5e10
_MIN_SAMPLES, _MAX_SAMPLES = 50, 20_000
# Draws are evaluated together up to this work per call, above which nothing is gained by it.
_FLOPS_PER_CALL, _MAX_DRAWS_PER_CALL = 5e7, 250


@dataclass(frozen=True, kw_only=True)
class KlShare:
    """The KL of a tensor or a layer.

    Attributes:
        kl: In nats.
        num_parameters: Number of free coordinates; fixed entries have no KL and are not counted.
    """

    kl: float
    num_parameters: int

    @property
    def nats_per_parameter(self) -> float:
        """Return the mean KL of a coordinate, in nats."""
        return self.kl / self.num_parameters

    @property
    def bits_per_parameter(self) -> float:
        """Return the mean KL of a coordinate, in bits."""
        return self.nats_per_parameter / math.log(2)


@dataclass(frozen=True, kw_only=True)
class Elbo:
    """An estimate of the ELBO, in nats.

    Attributes:
        value: expected_log_likelihood - kl.
        standard_error: Monte Carlo error of `value`.
        expected_log_likelihood: Sum over the whole training split.
        kl: KL(q || prior).
        num_samples: Number of draws of the weights.
        by_tensor: Name -> KL; the latent variables of the likelihood come last.
    """

    value: float
    standard_error: float
    expected_log_likelihood: float
    kl: float
    num_samples: int
    by_tensor: Mapping[str, KlShare]

    @property
    def by_layer(self) -> dict[str, KlShare]:
        """Return layer -> KL; each latent variable of the likelihood is a layer by itself."""
        layers: dict[str, KlShare] = {}
        for name, share in self.by_tensor.items():
            former = layers.get(layer_name(name), KlShare(kl=0.0, num_parameters=0))
            layers[layer_name(name)] = KlShare(
                kl=former.kl + share.kl, num_parameters=former.num_parameters + share.num_parameters
            )
        return layers


def kl_by_coordinate(posterior: GaussianPosterior) -> Float[Tensor, " parameter"]:
    """Return KL(q || prior) of every coordinate of the flat vector, in nats, in float64.

    Args:
        posterior: A mean-field posterior.

    Returns:
        One KL per parameter.
    """
    with torch.inference_mode():
        cross = posterior.model.cross_entropy(posterior.loc, posterior.scale).double()
        return (cross - posterior.scale.double().log() - 0.5 * math.log(2 * math.pi * math.e)).cpu()


def kl_by_tensor(posterior: ClosedFormPosterior) -> dict[str, KlShare]:
    """Return name -> KL, for every tensor of the flat vector, in its order.

    Args:
        posterior: A closed-form posterior.

    Returns:
        Name -> KL and number of parameters.
    """
    entropy = posterior.entropy_by_tensor()
    with torch.inference_mode():
        cross = posterior.model.cross_entropy(
            posterior.mean(), posterior.standard_deviation()
        ).double()
    return {
        name: KlShare(
            kl=float(cross[where].sum()) - entropy[name], num_parameters=where.stop - where.start
        )
        for name, where in posterior.model.slices().items()
    }


@checked
def elbo(posterior: Posterior, train: Split, *, seed: int = 0) -> Elbo | None:
    """Estimate the ELBO of a posterior; None without a closed form.

    If one pass over the data is too expensive, every sample uses a random subset of the points,
    scaled up. This is unbiased, and the variance of the subset is included in the standard error.

    Args:
        posterior: Any posterior.
        train: The training split of the data.
        seed: Seed of the draws.

    Returns:
        The estimate, or None.

    Example:
        >>> from bnn_symm import BayesianModel, Categorical, MeanFieldVI, Prior, load_dataset
        >>> data = load_dataset("iris")
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> posterior = MeanFieldVI(num_steps=5).fit(model, data, seed=0)
        >>> list(elbo(posterior, data.train.take(slice(0, 1))).by_tensor)
        ['weight', 'bias']
    """
    if not isinstance(posterior, ClosedFormPosterior):
        return None
    model = posterior.model
    size = len(train)
    train = train.to(model.device, model.dtype)
    flops = max(1, count_flops(model.net, tuple(train.x.shape[1:]), 1))
    points = min(size, max(1, int(_FLOPS / _MIN_SAMPLES / flops)))
    most = int(min(_MAX_SAMPLES, max(_MIN_SAMPLES, _FLOPS / (flops * points))))
    log_jacobian = train.total(posterior.scaling.log_jacobian(train.y))
    values = torch.empty(0, dtype=torch.float64)
    with torch.inference_mode():
        loc, sd = posterior.mean(), posterior.standard_deviation()
        kl = float(model.cross_entropy(loc, sd).sum(dtype=torch.float64)) - posterior.entropy()
        at_once = int(min(most, _MAX_DRAWS_PER_CALL, max(1, _FLOPS_PER_CALL / (flops * points))))
        for totals in _log_likelihoods(posterior, train, points, at_once, seed):
            values = torch.cat([values, totals.cpu() * (size / points)])
            error = max(_STANDARD_ERROR, _SHARE * abs(float(values.mean()) - log_jacobian - kl))
            enough = len(values) >= _MIN_SAMPLES and _standard_error(values) <= error
            if enough or len(values) >= most:
                break
    expected = float(values.mean()) - log_jacobian
    return Elbo(
        value=expected - kl,
        standard_error=_standard_error(values),
        expected_log_likelihood=expected,
        kl=kl,
        num_samples=len(values),
        by_tensor=kl_by_tensor(posterior),
    )


def _standard_error(values: Float[Tensor, " draw"]) -> float:
    return float(values.std()) / math.sqrt(len(values))


def _log_likelihoods(
    posterior: ClosedFormPosterior, train: Split, points: int, at_once: int, seed: int
) -> Iterator[Float[Tensor, " draw"]]:
    """Yield the log likelihoods of more and more draws, in float64, each summed over its points.

    Args:
        posterior: The posterior.
        train: The training split.
        points: Points per draw. If these are not all, draws have random points of their own.
        at_once: Draws per call, if all draws have all points and the network can be batched.
        seed: Seed of the draws.
    """
    model, size = posterior.model, len(train)
    at_once = at_once if points == size else 1
    evaluate: Callable[..., Tensor] = partial(_one_by_one, model)
    if at_once > 1:
        evaluate = partial(_all_at_once, model)
    for number in itertools.count():
        generator = torch_generator(seed, "elbo", number)
        noise = torch.randn(
            (at_once, posterior.num_noise), generator=generator, dtype=model.dtype
        ).to(model.device)
        x, y = train.x, train.targets
        if points < size:
            index = torch.randperm(size, generator=generator)[:points].to(x.device)
            x, y = x[index], y[index]
        draws = posterior.reparameterize(noise)
        try:
            rows = evaluate(draws, x, y)
        except RuntimeError:  # an operation that has no batched form, or wrong points
            evaluate = partial(_one_by_one, model)
            rows = evaluate(draws, x, y)
        yield rows.sum(-1, dtype=torch.float64)


def _all_at_once(model: BayesianModel, draws: Tensor, x: Tensor, y: Tensor) -> Tensor:
    with batchable_kernels(model.net):
        return torch.func.vmap(model.log_likelihood, in_dims=(0, None, None))(draws, x, y)


def _one_by_one(model: BayesianModel, draws: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([model.log_likelihood(draw, x, y) for draw in draws])
