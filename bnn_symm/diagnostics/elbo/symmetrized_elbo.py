"""Compute the ELBO of a posterior averaged over all permutations of its hidden units.

    q^G = mean over g in G of g # q,      ELBO(q^G) = ELBO(q) + I,      0 <= I <= log |G|

I is the mutual information between a uniformly drawn g and weights drawn from g # q: what weights
reveal about the numbering of their units. The identity holds for every q if likelihood and prior
are invariant (Gelberg et al. 2024; the gap is that of Kurle et al. 2022). Predictions of q^G and q
are equal. I is near 0 if units are indistinguishable, for example if q has reverted to the prior,
and log |G| if all are distinguishable. The plain ELBO therefore undervalues posteriors that use
their units.

I is computed by permanents of densities (`inference.variational.symmetry_information`). It is
*exact* if only the units of one hidden layer are permuted, up to `exact_up_to` units. Otherwise it
is a *lower bound*: permanents of more units are bounded from above, or units are divided into
blocks of `exact_up_to`; layers are added one after the other by the chain rule; units that are
permuted only jointly count as fixed.

The order of the layers, and the choice of permanents or blocks, is made on separate draws, so the
estimate is not the maximum of several. These draws are the same for every seed, so with another
seed the estimate differs only by its Monte Carlo error. That error is computed in
`monte_carlo_error` and includes overlaps of copies that are too rare to be drawn. No permutations
are drawn from the group: permutations near the identity would give no bound, and a bound from K
uniform ones never exceeds log K.

References:
    Gelberg et al. (2024), arXiv:2408.05496; Kurle et al. (2022), arXiv:2209.07157.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.diagnostics.elbo.elbo import Elbo
from bnn_symm.diagnostics.elbo.monte_carlo_error import NORMAL, interval, largest, standard_error
from bnn_symm.errors import ConfigError
from bnn_symm.inference.variational.symmetry_information import (
    InformationTerm,
    PermanentMethod,
    chain_rule_orders,
    columns_in_order,
)
from bnn_symm.models.interchangeable_units import (
    UnitOrbit,
    check_invariant_prior,
    interchangeable_units,
)
from bnn_symm.posteriors import GaussianPosterior
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import SymmetryGroup, symmetry_group
from bnn_symm.symmetry.group.permanent import log_factorial

_METHOD_NAMES: dict[PermanentMethod, str] = {
    "permanent": "exact permanents",
    "bounded permanent": "permanents bounded from above",
    "blocks": "exact permanents of blocks of units",
}

# Sampling ends at this standard error in nats, or as a fraction of log |G|, or after this number of
# draws, or after this work.
_STANDARD_ERROR, _SHARE = 0.02, 0.002
_MAX_SAMPLES, _MIN_SAMPLES = 5000, 20
_FLOPS = 1e10
# Draws per batch, and numbers in a table of densities or of weights (32 MB).
_BATCH, _NUMBERS = 50, 2**22
# Draws that decide what is computed.
_PILOT = 8


@dataclass(frozen=True, kw_only=True)
class GroupShare:
    """Contribution of the permutations of one group, given those of the previous groups.

    Attributes:
        mutual_information: The estimate, in nats.
        log_order: Its maximum; units of several groups that are permuted only jointly count in
            each.
    """

    mutual_information: float
    log_order: float


@dataclass(frozen=True, kw_only=True)
class SymmetrizedElbo:
    """ELBO(q) and ELBO(q^G), in nats.

    Attributes:
        kind: Whether `mutual_information` estimates I, or a lower bound of it.
        elbo: ELBO of q.
        mutual_information: I or its bound; unbiased, so it may be below 0 by its error.
        mutual_information_standard_error: Its Monte Carlo error, including overlaps that were not
            drawn.
        mutual_information_low: Lower end of a 95 % interval of the estimated quantity, valid for
            rare overlaps; above I with a probability of at most 2.5 %.
        mutual_information_high: Upper end; for a lower bound, of the bound and not of I.
        log_order: log |G|, the maximum of I.
        value: elbo + mutual_information.
        standard_error: Standard error of `value`, from both.
        value_low: Lower end of a 95 % interval of `value`, from both intervals.
        value_high: Upper end.
        by_group: Group -> its contribution to `mutual_information`; the contributions add up to it.
        num_samples: Number of draws of the weights.
        method: Description of the computation.
    """

    kind: Literal["exact", "lower bound"]
    elbo: float
    mutual_information: float
    mutual_information_standard_error: float
    mutual_information_low: float
    mutual_information_high: float
    log_order: float
    value: float
    standard_error: float
    value_low: float
    value_high: float
    by_group: Mapping[str, GroupShare]
    num_samples: int
    method: str


@checked
def symmetrized_elbo(
    posterior: GaussianPosterior,
    train_elbo: Elbo,
    *,
    group: SymmetryGroup | None = None,
    exact_up_to: int = 12,
    seed: int = 0,
) -> SymmetrizedElbo:
    """Return ELBO(q^G): exact for one hidden layer of few units, else a lower bound.

    Args:
        posterior: q.
        train_elbo: ELBO of q, to which the mutual information is added.
        group: Symmetries of its network, if known.
        exact_up_to: Maximum number of units with exact permanents; each additional unit doubles the
            time.
        seed: Seed of the draws.

    Returns:
        The ELBO of q^G and its parts.

    Raises:
        ConfigError: If `exact_up_to` is below 1.
        SymmetryError: If the symmetries cannot be derived, or the prior is not invariant under
            them.

    Example:
        >>> from bnn_symm import BayesianModel, Categorical, MeanFieldVI, Prior, elbo, load_dataset
        >>> data = load_dataset("iris")
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 3))
        >>> model = BayesianModel(net, Prior(), Categorical())
        >>> posterior = MeanFieldVI(num_steps=5).fit(model, data, seed=0)
        >>> symmetrized_elbo(posterior, elbo(posterior, data.train.take(slice(0, 1)))).kind
        'exact'
    """
    if exact_up_to < 1:
        raise ConfigError(
            f"exact_up_to: got {exact_up_to}, expected at least 1 unit; 12 takes under a second"
        )
    group = group or symmetry_group(posterior.model.net)
    check_invariant_prior(posterior.model, group)
    sets, left_out = interchangeable_units(posterior.model, group)
    if sets:
        terms = _plan(posterior, sets, exact_up_to)
        parts = _sample(posterior, terms, seed)
    else:
        terms, parts = [], torch.zeros(1, 0, dtype=torch.float64)
    total = parts.sum(1)
    error = standard_error(total, terms) if sets else 0.0
    low, high = interval(total, terms) if sets else (0.0, 0.0)
    around = NORMAL * train_elbo.standard_error
    shares = {
        name: GroupShare(
            mutual_information=math.fsum(
                float(parts[:, i].mean())
                for i, term in enumerate(terms)
                if term.units.group == name
            ),
            log_order=group.log10_order_of(name) * math.log(10),
        )
        for name in group.spec.groups
        if group.log10_order_of(name) > 0
    }
    exact = not left_out and all(
        term.how == "permanent" and bool(term.columns.all()) for term in terms
    )
    exact = exact and not any(orbit.incomplete for orbit in sets)
    information = float(total.mean())
    return SymmetrizedElbo(
        kind="exact" if exact else "lower bound",
        elbo=train_elbo.value,
        mutual_information=information,
        mutual_information_standard_error=error,
        mutual_information_low=low,
        mutual_information_high=high,
        log_order=group.log10_order * math.log(10),
        value=train_elbo.value + information,
        standard_error=math.hypot(train_elbo.standard_error, error),
        value_low=train_elbo.value + low - around,
        value_high=train_elbo.value + high + around,
        by_group=shares,
        num_samples=len(total) if sets else 0,
        method=_method_description(group, terms, left_out, exact),
    )


def _plan(
    posterior: GaussianPosterior, sets: Sequence[UnitOrbit], exact_up_to: int
) -> list[InformationTerm]:
    """Return the terms in the order, and by the methods, that are best on a few separate draws."""
    batch = _batch(len(s.units) * max(len(s.units), s.index.shape[1]) for s in sets)
    draws = list(_draws(posterior, 0, "symmetrized elbo, pilot", _PILOT, batch))
    best: list[InformationTerm] = []
    highest = -math.inf
    known: dict[tuple[int, bytes], tuple[float, InformationTerm]] = {}
    for order in chain_rule_orders(sets):
        total, terms = 0.0, []
        for number, columns in columns_in_order(sets, order):
            key = (number, columns.numpy().tobytes())
            if key not in known:
                known[key] = _best_method(posterior, sets[number], columns, draws, exact_up_to)
            value, term = known[key]
            total += value
            terms.append(term)
        if total > highest:
            highest, best = total, terms
    return best


def _best_method(
    posterior: GaussianPosterior,
    units: UnitOrbit,
    columns: Tensor,
    draws: Sequence[Tensor],
    exact_up_to: int,
) -> tuple[float, InformationTerm]:
    """Return the best method for the permanent of a set of units, and its mean on some draws."""

    def mean(term: InformationTerm) -> float:
        return float(torch.cat([_information(term, posterior, batch) for batch in draws]).mean())

    size = len(units.units)
    if size <= exact_up_to:
        whole = InformationTerm(units, columns, "permanent", (torch.arange(size),))
        return mean(whole), whole
    bounded = InformationTerm(units, columns, "bounded permanent")
    value = mean(bounded)
    # Dealt out like cards, so that the units of a block are as different as possible: similar units
    # are not informative.
    loc, scale = (
        moment.double().cpu()[units.index][:, columns]
        for moment in (posterior.loc, posterior.scale)
    )
    rank = (loc.square() / scale.square()).sum(1).argsort()
    hands = math.ceil(size / exact_up_to)
    blocks = InformationTerm(
        units, columns, "blocks", tuple(rank[hand::hands] for hand in range(hands))
    )
    if value < sum(log_factorial(len(block)) for block in blocks.blocks):
        return max((value, bounded), (mean(blocks), blocks), key=lambda method: method[0])
    return value, bounded


def _sample(
    posterior: GaussianPosterior, terms: Sequence[InformationTerm], seed: int
) -> Float[Tensor, "draw term"]:
    """Return each term at each of sufficiently many new draws."""
    most = int(min(_MAX_SAMPLES, max(_MIN_SAMPLES, _FLOPS / sum(term.cost for term in terms))))
    batch = _batch(
        len(term.units.units) * max(len(term.units.units), len(term.columns)) for term in terms
    )
    rows: list[Tensor] = []
    for draws in _draws(posterior, seed, "symmetrized elbo", most, batch):
        rows.append(torch.stack([_information(term, posterior, draws) for term in terms], -1))
        if standard_error(torch.cat(rows).sum(1), terms) <= max(
            _STANDARD_ERROR, _SHARE * largest(terms)
        ):
            break
    return torch.cat(rows)


def _batch(numbers: Iterable[int]) -> int:
    """Return the number of draws per batch, from the numbers that each set of units needs."""
    return max(1, min(_BATCH, _NUMBERS // max(numbers)))


def _draws(
    posterior: GaussianPosterior, seed: int, purpose: str, number: int, batch: int
) -> Iterator[Float[Tensor, "draw parameter"]]:
    for start in range(0, number, batch):
        noise = [
            torch.randn(
                posterior.loc.shape,
                generator=torch_generator(seed, purpose, i),
                dtype=torch.float64,
            )
            for i in range(start, min(number, start + batch))
        ]
        yield posterior.reparameterize(torch.stack(noise).to(posterior.loc.device)).cpu()


def _information(
    term: InformationTerm, posterior: GaussianPosterior, draws: Float[Tensor, "draw parameter"]
) -> Float[Tensor, " draw"]:
    return term.information(posterior.loc.double().cpu(), posterior.scale.double().cpu(), draws)


def _method_description(
    group: SymmetryGroup, terms: Sequence[InformationTerm], left_out: int, exact: bool
) -> str:
    if group.is_trivial:
        return f"nothing can be permuted, so q^G equals q; {group.certificate}"
    layers = list(dict.fromkeys(term.units.group for term in terms))
    if exact:
        return f"the permanents of the units of {' and '.join(layers)}, which share no weight"
    parts = []
    chained = [
        name
        for name in layers
        if any(t.units.group == name and not bool(t.columns.all()) for t in terms)
    ]
    if chained:
        parts.append(
            f"layers one after the other ({', '.join(layers)}), each by the weights that no later "
            "layer permutes"
        )
    for method, name in _METHOD_NAMES.items():
        groups = dict.fromkeys(term.units.group for term in terms if term.how == method)
        if groups:
            parts.append(f"{name} for {', '.join(groups)}")
    if left_out:
        parts.append(
            f"{left_out} component{'s' * (left_out > 1)} of jointly permuted units count as fixed"
        )
    return "; ".join(parts)
