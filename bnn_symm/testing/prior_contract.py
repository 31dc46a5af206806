"""The contract of priors: what each promises, whatever its family."""

import math
from dataclasses import replace
from typing import Any

import torch
from pyro import condition, poutine
from torch import Tensor, nn
from torch.distributions import constraints

from bnn_symm.models import BayesianModel, Gaussian, Prior, PriorFamily
from bnn_symm.models.priors.families import build_family
from bnn_symm.models.priors.family import NormalEntries
from bnn_symm.models.priors.prior import check_prior as check_type
from bnn_symm.randomness import global_seed, torch_generator
from bnn_symm.symmetry import permutation_spec
from bnn_symm.testing.settings_round_trip import check_settings

_SCALES = (0.3, 2.0)
_NODES, _REACH = 8001, 12.0
# Means and standard deviations of the normals of cross-entropies, as multiples of the scale.
_NORMALS = [(loc, sd) for loc in (0.0, 0.7, -2.0) for sd in (0.1, 0.5, 1.0)]
# The Kolmogorov-Smirnov distance times sqrt(n) of a correct family exceeds this with probability
# 2 exp(-2 * 2.5^2) = 7e-6.
_DISTANCE = 2.5


def check_prior(
    prior: Any,
    *,
    cross_entropy_error: float = 0.02,
    num_samples: int = 4000,
    seed: int = 0,
) -> None:
    """Check that the members of a family of priors agree with one another, and with its model.

    - The settings of the family survive a configuration file.
    - `log_prob` is finite with finite gradients, also at zero; it keeps shapes and dtypes, and is
      the same under `torch.vmap`. It is symmetric, and a density with a scale:
      log p(w; s) = log p(w / s; 1) - log s.
    - The density integrates to 1 and has the variance `unit_variance`; `log_prob` is that of
      `distribution`, at any location, and its samples have the distribution function of the density
      (the Kolmogorov-Smirnov distance of `num_samples` samples).
    - `cross_entropy` is that of an integral within `cross_entropy_error` nats, for normals of up to
      the scale, and the gradient is its derivative.
    - The density of a network is the sum of its Pyro sites. Without a mean, permutations of hidden
      units do not change it.

    Args:
        prior: a `Prior`, or a family of your own. Its mean and its overrides, which name parameters
            of a certain network, are left out.
        cross_entropy_error: largest error of the cross-entropy of one weight, in nats.
        num_samples: number of samples.
        seed: of the samples.

    Raises:
        AssertionError: if the prior breaks a part of the contract.
        ConfigError: if the object is not a prior.

    Example:
        >>> from bnn_symm import Prior
        >>> check_prior(Prior(name="laplace"))
    """
    prior = Prior(name=prior) if isinstance(prior, PriorFamily) else prior
    check_type(prior)
    family = build_family(prior.name, prior)
    check_settings(family)
    _check_density(family)
    _check_distribution(family, num_samples, seed)
    _check_cross_entropy(family, cross_entropy_error)
    scale = prior.scale if isinstance(prior.scale, float) else "fan_in"
    _check_model(replace(prior, mean=None, overrides={}, scale=scale))


def _grid(scale: float) -> tuple[Tensor, Tensor]:
    """Return nodes around zero, dense there and far into the tails, and their lengths."""
    u = torch.linspace(-_REACH, _REACH, _NODES, dtype=torch.float64)
    return scale * u.sinh() / 20, scale * u.cosh() / 20 * (u[1] - u[0])


def _check_density(family: PriorFamily) -> None:
    """Check the density itself."""
    for scale in _SCALES:
        w, step = _grid(scale)
        scales = torch.full_like(w, scale)
        value = family.log_prob(w, scales)
        assert value.shape == w.shape, f"log_prob: got a shape of {tuple(value.shape)}"
        mass = value.exp() * step
        _assert_close(mass.sum(), 1.0, 1e-3, "the integral of the density")
        variance = (mass * w.square()).sum() / scale**2
        _assert_close(variance, family.unit_variance, 2e-2, "unit_variance")
        _assert_close(family.log_prob(-w, scales), value, 1e-9, "log_prob at -w")
        unit = family.log_prob(w / scale, torch.ones_like(w)) - math.log(scale)
        _assert_close(value, unit, 1e-9, "log_prob at another scale")
    w = torch.tensor([-3.0, -0.1, 0.0, 1.0, 50.0], dtype=torch.float64).requires_grad_()
    ones = torch.ones_like(w)
    (gradient,) = torch.autograd.grad(family.log_prob(w, ones).sum(), w)
    assert torch.isfinite(gradient).all(), f"the gradient of log_prob is {gradient.tolist()}"
    mapped = torch.vmap(family.log_prob)(w.detach(), ones)
    _assert_close(mapped, family.log_prob(w.detach(), ones), 1e-9, "log_prob under torch.vmap")
    rough = family.log_prob(w.detach().float(), ones.float())
    assert rough.dtype == torch.float32, f"log_prob of float32 values is {rough.dtype}"
    _assert_close(rough, family.log_prob(w.detach(), ones), 1e-4, "log_prob in float32")


