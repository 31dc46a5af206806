"""What an ELBO and its parts say, in words, and what to do next."""

from collections.abc import Sequence
from typing import Any

from bnn_symm.diagnostics.statistics.evidence import Evidence
from bnn_symm.errors import shell_words

# From this share of pruned units on, a smaller network is worth a try.
_MANY_PRUNED = 0.5
# A layer with less KL than this a parameter, in nats, counts as being at its prior: see
# `diagnostics.pruning`.
AT_PRIOR = 0.01
# Of log |G|: from here on copies of the posterior hardly overlap, and the gap is a constant.
_APART = 0.99


def nats(value: float) -> str:
    """Whole numbers from 100 on, else three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def elbo_sentences(content: dict[str, Any]) -> dict[str, str]:
    """One or two sentences on each of `elbo`, `kl`, `pruned` and `symmetry`.

    Args:
        content: of `elbo_report.describe_elbo`.
    """
    sentences = {"elbo": _value(content), "kl": _kl(content)}
    if content["pruned"]["num_units"] != 0:
        sentences["pruned"] = _pruned(content["pruned"])
    sentences["symmetry"] = _symmetry(content)
    return sentences


def _value(content: dict[str, Any]) -> str:
    text = (
        f"The ELBO is {nats(content['value'])} +- {content['standard_error']:.2g} nats over "
        f"{content['points']:,} points ({content['per_point']:.3g} a point): an expected log "
        "likelihood of "
        f"{nats(content['expected_log_likelihood'])} less a KL of {nats(content['kl'])}."
    )
    if content["temperature"] != 1:
        text += f" It is untempered, and not what was maximized at T = {content['temperature']:g}."
    return text


def _kl(content: dict[str, Any]) -> str:
    layers: dict[str, Any] = content["by_layer"]
    if content["kl"] <= 0:
        return "The posterior is the prior: the data have changed nothing."
    if all(own["at_prior"] for own in layers.values()):
        most = max(own["nats_per_parameter"] for own in layers.values())
        return (
            f"Every layer is at the prior: a KL of at most {most:.2g} nats a parameter, "
            f"{nats(content['kl'])} nats in all, where less than {AT_PRIOR:g} a parameter counts "
            "as none."
        )
    largest = max(layers, key=lambda layer: layers[layer]["kl"])
    own = layers[largest]
    text = (
        f"{own['share']:.0%} of the KL sits in {largest}, {own['bits_per_parameter']:.2g} bits for "
        "each of its "
        f"{own['num_parameters']:,} parameters."
    )
    idle = [layer for layer, own in layers.items() if own["at_prior"]]
    if idle:
        are, them = ("is", "it") if len(idle) == 1 else ("are", "them")
        text += f" {_listed(idle)} {are} at the prior: the data have not reached {them}."
    return text


def _pruned(pruned: dict[str, Any]) -> str:
    if pruned["reason"] is not None:
        return f"Pruned units are not known: {pruned['reason']}."
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
    found = content["symmetrized"]
    if found["reason"] is not None:
        return f"There is no symmetrized ELBO: {found['reason']}."
    if found["log_order"] == 0:
        return "Nothing can be permuted, so that there is no gap to a symmetrized ELBO."
    gap, most = found["mutual_information"], found["log_order"]
    low, high = found["mutual_information_low"], found["mutual_information_high"]
    is_exact = found["kind"] == "exact"
    text = (
        "Spread over its permuted copies it would have "
        f"{'' if is_exact else 'at least '}{nats(gap)} nats more (95 % "
        f"interval{'' if is_exact else ' of this bound'} {nats(low)} to {nats(high)}; at most "
        f"{nats(most)}) at the same predictions."
    )
    apart = Evidence(measure="symmetrized.mutual_information_low", value=low, low=_APART * most)
    if apart.is_inside:
        return f"{text} The copies do not overlap, so that this is a constant: it changes no comparison of two fits."
    overlap = Evidence(
        measure="symmetrized.mutual_information_high", value=high, high=_APART * most
    )
    if is_exact and overlap.is_inside:
        return (
            f"{text} Copies overlap, since some units cannot be told apart: the plain ELBO favors "
            "such fits over "
            f"those that use more units; compare the symmetrized values."
        )
    if is_exact:
        return f"{text} Whether copies overlap, the interval leaves open; compare the symmetrized values too."
    return (
        f"{text} How much more, the bound does not say. The plain ELBO favors fits whose units "
        "cannot be told apart; "
        f"compare the symmetrized values too."
    )


def elbo_advice(content: dict[str, Any], widths: Sequence[int] | None) -> str | None:
    """What to do next, if anything.

    Args:
        content: of `elbo_report.describe_elbo`.
        widths: of the architecture, for those that have some.
    """
    if content["kl"] <= 0 or all(own["at_prior"] for own in content["by_layer"].values()):
        return "fit for longer, or with a lower inference.temperature; see whether the objective has converged"
    pruned = content["pruned"]
    if pruned["fraction"] is not None and pruned["fraction"] >= _MANY_PRUNED:
        left = [max(1, own["num_units"] - own["pruned"]) for own in pruned["groups"].values()]
        setting = shell_words("--set", f"architecture.widths={left}")
        if widths is not None and [own["num_units"] for own in pruned["groups"].values()] == list(
            widths
        ):
            return f"most units do nothing; a smaller network may do as well: {setting}"
        return "most units do nothing; a smaller network may do as well"
    if any(own["at_prior"] for own in content["by_layer"].values()):
        return "leave out the layers that are at the prior, or give them a narrower one: prior.overrides"
    return None


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
