"""The contract of likelihoods: what each promises, whatever its density."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from bnn_symm.models.likelihoods import check_likelihood as check_type
from bnn_symm.models.likelihoods import (
    condition,
    count_bound,
    has_events,
    is_classification,
    is_count,
    num_columns,
    target_distribution,
    without_exposure,
)
from bnn_symm.posteriors import Predictive
from bnn_symm.randomness import global_seed, torch_generator
from bnn_symm.testing.settings_round_trip import check_settings

_TASKS = ("classification", "regression", "count", "survival")
_LEVELS = (0.1, 0.5, 0.9)
_POINTS = 3  # points whose densities are integrated
_NODES = 4001
# Limits of the standardized grid of numbers, on the scale of asinh, and of the log of times. The
# tails beyond hold less than 1e-8 of a Student-t with 3 degrees of freedom.
_REACH, _LOG_REACH = 8.0, 40.0
_MOST_COUNTS = 20_000
# A check of a correct likelihood by samples fails with a probability below 1e-5 for each number.
_STANDARD_ERRORS = 5.0


@dataclass(frozen=True)
class _Grid:
    """Hold all targets of one point, or a fine grid of them, and the probability of each.

    Attributes:
        y: (node,).
        density: (node,).
        mass: (node,), the density times the length that a node stands for.
    """

    y: Tensor
    density: Tensor
    mass: Tensor


def check_likelihood(
    likelihood: Any,
    outputs: Tensor,
    targets: Tensor,
    *,
    latents: Mapping[str, float] | None = None,
    num_samples: int = 4000,
    seed: int = 0,
) -> None:
    """Check that the members of a likelihood agree with one another.

    - The settings of its class survive a configuration file.
    - `log_prob` has the shape and dtype of the outputs, is finite with finite gradients, and is the
      same for one draw, a batch of draws and under `torch.vmap`.
    - `log_prob` is that of `distribution`, and the density sums or integrates to 1.
    - `probabilities`, or `mean`, `variance`, `cdf` and quantiles, are those of the density.
    - Samples of `distribution` have the distribution function or the probabilities of the density,
      within 5 standard errors of `num_samples` samples.

    The density of several target columns is not integrated; the means of its samples are compared.

    Args:
        likelihood: an instance, of this package or of your own class.
        outputs: of a network, (point, output), of the size that targets have: the first three
            points are integrated.
        targets: (point,), or (point, column), of the task of the likelihood.
        latents: values of the latent variables; default: the means of their priors.
        num_samples: number of samples of each point.
        seed: of the samples.

    Raises:
        AssertionError: if the likelihood breaks a part of the contract.
        ConfigError: if the object is not a likelihood.

    Example:
        >>> from bnn_symm.likelihoods import Gaussian
        >>> outputs = torch.tensor([[0.3], [-1.0]])
        >>> check_likelihood(Gaussian(noise=0.5), outputs, torch.tensor([0.1, 2.0]))
    """
    check_type(likelihood)
    assert likelihood.task in _TASKS, f"task is {likelihood.task!r}, expected one of {_TASKS}"
    check_settings(likelihood)
    own = {name: mean for name, (mean, _) in likelihood.latents.items()} | dict(latents or {})
    assert set(own) == set(likelihood.latents), f"latents are {list(likelihood.latents)}"
    values = {name: torch.tensor(value, dtype=torch.float64) for name, value in own.items()}
    outputs = outputs.double()
    targets = targets if is_classification(likelihood) else targets.double()
    _check_shapes(likelihood, outputs, targets, values)
    _check_gradients(likelihood, outputs, targets, values)
    _check_distribution(likelihood, outputs, targets, values)
    if num_columns(likelihood) > 1 and condition(likelihood) is None:
        _check_sampled_means(likelihood, outputs, values, num_samples, seed)
        return
    outputs, targets = outputs[:_POINTS], targets[:_POINTS]
    if has_events(likelihood):
        _check_survival(likelihood, outputs, targets, values)
    plain, outputs, _ = without_exposure(likelihood, outputs, targets)
    with global_seed(seed, "likelihood contract"):
        samples = plain.distribution(outputs, values).sample((num_samples,))
    grids = [_grid(plain, outputs[i], values, samples[:, i].double()) for i in range(len(outputs))]
    for grid in grids:
        _assert_close(grid.mass.sum(), torch.ones(()), 1e-3, "the integral of the density")
    if is_classification(plain):
        _check_classes(plain, outputs, values, grids, samples)
    else:
        _check_numbers(plain, outputs, values, grids, samples.double())


def _draws(outputs: Tensor, latents: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a batch (2, 3) of draws near the given one."""
    generator = torch_generator(0, "draws of the contract")
    noise = torch.randn((2, 3, *outputs.shape), generator=generator, dtype=outputs.dtype)
    shift = torch.randn((2, 3), generator=generator, dtype=outputs.dtype)
    return outputs + 0.3 * noise, {name: value + 0.1 * shift for name, value in latents.items()}


