"""Merge aligned posteriors into one posterior, with the cost of a single network.

    merge(posteriors, "barycentre")     posteriors of the same data
    merge(posteriors, "product")        posteriors of disjoint parts of the data

The barycenter minimizes the weighted sum of squared Wasserstein-2 distances. For independent
normals it is normal, with averaged means and standard deviations (not variances):

    m = sum_k w_k m_k        s = sum_k w_k s_k        sum_k w_k = 1

The product is Bayes' rule for disjoint data. Each part's posterior contains the prior once, so of k
parts all but one prior are divided out:

    p(w | D_1, ..., D_k)  ~  prod_k p(w | D_k) / p(w)^((k - 1) a)

    1 / s^2 = sum_k 1 / s_k^2 - (k - 1) a / s_0^2
    m / s^2 = sum_k m_k / s_k^2 - (k - 1) a m_0 / s_0^2

for a normal prior of mean m_0 and standard deviation s_0. If the likelihood is tempered,
exp(log_likelihood / T + log_prior), a is 1 at any T; if the posterior is tempered, a is 1 / T.
The result is exact if the parts' posteriors are exactly normal and independent.

References:
    Agueh and Carlier (2011), doi:10.1137/100805741 (barycenters); Scott et al. (2016), Bayes and
    big data: the consensus Monte Carlo algorithm, doi:10.1080/17509275.2016.1142191 (products of
    posteriors of parts).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bnn_symm.alignment.align import check_same_parameters
from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel, Tempering
from bnn_symm.models.priors.families import Normal
from bnn_symm.posteriors import ClosedFormPosterior, GaussianPosterior, Posterior, SamplePosterior

Rule = Literal["barycentre", "product"]


@checked
def merge(
    posteriors: Sequence[Posterior],
    rule: Rule = "barycentre",
    *,
    weights: Sequence[float] | None = None,
    temperature: float | None = None,
    tempering: Tempering | None = None,
    match_prior_moments: bool = False,
) -> Posterior:
    """Merge several posteriors into one; align them first (`synchronize`).

    Args:
        posteriors: two or more, of one network and likelihood: all normal, or all points (one draw
            each).
        rule: `barycentre` or `product`.
        weights: of the barycenter, positive; they are normalized. Default equal.
        temperature: of the product: the temperature of all parts. Default that in their `info`,
            else 1.
        tempering: of the product: how the parts were tempered. Default that in their `info`, else
            the likelihood.
        match_prior_moments: of the product: divide by the normal of the same mean and variance
            if the prior is not normal, which is an approximation.

    Returns:
        A `GaussianPosterior` of normals, a `SamplePosterior` of one draw of points; with the model,
        the scaling and the number of draws of the first.

    Raises:
        ConfigError: if there are too few, weights do not fit, no rule or not this one can merge
            them, or the parts were fitted at several temperatures.
        IncompatiblePosteriors: if parameters, fixed entries, likelihoods, priors or (for a product)
            scalings differ, or the product is not a density.
    """
    if len(posteriors) < 2:
        raise ConfigError(f"got {len(posteriors)} posteriors to merge, expected two or more")
    check_same_parameters(list(posteriors))
    _check_same_likelihood(posteriors)
    normals = [posterior for posterior in posteriors if isinstance(posterior, GaussianPosterior)]
    points = [posterior for posterior in posteriors if _is_point(posterior)]
    if len(posteriors) not in (len(normals), len(points)):
        raise ConfigError(
            f"got {_kinds(posteriors)}; merging needs normals only, or points of one draw only; "
            f"{_advice(posteriors)}"
        )
    if rule == "product":
        if weights is not None:
            raise ConfigError(
                "a product has no weights, because every part counts by its precision; omit them"
            )
        if points:
            raise ConfigError(
                "points have no density to multiply; merge them by rule 'barycentre', or fit with "
                "inference.name=mean_field_vi"
            )
        _check_same_scaling(normals)
        _check_same_statistics(normals)
        power = _prior_power(normals, temperature, tempering)
        return _normal(normals, rule, *_product(normals, power, match_prior_moments))
    if temperature is not None or tempering is not None or match_prior_moments:
        raise ConfigError(
            "a barycenter does not use the prior; temperature, tempering and match_prior_moments "
            "are for rule 'product'"
        )
    shares = _shares(weights, len(posteriors))
    if points:
        mean = _average(shares, [posterior.draws()[0] for posterior in points])
        return SamplePosterior.from_draws(
            _with_average_statistics(points, shares),
            mean[None, None],
            points[0].scaling,
            info=_info(posteriors, rule),
        )
    loc = _average(shares, [posterior.loc for posterior in normals])
    scale = _average(shares, [posterior.scale for posterior in normals])
    return _normal(normals, rule, loc, scale, _with_average_statistics(normals, shares))


def _product(
    parts: Sequence[GaussianPosterior], power: float, match_prior_moments: bool
) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of the product, in float64."""
    model = parts[0].model
    prior_mean, prior_sd = _prior_moments(model, match_prior_moments)
    removed = power * (len(parts) - 1) * prior_sd.pow(-2)
    precision, weighted = -removed, -removed * prior_mean
    for part in parts:
        added = part.scale.detach().cpu().double().pow(-2)
        precision = precision + added
        weighted = weighted + added * part.loc.detach().cpu().double()
    failed = int((~(precision > 0)).sum())
    if failed:
        raise IncompatiblePosteriors(
            f"the product is not a density: in {failed} of {len(precision)} coordinates the parts "
            f"together are wider than the prior, which is divided out {len(parts) - 1} times; "
            "merge by rule 'barycentre'"
        )
    return weighted / precision, precision.rsqrt()


