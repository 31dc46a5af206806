"""Interpret an ELBO and its parts: one statement each, and advice."""

from collections.abc import Sequence
from typing import Any

from bnn_symm.diagnostics.statistics.evidence import Evidence
from bnn_symm.errors import shell_words

# From this fraction of pruned units, a smaller network is advised.
_MANY_PRUNED = 0.5
# A layer with a smaller KL per parameter, in nats, is considered at its prior (see `pruning`).
AT_PRIOR = 0.01
# Fraction of log |G| above which copies of the posterior hardly overlap, and the gap is constant.
_SEPARATE = 0.99


def nats(value: float) -> str:
    """Format a number as an integer from 100 on, else with three significant digits.

    Args:
        value: A number of nats.

    Returns:
        The formatted number.
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def elbo_sentences(content: dict[str, Any]) -> dict[str, str]:
    """Return one or two sentences on each of `elbo`, `kl`, `pruned` and `symmetry`.

    Args:
        content: Result of `analyses.elbo.describe_elbo`.

    Returns:
        Name -> sentences.
    """
    sentences = {"elbo": _value(content), "kl": _kl(content)}
    if content["pruned"]["num_units"] != 0:
        sentences["pruned"] = _pruned(content["pruned"])
    sentences["symmetry"] = _symmetry(content)
    return sentences


def _value(content: dict[str, Any]) -> str:
    text = (
        f"The ELBO is {nats(content['value'])} +- {content['standard_error']:.2g} nats over "
        f"{content['points']:,} points ({content['per_point']:.3g} per point): an expected log "
        f"likelihood of {nats(content['expected_log_likelihood'])} minus a KL of "
        f"{nats(content['kl'])}."
    )
    if content["temperature"] != 1:
        text += f" It is untempered; the objective was tempered at T = {content['temperature']:g}."
    return text


def _kl(content: dict[str, Any]) -> str:
    layers: dict[str, Any] = content["by_layer"]
    if content["kl"] <= 0:
        return "The posterior equals the prior: the data had no effect."
    if all(own["at_prior"] for own in layers.values()):
        most = max(own["nats_per_parameter"] for own in layers.values())
        return (
            f"Every layer is at the prior: a KL of at most {most:.2g} nats per parameter, "
            f"{nats(content['kl'])} nats in all, below the limit of {AT_PRIOR:g} per parameter."
        )
    largest = max(layers, key=lambda layer: layers[layer]["kl"])
    own = layers[largest]
    text = (
        f"{own['share']:.0%} of the KL is in {largest}, {own['bits_per_parameter']:.2g} bits for "
        f"each of its {own['num_parameters']:,} parameters."
    )
    idle = [layer for layer, own in layers.items() if own["at_prior"]]
    if idle:
        verb, pronoun = ("is", "it") if len(idle) == 1 else ("are", "them")
        text += f" {_join_names(idle)} {verb} at the prior: the data do not inform {pronoun}."
    return text


def _pruned(pruned: dict[str, Any]) -> str:
    if pruned["reason"] is not None:
        return f"Pruned units are unknown: {pruned['reason']}."
    groups: dict[str, Any] = pruned["groups"]
    total = sum(own["pruned"] for own in groups.values())
    if total == 0:
        return f"None of the {pruned['num_units']} hidden units is pruned."
    where = [
        f"{own['pruned']} of {own['num_units']} in {name}"
        for name, own in groups.items()
        if own["pruned"]
    ]
    return f"{total} of {pruned['num_units']} hidden units are pruned: {', '.join(where)}."


def _symmetry(content: dict[str, Any]) -> str:
    symmetrized = content["symmetrized"]
    if symmetrized["reason"] is not None:
        return f"There is no symmetrized ELBO: {symmetrized['reason']}."
    if symmetrized["log_order"] == 0:
        return "Nothing can be permuted, so the symmetrized ELBO equals the ELBO."
    gap, most = symmetrized["mutual_information"], symmetrized["log_order"]
    low, high = symmetrized["mutual_information_low"], symmetrized["mutual_information_high"]
    is_exact = symmetrized["kind"] == "exact"
    text = (
        "Averaged over its permuted copies, the posterior would have "
        f"{'' if is_exact else 'at least '}{nats(gap)} nats more (95 % "
        f"interval{'' if is_exact else ' of this bound'} {nats(low)} to {nats(high)}; at most "
        f"{nats(most)}) with the same predictions."
    )
    separate = Evidence(
        measure="symmetrized.mutual_information_low", value=low, low=_SEPARATE * most
    )
    if separate.is_inside:
        return f"{text} The copies do not overlap: the gap is constant and affects no comparison."
    overlap = Evidence(
        measure="symmetrized.mutual_information_high", value=high, high=_SEPARATE * most
    )
    if is_exact and overlap.is_inside:
        return (
            f"{text} Copies overlap, because some units are indistinguishable. The plain ELBO "
            "favors such fits over those that use more units; compare the symmetrized values."
        )
    if is_exact:
        return (
            f"{text} Overlap of the copies is inconclusive; compare the symmetrized values as well."
        )
    return (
        f"{text} The bound gives no upper limit. The plain ELBO favors fits with "
        "indistinguishable units; compare the symmetrized values as well."
    )


def elbo_advice(content: dict[str, Any], widths: Sequence[int] | None) -> str | None:
    """Return advice, or None.

    Args:
        content: Result of `analyses.elbo.describe_elbo`.
        widths: Widths of the architecture, if it has any.

    Returns:
        What to do next, if anything.
    """
    if content["kl"] <= 0 or all(own["at_prior"] for own in content["by_layer"].values()):
        return (
            "fit longer, or with a lower inference.temperature; check whether the objective has "
            "converged"
        )
    pruned = content["pruned"]
    if pruned["fraction"] is not None and pruned["fraction"] >= _MANY_PRUNED:
        left = [max(1, own["num_units"] - own["pruned"]) for own in pruned["groups"].values()]
        setting = shell_words("--set", f"architecture.widths={left}")
        if widths is not None and [own["num_units"] for own in pruned["groups"].values()] == list(
            widths
        ):
            return f"most units are unused; a smaller network may do as well: {setting}"
        return "most units are unused; a smaller network may do as well"
    if any(own["at_prior"] for own in content["by_layer"].values()):
        return "remove the layers that are at the prior, or narrow it: prior.overrides"
    return None


def _join_names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