def _check_shapes(
    likelihood: Any, outputs: Tensor, targets: Tensor, latents: dict[str, Tensor]
) -> None:
    """Check shapes and dtypes, and that batches and vectorized calls are calls one by one."""
    single = likelihood.log_prob(outputs, targets, latents)
    assert single.shape == outputs.shape[:1], (
        f"log_prob: got a shape of {tuple(single.shape)}, expected (point,), {len(outputs)} points"
    )
    assert torch.isfinite(single).all(), f"log_prob is not finite: {single.tolist()}"
    batch, own = _draws(outputs, latents)
    together = likelihood.log_prob(batch, targets, own)
    assert together.shape == (2, 3, len(outputs)), (
        f"log_prob: got a shape of {tuple(together.shape)} for draws (2, 3), expected (2, 3, point)"
    )
    for i, j in ((0, 0), (1, 2)):
        one = {name: value[i, j] for name, value in own.items()}
        alone = likelihood.log_prob(batch[i, j], targets, one)
        _assert_close(together[i, j], alone, 1e-9, "log_prob of a batch of draws")
    flat = {name: value.flatten() for name, value in own.items()}
    mapped = torch.vmap(lambda o, z: likelihood.log_prob(o, targets, z))(batch.flatten(0, 1), flat)
    _assert_close(mapped, together.flatten(0, 1), 1e-9, "log_prob under torch.vmap")
    low = {name: value.float() for name, value in latents.items()}
    y = targets.float() if targets.is_floating_point() else targets
    rough = likelihood.log_prob(outputs.float(), y, low)
    assert rough.dtype == torch.float32, f"log_prob of float32 outputs is {rough.dtype}"
    _assert_close(rough.double(), single, 1e-3, "log_prob in float32")


def _check_gradients(
    likelihood: Any, outputs: Tensor, targets: Tensor, latents: dict[str, Tensor]
) -> None:
    """Check that the gradients in outputs and latent variables are finite."""
    outputs = outputs.clone().requires_grad_()
    latents = {name: value.clone().requires_grad_() for name, value in latents.items()}
    total = likelihood.log_prob(outputs, targets, latents).sum()
    gradients = torch.autograd.grad(total, [outputs, *latents.values()], allow_unused=True)
    for name, gradient in zip(("the outputs", *latents), gradients, strict=True):
        assert gradient is not None, f"log_prob does not depend on {name}"
        assert torch.isfinite(gradient).all(), f"the gradient in {name} is {gradient.tolist()}"


def _check_distribution(
    likelihood: Any, outputs: Tensor, targets: Tensor, latents: dict[str, Tensor]
) -> None:
    """Check that the Pyro distribution has the same density."""
    batch, own = _draws(outputs, latents)
    target, observed = target_distribution(likelihood, batch, own, targets)
    assert target.batch_shape == batch.shape[:-1], (
        f"distribution: the batch shape is {tuple(target.batch_shape)}, expected that of draws and "
        f"points, {tuple(batch.shape[:-1])}"
    )
    assert observed is not None
    if target.support is constraints.boolean:
        observed = observed.double()
    expected = target.log_prob(observed)
    got = likelihood.log_prob(batch, targets, own)
    _assert_close(got, expected, 1e-6, "log_prob, against that of distribution")


def _grid(likelihood: Any, outputs: Tensor, latents: dict[str, Tensor], samples: Tensor) -> _Grid:
    """Return the targets of one point and their densities."""
    if is_classification(likelihood):
        y = torch.arange(likelihood.num_classes or len(outputs))
        step = torch.ones(len(y), dtype=torch.float64)
    elif is_count(likelihood):
        point = outputs[None]
        moments = likelihood.mean(point, latents), likelihood.variance(point, latents)
        highest = int(count_bound(*moments).max())
        assert highest < _MOST_COUNTS, "the counts are too large to be summed; use smaller outputs"
        y = torch.arange(highest + 1, dtype=torch.float64)
        step = torch.ones_like(y)
    else:
        is_time = has_events(likelihood)
        levels = samples.new_tensor([0.25, 0.5, 0.75])
        low, middle, high = (samples.log() if is_time else samples).quantile(levels)
        if is_time:
            u = torch.linspace(-_LOG_REACH, _LOG_REACH, _NODES, dtype=torch.float64)
            y = (middle + (high - low) * u).exp()
            step = y * (high - low) * (u[1] - u[0])
        else:
            u = torch.linspace(-_REACH, _REACH, _NODES, dtype=torch.float64)
            y = middle + (high - low) * u.sinh()
            step = (high - low) * u.cosh() * (u[1] - u[0])
    columns = torch.stack([y, torch.ones_like(y)], 1) if has_events(likelihood) else y
    log_density = likelihood.log_prob(outputs.expand(len(y), -1), columns, latents)
    density = log_density.double().exp()
    return _Grid(y=y, density=density, mass=density * step)


