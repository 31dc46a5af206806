"""The ELBO of a posterior spread over all copies that permuting hidden units makes of it.

    q^G = mean over g in G of g # q,      ELBO(q^G) = ELBO(q) + I,      0 <= I <= log |G|

I is the mutual information between a uniformly drawn g and weights drawn from g # q: what weights
tell of how their units are numbered. It holds for every q where likelihood and prior are invariant
(Gelberg et al. 2024; the gap is that of Kurle et al. 2022). Predictions of q^G and q are the same.
I is near 0 where units cannot be told apart, as where q has gone back to the prior, and log |G|
where all can: so the plain ELBO undervalues posteriors that use their units.

`inference.symmetry_information` says how, by permanents of densities. It is *exact* where units of
one hidden layer are all that moves, up to `exact_up_to` units. Otherwise it is a *lower bound*:
permanents of more units are bounded from above, or the units are taken in blocks of `exact_up_to`;
layers are told one after the other; units that only move together count as if they stayed.

Which order of the layers, and permanents or blocks, is decided on draws of its own, so that the
estimate on other draws is not the largest of several. These are the same for every seed, so that
the bound that is estimated is too: with another seed an estimate differs by its Monte Carlo error
alone. That error is in `monte_carlo_error`, and allows for overlaps of copies that are too rare to
have been drawn. Nothing is drawn from the group: permutations near the identity would give no
bound, and a bound from K uniform ones never exceeds log K.

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

_WAYS: dict[PermanentMethod, str] = {
    "permanent": "exact permanents",
    "bounded permanent": "permanents bounded from above",
    "blocks": "exact permanents of blocks of units",
}

# Sampling ends at this standard error in nats, or share of log |G|, or after so many draws, or with
# the work below.
_STANDARD_ERROR, _SHARE = 0.02, 0.002
_MAX_SAMPLES, _MIN_SAMPLES = 5000, 20
_FLOPS = 1e10
# Draws, and numbers in a table of densities or of weights, at once (32 MB).
_BATCH, _NUMBERS = 50, 2**22
# Draws on which it is decided what to compute.
_PILOT = 8


@dataclass(frozen=True, kw_only=True)
class GroupShare:
    """What permuting the units of one group adds, given those that were told before it.

    Attributes:
        mutual_information: in nats, as estimated.
        log_order: the most it could be; units of several groups that only move together count in
            each.
    """

    mutual_information: float
    log_order: float


@dataclass(frozen=True, kw_only=True)
class SymmetrizedElbo:
    """ELBO(q) and ELBO(q^G), in nats.

    Attributes:
        kind: whether `mutual_information` estimates I, or a lower bound of it.
        elbo: of q.
        mutual_information: I or its bound; unbiased, so that it may lie below 0 by its error.
        mutual_information_standard_error: its Monte Carlo error, overlaps that were not drawn
            allowed for.
        mutual_information_low: lower end of a 95 % interval of what is estimated, which holds for
            rare overlaps too; above I with a probability of at most 2.5 %.
        mutual_information_high: upper end; for a lower bound, of the bound and not of I.
        log_order: log |G|, which I never exceeds.
        value: elbo + mutual_information.
        standard_error: of `value`, from both.
        value_low: lower end of a 95 % interval of `value`, from those of both.
        value_high: upper end.
        by_group: group -> its part of `mutual_information`; the parts add up to it.
        num_samples: draws of the weights behind it.
        method: how it was computed, in words.
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
    """ELBO(q^G), exactly for one hidden layer of up to `exact_up_to` units, and a lower bound of it
    above.

    Args:
        posterior: q.
        train_elbo: of q, which the mutual information is added to.
        group: the symmetries of its network, if they are known already.
        exact_up_to: units whose permanents are taken exactly; each one more takes twice the time.
        seed: of the draws.

    Raises:
        ConfigError: if `exact_up_to` is below 1.
        SymmetryError: if the symmetries cannot be derived, or the prior is not invariant under
            them.
    """
    if exact_up_to < 1:
        raise ConfigError(
            f"exact_up_to: got {exact_up_to}, want at least 1 unit; 12 takes a fraction of a second"
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
    exact = exact and not any(one.incomplete for one in sets)
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
        method=_in_words(group, terms, left_out, exact),
    )


def _plan(
    posterior: GaussianPosterior, sets: Sequence[UnitOrbit], exact_up_to: int
) -> list[InformationTerm]:
    """The order in which sets are told, and how, that does best on a few draws of its own."""
    batch = _batch(len(one.units) * max(len(one.units), one.index.shape[1]) for one in sets)
    draws = list(_draws(posterior, 0, "symmetrized elbo, pilot", _PILOT, batch))
    best: list[InformationTerm] = []
    highest = -math.inf
    known: dict[tuple[int, bytes], tuple[float, InformationTerm]] = {}
    for order in chain_rule_orders(sets):
        total, terms = 0.0, []
        for number, columns in columns_in_order(sets, order):
            key = (number, columns.numpy().tobytes())
            if key not in known:
                known[key] = _best_way(posterior, sets[number], columns, draws, exact_up_to)
            value, term = known[key]
            total += value
            terms.append(term)
        if total > highest:
            highest, best = total, terms
    return best


def _best_way(
    posterior: GaussianPosterior,
    units: UnitOrbit,
    columns: Tensor,
    draws: Sequence[Tensor],
    exact_up_to: int,
) -> tuple[float, InformationTerm]:
    """How to take the permanent of a set of units, and what that gives on some draws."""

    def mean(term: InformationTerm) -> float:
        return float(torch.cat([_information(term, posterior, batch) for batch in draws]).mean())

    size = len(units.units)
    if size <= exact_up_to:
        whole = InformationTerm(units, columns, "permanent", (torch.arange(size),))
        return mean(whole), whole
    bounded = InformationTerm(units, columns, "bounded permanent")
    value = mean(bounded)
    # Dealt out like cards, so that the units of a block are as unlike as can be: alike ones tell
    # nothing.
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
        return max((value, bounded), (mean(blocks), blocks), key=lambda way: way[0])
    return value, bounded


def _sample(
    posterior: GaussianPosterior, terms: Sequence[InformationTerm], seed: int
) -> Float[Tensor, "draw term"]:
    """Each term at each of as many fresh draws as it takes."""
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
    """Draws at once, from the numbers that each set of units makes of a draw."""
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


def _in_words(
    group: SymmetryGroup, terms: Sequence[InformationTerm], left_out: int, exact: bool
) -> str:
    if group.is_trivial:
        return f"nothing can be permuted, so that q^G is q; {group.certificate}"
    layers = list(dict.fromkeys(term.units.group for term in terms))
    if exact:
        return f"the permanents of the units of {' and '.join(layers)}, which share no weight"
    parts = []
    told = [
        name
        for name in layers
        if any(t.units.group == name and not bool(t.columns.all()) for t in terms)
    ]
    if told:
        parts.append(
            f"layers one after the other ({', '.join(layers)}), each by the weights that no later "
            "one moves"
        )
    for how, words in _WAYS.items():
        own = dict.fromkeys(term.units.group for term in terms if term.how == how)
        if own:
            parts.append(f"{words} for {', '.join(own)}")
    if left_out:
        parts.append(
            f"{left_out} component{'s' * (left_out > 1)} of units that only move together count as "
            "fixed"
        )
    return "; ".join(parts)