def _check_distribution(family: PriorFamily, num_samples: int, seed: int) -> None:
    """Check the Pyro distribution and its samples."""
    loc = torch.tensor([[0.0, 0.0, 1.5], [-1.0, 0.2, 0.0]], dtype=torch.float64)
    scale = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64).expand(2, 3)
    value = torch.tensor([[0.2, -1.0, 3.0], [0.0, 0.2, -7.0]], dtype=torch.float64)
    target = family.distribution(loc, scale)
    assert target.batch_shape == (2, 3), f"distribution: the batch shape is {target.batch_shape}"
    support = target.support
    assert support is constraints.real, (
        f"distribution: the support is {support}, expected constraints.real, which samplers and "
        "guides need"
    )
    expected = family.log_prob(value - loc, scale)
    _assert_close(target.log_prob(value), expected, 1e-8, "log_prob of the Pyro distribution")
    with global_seed(seed, "prior contract"):
        one = torch.ones(1, dtype=torch.float64)
        samples = family.distribution(0 * one, one).sample((num_samples,)).flatten()
    w, step = _grid(1.0)
    mass = family.log_prob(w, torch.ones_like(w)).exp() * step
    cdf = mass.cumsum(0) - 0.5 * mass
    at = torch.searchsorted(w, samples.sort().values).clamp(1, len(w) - 1)
    ranks = (torch.arange(num_samples, dtype=torch.float64) + 0.5) / num_samples
    distance = float((cdf[at - 1] - ranks).abs().max()) * math.sqrt(num_samples)
    assert distance < _DISTANCE, (
        f"samples of the Pyro distribution: their Kolmogorov-Smirnov distance from the density is "
        f"{distance:.2f} / sqrt(n), expected less than {_DISTANCE}"
    )


def _check_cross_entropy(family: PriorFamily, tolerance: float) -> None:
    """Check the cross-entropy with normals, and its gradient."""
    scale = 0.7
    z = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    normal = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi) * (z[1] - z[0])
    loc, sd = (
        scale * torch.tensor(own, dtype=torch.float64) for own in zip(*_NORMALS, strict=True)
    )
    scales = torch.full_like(loc, scale)
    expected = torch.stack(
        [
            -(normal * family.log_prob(a + b * z, torch.full_like(z, scale))).sum()
            for a, b in zip(loc, sd, strict=True)
        ]
    )
    got = family.cross_entropy(loc, sd, scales)
    gap = float((got - expected).abs().max())
    assert gap <= tolerance, (
        f"cross_entropy: its error is {gap:.3g} nats per weight, expected at most {tolerance:g}; "
        "write the method cross_entropy with a rule that follows the density"
    )
    buffers = [torch.zeros_like(loc) for _ in range(2)]
    total = family.add_cross_entropy_gradient(NormalEntries(loc, sd, *buffers), scale, 0.5)
    _assert_close(torch.tensor(total), got.sum(), 1e-6, "the sum of the cross-entropies")

    def summed(a: Tensor, log_b: Tensor) -> Tensor:
        return 0.5 * family.cross_entropy(a, log_b.exp(), scales).sum()

    exact = torch.func.grad(summed, argnums=(0, 1))(loc, sd.log())
    for buffer, own, name in zip(buffers, exact, ("loc", "log(sd)"), strict=True):
        # The gradient of a quadrature rule and the rule of a gradient differ by its error.
        _assert_close(buffer, own, max(tolerance, 1e-6), f"the gradient in {name}")


def _check_model(prior: Prior) -> None:
    """Check the density of a small network: its Pyro sites, and permutations of its units."""
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    model = BayesianModel(net.double(), prior, Gaussian(noise=1.0))
    generator = torch_generator(0, "weights of the contract")
    flat = torch.randn(model.num_parameters, generator=generator, dtype=torch.float64)
    log_prior = model.log_prior(flat)
    x = torch.randn((2, 2), generator=generator, dtype=torch.float64)
    sites = condition(model, data=model.unflatten(flat))
    trace = poutine.trace(sites).get_trace(x)
    trace.compute_log_prob()
    nodes: Any = trace.nodes
    pyro_prior = sum(nodes[name]["log_prob_sum"] for name in model.shapes)
    _assert_close(log_prior, pyro_prior, 1e-8, "the log prior, against the sum of the Pyro sites")
    permuted = model.permute(flat, permutation_spec(net, input_shape=(2,)).random(1))
    assert not torch.equal(permuted, flat)
    _assert_close(model.log_prior(permuted), log_prior, 1e-8, "the log prior of permuted units")


def _assert_close(got: Tensor, expected: Any, tolerance: float, what: str) -> None:
    """Assert that two tensors agree, relative to 1 and to their size."""
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    gap = (got.double() - wanted).abs() / (1 + wanted.abs())
    assert bool((gap <= tolerance).all()), (
        f"{what}: got {got.flatten()[:6].tolist()}, expected {wanted.flatten()[:6].tolist()}, "
        f"with a tolerance of {tolerance}"
    )
