"""Interpret an ELBO and its parts: a verdict on each, and advice."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from bnn_symm.advice import advise_setting
from bnn_symm.diagnostics.statistics.verdicts import Verdict

# From this fraction of pruned units, a smaller network is advised.
_MANY_PRUNED = 0.5
# A layer with a smaller KL per parameter, in nats, is considered at its prior (see `pruning`).
AT_PRIOR = 0.01
# Fraction of log |G| above which copies of the posterior hardly overlap, and the gap is constant.
_SEPARATE = 0.99

_FIT_LONGER = (
    "fit longer, or with a lower inference.temperature; check whether the objective has converged"
)
_ELBO = (
    "The ELBO is {value} +- {standard_error:.2g} nats over {points} points ({per_point} per point):"
    " an expected log likelihood of {expected_log_likelihood} minus a KL of {kl}."
)
_LARGEST = (
    "{share:.0%} of the KL is in {layer}, {bits_per_parameter:.2g} bits for each of its "
    "{num_parameters} parameters."
)
_PRUNED = "{total} of {num_units} hidden units are pruned: {groups}."
_GAP = (
    "Averaged over its permuted copies, the posterior would have {at_least}{mutual_information} "
    "nats more (95 % interval{of_bound} {mutual_information_low} to {mutual_information_high}; at "
    "most {log_order}) with the same predictions."
)


class ElboVerdict(Enum):
    """Verdicts on the ELBO, the KL, pruned units and symmetry, with their templates."""

    UNTEMPERED = _ELBO
    TEMPERED = _ELBO + " It is untempered; the objective was tempered at T = {temperature:g}."

    EQUALS_PRIOR = ("The posterior equals the prior: the data had no effect.", _FIT_LONGER)
    ALL_AT_PRIOR = (
        "Every layer is at the prior: a KL of at most {most:.2g} nats per parameter (limit "
        "{limit:g}), {kl} nats in all.",
        _FIT_LONGER,
    )
    SOME_AT_PRIOR = (
        _LARGEST + " At the prior, not informed by the data: {at_prior}.",
        "remove the layers that are at the prior, or narrow it: prior.overrides",
    )
    INFORMED = _LARGEST

    PRUNING_UNKNOWN = "Pruned units are unknown: {reason}."
    NONE_PRUNED = "None of the {num_units} hidden units is pruned."
    FEW_PRUNED = _PRUNED
    MANY_PRUNED = (_PRUNED, "most units are unused; a smaller network may do as well{setting}")

    NOT_SYMMETRIZED = "There is no symmetrized ELBO: {reason}."
    NO_PERMUTATION = "Nothing can be permuted, so the symmetrized ELBO equals the ELBO."
    SEPARATE = _GAP + " The copies do not overlap: the gap is constant and affects no comparison."
    OVERLAP = (
        _GAP + " Copies overlap, because some units are indistinguishable. The plain ELBO favors "
        "such fits; compare the symmetrized values."
    )
    OVERLAP_UNCLEAR = (
        _GAP + " Overlap of the copies is inconclusive; compare the symmetrized values as well."
    )
    OVERLAP_UNBOUNDED = (
        _GAP + " The bound gives no upper limit. The plain ELBO favors fits with indistinguishable "
        "units; compare the symmetrized values as well."
    )


def interpret_elbo(
    content: Mapping[str, Any], widths: Sequence[int] | None
) -> tuple[dict[str, Verdict], str | None]:
    """Return a verdict on each of `elbo`, `kl`, `pruned` and `symmetry`, and advice.

    Args:
        content: Result of `analyses.elbo.describe_elbo`.
        widths: Widths of the architecture, if it has any.

    Returns:
        Name -> verdict, and what to do next, if anything.
    """
    is_tempered = content["temperature"] != 1
    value = Verdict(ElboVerdict.TEMPERED if is_tempered else ElboVerdict.UNTEMPERED, content)
    kl, pruned = _kl(content), _pruned(content["pruned"], widths)
    verdicts = {"elbo": value, "kl": kl}
    if content["pruned"]["num_units"] != 0:
        verdicts["pruned"] = pruned
    verdicts["symmetry"] = _symmetry(content["symmetrized"])
    urgent = (pruned, kl) if kl.kind is ElboVerdict.SOME_AT_PRIOR else (kl, pruned)
    return verdicts, next(filter(None, (verdict.next for verdict in urgent)), None)


def _kl(content: Mapping[str, Any]) -> Verdict:
    layers: Mapping[str, Any] = content["by_layer"]
    if content["kl"] <= 0:
        return Verdict(ElboVerdict.EQUALS_PRIOR)
    at_prior = [layer for layer, own in layers.items() if own["at_prior"]]
    if len(at_prior) == len(layers):
        most = max(own["nats_per_parameter"] for own in layers.values())
        numbers = {"most": most, "limit": AT_PRIOR, "kl": content["kl"]}
        return Verdict(ElboVerdict.ALL_AT_PRIOR, numbers)
    layer = max(layers, key=lambda layer: layers[layer]["kl"])
    kind = ElboVerdict.SOME_AT_PRIOR if at_prior else ElboVerdict.INFORMED
    return Verdict(kind, {**layers[layer], "layer": layer, "at_prior": at_prior})


def _pruned(pruned: Mapping[str, Any], widths: Sequence[int] | None) -> Verdict:
    if pruned["reason"] is not None:
        return Verdict(ElboVerdict.PRUNING_UNKNOWN, pruned)
    groups: Mapping[str, Any] = pruned["groups"]
    total = sum(own["pruned"] for own in groups.values())
    counts = [
        f"{own['pruned']} of {own['num_units']} in {name}"
        for name, own in groups.items()
        if own["pruned"]
    ]
    numbers = {"total": total, "num_units": pruned["num_units"], "groups": counts, "setting": ""}
    if widths is not None and [own["num_units"] for own in groups.values()] == list(widths):
        left = [max(1, own["num_units"] - own["pruned"]) for own in groups.values()]
        numbers["setting"] = f": {advise_setting(f'architecture.widths={left}')}"
    few = ElboVerdict.FEW_PRUNED if total else ElboVerdict.NONE_PRUNED
    return Verdict(ElboVerdict.MANY_PRUNED if pruned["fraction"] >= _MANY_PRUNED else few, numbers)


def _symmetry(symmetrized: Mapping[str, Any]) -> Verdict:
    if symmetrized["reason"] is not None:
        return Verdict(ElboVerdict.NOT_SYMMETRIZED, symmetrized)
    if symmetrized["log_order"] == 0:
        return Verdict(ElboVerdict.NO_PERMUTATION)
    is_exact, limit = symmetrized["kind"] == "exact", _SEPARATE * symmetrized["log_order"]
    kind = ElboVerdict.OVERLAP_UNCLEAR if is_exact else ElboVerdict.OVERLAP_UNBOUNDED
    if symmetrized["mutual_information_low"] >= limit:
        kind = ElboVerdict.SEPARATE
    elif is_exact and symmetrized["mutual_information_high"] <= limit:
        kind = ElboVerdict.OVERLAP
    at_least, of_bound = ("", "") if is_exact else ("at least ", " of this bound")
    return Verdict(kind, {**symmetrized, "at_least": at_least, "of_bound": of_bound})
