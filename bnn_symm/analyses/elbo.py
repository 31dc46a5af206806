"""Describe the ELBO of a run and its parts: the key `elbo` of `bnn-symm diagnose --json`."""

from typing import Any

import numpy as np

from bnn_symm.analyses.posterior_scales import describe_posterior_scales
from bnn_symm.diagnostics.elbo.elbo import Elbo, KlShare, elbo
from bnn_symm.diagnostics.elbo.interpretation import AT_PRIOR, elbo_advice, elbo_sentences
from bnn_symm.diagnostics.elbo.pruning import Pruning, pruned_units
from bnn_symm.diagnostics.elbo.symmetrized_elbo import SymmetrizedElbo, symmetrized_elbo
from bnn_symm.diagnostics.mixing.parameter_index import layer_name
from bnn_symm.errors import SymmetryError
from bnn_symm.posteriors import ClosedFormPosterior, GaussianPosterior
from bnn_symm.runs.run import Run

_NUMBERS = ("value", "standard_error", "expected_log_likelihood", "kl", "num_samples")
# Why there are no numbers by unit for correlated weights.
_COVARIES = (
    "weights within a layer are correlated, so that units are not independent; fit with "
    "inference.name=mean_field_vi"
)


def describe_elbo(run: Run) -> dict[str, Any]:
    """Describe the ELBO, its KL by layer, pruned units, and the symmetrized ELBO.

    It uses the seed of the run, so that the value equals the one in `metrics.json`. All numbers are
    in nats, except `bits_per_parameter`.

    Args:
        run: a run with a posterior; without a closed form, a reason is returned instead of numbers.

    Returns:
        The content of `elbo`.

    Raises:
        InvalidRun: if the data changed since the fit, or no state was saved.
    """
    posterior, seed = run.posterior, run.config.seed
    scales = describe_posterior_scales(posterior)
    method = run.config.inference
    temperature = float(getattr(method, "temperature", 1.0))
    if not isinstance(posterior, ClosedFormPosterior):
        reason = (
            f"{method.name} gives draws and no density, so KL and ELBO are not defined; compare "
            "such posteriors by the log likelihood of held-out points, or by PSIS-LOO"
        )
        nothing = dict.fromkeys(
            (*_NUMBERS, "points", "per_point", "by_layer", "pruned", "symmetrized", "verdicts")
        )
        return {
            **nothing,
            "temperature": temperature,
            "posterior_scales": scales,
            "conclusion": reason,
            "next": None,
            "reason": reason,
        }
    train = run.dataset().train
    found = elbo(posterior, train, seed=seed)
    assert found is not None
    content: dict[str, Any] = {name: getattr(found, name) for name in _NUMBERS}
    content |= {
        "points": len(train),
        "per_point": found.value / len(train),
        "temperature": temperature,
        "by_layer": _by_layer(found),
        "pruned": _pruned(posterior),
        "symmetrized": _symmetrized(posterior, found, seed),
        "posterior_scales": scales,
        "reason": None,
    }
    sentences = elbo_sentences(content)
    widths = getattr(run.config.architecture, "widths", None)
    return {
        **content,
        "verdicts": sentences,
        "conclusion": " ".join(sentences.values()),
        "next": elbo_advice(content, widths),
    }


def _by_layer(found: Elbo) -> dict[str, Any]:
    """Return the KL by layer and tensor."""
    layers: dict[str, Any] = {}
    for layer, share in found.by_layer.items():
        tensors = {name: own for name, own in found.by_tensor.items() if layer_name(name) == layer}
        layers[layer] = {
            **_share(share, found.kl),
            "at_prior": share.nats_per_parameter < AT_PRIOR,
            "by_tensor": {name: _share(own, found.kl) for name, own in tensors.items()},
        }
    return layers


def _share(share: KlShare, total: float) -> dict[str, Any]:
    """Return the part of the KL that belongs to a layer or a tensor."""
    return {
        "kl": share.kl,
        # Quadrature may give a KL of zero a slightly negative value.
        "share": share.kl / total if total > 0 else None,
        "num_parameters": share.num_parameters,
        "nats_per_parameter": share.nats_per_parameter,
        "bits_per_parameter": share.bits_per_parameter,
    }


def _pruned(posterior: ClosedFormPosterior) -> dict[str, Any]:
    """Return the pruned units by group, or the reason why they are not defined."""
    if not isinstance(posterior, GaussianPosterior):
        return {"fraction": None, "num_units": None, "groups": {}, "reason": _COVARIES}
    try:
        found = pruned_units(posterior)
    except SymmetryError as error:
        return {"fraction": None, "num_units": None, "groups": {}, "reason": str(error)}
    assert found is not None
    return {
        "fraction": found.fraction,
        "num_units": found.num_units,
        "kl_below": found.kl_below,
        "signal_below": found.signal_below,
        "groups": _groups(found),
        "reason": None if found.num_units else "the network has no hidden units",
    }


def _groups(found: Pruning) -> dict[str, Any]:
    """Return the numbers of pruned units of each group."""
    return {
        name: {
            "num_units": len(own.kl),
            "pruned": int(own.pruned.sum()),
            "reverted": int(own.reverted.sum()),
            "silent": int(own.silent.sum()),
            "fraction": float(own.pruned.mean()),
            "pruned_units": np.flatnonzero(own.pruned).tolist(),
        }
        for name, own in found.groups.items()
    }


def _symmetrized(posterior: ClosedFormPosterior, found: Elbo, seed: int) -> dict[str, Any]:
    """Return the symmetrized ELBO, or the reason why it is not defined."""
    names = (
        "kind",
        "value",
        "standard_error",
        "mutual_information",
        "mutual_information_standard_error",
        "mutual_information_low",
        "mutual_information_high",
        "value_low",
        "value_high",
        "log_order",
        "num_samples",
        "method",
    )
    if not isinstance(posterior, GaussianPosterior):
        return {**dict.fromkeys(names), "by_group": {}, "reason": _COVARIES}
    try:
        made: SymmetrizedElbo = symmetrized_elbo(posterior, found, seed=seed)
    except SymmetryError as error:
        return {**dict.fromkeys(names), "by_group": {}, "reason": str(error)}
    groups = {
        name: {"mutual_information": share.mutual_information, "log_order": share.log_order}
        for name, share in made.by_group.items()
    }
    return {**{name: getattr(made, name) for name in names}, "by_group": groups, "reason": None}