def _prior_moments(model: BayesianModel, match: bool) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of the prior of every coordinate, in float64.

    Latent variables are included. Priors that are not normal are refused unless moments are
    matched.
    """
    others = {
        type(block.family).__name__
        for block in model.parameter_prior.blocks
        if not isinstance(block.family, Normal)
    }
    if others and not match:
        raise ConfigError(
            f"a product divides by a normal prior, this one is {', '.join(sorted(others))}; set "
            "match_prior_moments=True to divide by the normal of the same variance, or merge by "
            "rule 'barycentre'"
        )
    like = torch.empty(0, dtype=torch.float64)
    latents = like.new_tensor([mean for mean, _ in model.likelihood.latents.values()])
    means = torch.cat([model.parameter_prior.means(like), latents])
    return means, model.prior_standard_deviations(like)


def _prior_power(
    parts: Sequence[Posterior], temperature: float | None, tempering: Tempering | None
) -> float:
    """Return the power of the prior in each part: 1, or 1 / T for a tempered posterior."""
    shared = 1.0 if temperature is None else temperature, tempering or "likelihood"
    settings = {
        (float(part.info.get("temperature", shared[0])), str(part.info.get("tempering", shared[1])))
        for part in parts
    }
    # The arguments must match the `info` of the parts.
    settings |= {
        (t if temperature is None else float(temperature), tempering or kind)
        for t, kind in settings
    }
    if len(settings) > 1:
        listed = " and ".join(f"T = {t:g} ({kind})" for t, kind in sorted(settings))
        raise ConfigError(
            f"the parts' temperatures differ: {listed}; a product of them is not a tempered "
            "posterior of all data; fit the parts at one temperature, or merge by rule "
            "'barycentre'"
        )
    ((value, kind),) = settings
    return 1.0 if kind == "likelihood" else 1.0 / value


def _shares(weights: Sequence[float] | None, number: int) -> list[float]:
    weights = list(weights) if weights is not None else [1.0] * number
    if len(weights) != number or not all(weight > 0 and np.isfinite(weight) for weight in weights):
        raise ConfigError(
            f"got weights {weights}, expected {number} positive numbers, one per posterior"
        )
    return [weight / sum(weights) for weight in weights]


def _average(shares: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """Return the weighted average in float64."""
    return torch.stack(
        [share * value.detach().cpu().double() for share, value in zip(shares, values, strict=True)]
    ).sum(0)


def _normal(
    parts: Sequence[GaussianPosterior],
    rule: Rule,
    loc: Tensor,
    scale: Tensor,
    model: BayesianModel | None = None,
) -> GaussianPosterior:
    first = parts[0]
    return GaussianPosterior(
        model or first.model,
        first.scaling,
        loc=loc.to(first.loc),
        scale=scale.to(first.scale),
        num_draws=first.num_draws,
        seed=first.seed,
        info=_info(parts, rule),
    )


def _with_average_statistics(parts: Sequence[Posterior], shares: Sequence[float]) -> BayesianModel:
    """Return the model of the first with the average of the statistics of frozen batch norm."""
    model = parts[0].model
    named = [part.model.statistics for part in parts]
    return model.with_statistics(
        {name: _average(shares, [own[name] for own in named]) for name in named[0]}
    )


def _check_same_statistics(parts: Sequence[Posterior]) -> None:
    """Refuse parts of a product whose likelihoods differ by statistics of frozen batch norm."""
    first = parts[0].model
    for number, part in enumerate(parts[1:], start=2):
        if first.with_statistics(part.model.statistics) is not first:
            raise IncompatiblePosteriors(
                f"posterior {number} has other statistics of frozen batch norm than the first, so "
                "that their densities are of different functions of the weights and cannot be "
                "multiplied; merge by rule 'barycentre'"
            )


def _info(parts: Sequence[Posterior], rule: Rule) -> dict[str, object]:
    keys = ("method", "dataset", "seed", "temperature", "tempering")
    return {
        "method": "merge",
        "rule": rule,
        "parts": [{key: part.info[key] for key in keys if key in part.info} for part in parts],
    }


def _is_point(posterior: Posterior) -> bool:
    return isinstance(posterior, SamplePosterior) and posterior.shape[0] * posterior.shape[1] == 1


def _kinds(posteriors: Sequence[Posterior]) -> str:
    return ", ".join(_kind(posterior) for posterior in posteriors)


def _kind(posterior: Posterior) -> str:
    if isinstance(posterior, GaussianPosterior):
        return "a normal"
    if isinstance(posterior, ClosedFormPosterior):
        return "a normal with covariances"
    if posterior.of_weights is not posterior:
        return "a linearized network"
    return f"{posterior.shape[0] * posterior.shape[1]} draw(s)"


def _advice(posteriors: Sequence[Posterior]) -> str:
    if any(posterior.of_weights is not posterior for posterior in posteriors):
        return (
            "a merge has no mode to linearize the network at; set inference.predictive=sampled, or "
            "inference.name=mean_field_vi"
        )
    return (
        "for other draws, fit with inference.name=mean_field_vi, or pass a GaussianPosterior of "
        "their moments"
    )


def _check_same_likelihood(posteriors: Sequence[Posterior]) -> None:
    first = posteriors[0].model.likelihood
    for number, posterior in enumerate(posteriors[1:], start=2):
        if posterior.model.likelihood != first:
            raise IncompatiblePosteriors(
                f"posterior {number} has the likelihood {posterior.model.likelihood}, the first "
                f"has {first}; merge posteriors of one likelihood"
            )


def _check_same_scaling(parts: Sequence[Posterior]) -> None:
    """Refuse parts of a product with different standardized units or priors."""
    first = parts[0]
    for number, part in enumerate(parts[1:], start=2):
        if part.model.prior != first.model.prior:
            raise IncompatiblePosteriors(
                f"posterior {number} has the prior {part.model.prior}, the first has "
                f"{first.model.prior}; fit the parts of a product with one prior"
            )
        mine, theirs = first.scaling, part.scaling
        pairs = [
            (getattr(mine, name), getattr(theirs, name))
            for name in ("x_mean", "x_scale", "y_mean", "y_scale", "exposure_scale")
        ]
        pairs += [
            (
                [(own.mean, own.scale) for own in mine.y_columns],
                [(own.mean, own.scale) for own in theirs.y_columns],
            )
        ]
        if not all(
            np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in pairs
        ):
            raise IncompatiblePosteriors(
                f"posterior {number} was fitted to data standardized differently from the first's, "
                "so its weights are in other units; standardize all parts with the scaling of all "
                "data before a product"
            )