def _check_classes(
    likelihood: Any,
    outputs: Tensor,
    latents: dict[str, Tensor],
    grids: list[_Grid],
    samples: Tensor,
) -> None:
    """Check the probabilities of classes, and the frequencies of samples."""
    expected = torch.stack([grid.density for grid in grids])
    probabilities = likelihood.probabilities(outputs, latents)
    _assert_close(probabilities.double(), expected, 1e-6, "probabilities")
    number = len(samples)
    for k in range(expected.shape[1]):
        share = (samples == k).double().mean(0)
        error = (expected[:, k] * (1 - expected[:, k]) / number).sqrt()
        _assert_sampled(share, expected[:, k], error + 1.0 / number, f"the frequency of class {k}")


def _check_numbers(
    likelihood: Any,
    outputs: Tensor,
    latents: dict[str, Tensor],
    grids: list[_Grid],
    samples: Tensor,
) -> None:
    """Check moments, distribution function and quantiles of numbers, counts and times."""
    mean = torch.stack([(grid.mass * grid.y).sum() for grid in grids])
    square = torch.stack(
        [(grid.mass * (grid.y - own).square()).sum() for grid, own in zip(grids, mean, strict=True)]
    )
    _assert_close(likelihood.mean(outputs, latents).double(), mean, 1e-2, "mean")
    _assert_close(likelihood.variance(outputs, latents).double(), square, 2e-2, "variance")
    predictive = Predictive(
        outputs=outputs[None, None],
        latents={name: value.reshape(1, 1) for name, value in latents.items()},
        likelihood=likelihood,
    )
    quantiles = predictive.quantiles(_LEVELS)
    number = len(samples)
    for level, value in zip(_LEVELS, quantiles, strict=True):
        below = likelihood.cdf(outputs, value, latents).double()
        expected = torch.stack(
            [_mass_below(grid, own) for grid, own in zip(grids, value, strict=True)]
        )
        _assert_close(below, expected, 5e-3, "cdf, against the integral of the density")
        share = (samples <= value + 1e-9).double().mean(0)
        error = (below * (1 - below) / number).sqrt()
        _assert_sampled(share, below, error + 1.0 / number, f"samples below the {level} quantile")


def _mass_below(grid: _Grid, value: Tensor) -> Tensor:
    """Return the mass up to a value; of numbers, interpolated between the nodes."""
    if bool((grid.y == grid.y.round()).all()):  # counts
        return grid.mass[grid.y <= value + 1e-9].sum()
    below = grid.mass.cumsum(0) - 0.5 * grid.mass
    above = int(torch.searchsorted(grid.y, value).clamp(1, len(grid.y) - 1))
    share = (value - grid.y[above - 1]) / (grid.y[above] - grid.y[above - 1])
    return torch.lerp(below[above - 1], below[above], share)


def _check_survival(
    likelihood: Any, outputs: Tensor, targets: Tensor, latents: dict[str, Tensor]
) -> None:
    """Check that the density of a censored time is the probability of a later event."""
    time = targets[:, 0]
    censored = torch.stack([time, torch.zeros_like(time)], 1)
    later = likelihood.log_prob(outputs, censored, latents).exp()
    below = likelihood.cdf(outputs, time, latents)
    _assert_close(later, 1 - below, 1e-6, "exp(log_prob) of a censored time, against 1 - cdf")
    own = likelihood.log_survival(outputs, time, latents).exp()
    _assert_close(later, own, 1e-6, "exp(log_prob) of a censored time, against log_survival")
    for level in _LEVELS:
        value = likelihood.quantile(outputs, level, latents)
        reached = likelihood.cdf(outputs, value, latents)
        _assert_close(reached, torch.full_like(reached, level), 1e-6, "cdf at a quantile")


def _check_sampled_means(
    likelihood: Any, outputs: Tensor, latents: dict[str, Tensor], num_samples: int, seed: int
) -> None:
    """Check the means and variances of samples of several columns."""
    with global_seed(seed, "likelihood contract"):
        samples = likelihood.distribution(outputs, latents).sample((num_samples,)).double()
    variance = likelihood.variance(outputs, latents).double()
    error = (variance / num_samples).sqrt()
    _assert_sampled(samples.mean(0), likelihood.mean(outputs, latents).double(), error, "mean")
    spread = (samples - samples.mean(0)).square()
    _assert_sampled(spread.mean(0), variance, spread.std(0) / num_samples**0.5, "variance")


def _assert_close(got: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Assert that two tensors agree, relative to 1 and to their size."""
    gap = (got.double() - expected.double()).abs() / (1 + expected.double().abs())
    assert bool((gap <= tolerance).all()), (
        f"{what}: got {got.flatten()[:6].tolist()}, expected {expected.flatten()[:6].tolist()}, "
        f"with a tolerance of {tolerance}"
    )


def _assert_sampled(got: Tensor, expected: Tensor, error: Tensor, what: str) -> None:
    """Assert that estimates by samples are within some standard errors."""
    distance = (got - expected).abs() / error
    assert bool((distance <= _STANDARD_ERRORS).all()), (
        f"{what}: samples have {got.flatten()[:6].tolist()}, the density "
        f"{expected.flatten()[:6].tolist()}, which is {float(distance.max()):.1f} standard errors "
        f"away; at most {_STANDARD_ERRORS:g} are expected"
    )
