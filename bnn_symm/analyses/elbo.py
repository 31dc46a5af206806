"""Describe the ELBO of a run and its parts: the key `elbo` of `bnn-symm diagnose --json`."""

import dataclasses
from typing import Any

import numpy as np

from bnn_symm.analyses.posterior_scales import describe_posterior_scales
from bnn_symm.diagnostics.elbo.elbo import Elbo, KlShare, elbo
from bnn_symm.diagnostics.elbo.interpretation import AT_PRIOR, interpret_elbo
from bnn_symm.diagnostics.elbo.pruning import Pruning, pruned_units
from bnn_symm.diagnostics.elbo.symmetrized_elbo import SymmetrizedElbo, symmetrized_elbo
from bnn_symm.diagnostics.mixing.parameter_index import layer_name
from bnn_symm.errors import SymmetryError
from bnn_symm.posteriors import (
    ClosedFormPosterior,
    GaussianPosterior,
    LinearizedPosterior,
    MixturePosterior,
)
from bnn_symm.runs.run import Run

_NUMBERS = ("value", "standard_error", "expected_log_likelihood", "kl", "num_samples")
# Why there are none for a linearized network.
_LINEARIZED = (
    "the posterior predicts by the network linearized at a mode, whose evidence is log_evidence in "
    "metrics.json; for the ELBO of the network itself, set inference.predictive=sampled"
)
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
        density = "a mixture, whose entropy has no closed form"
        if not isinstance(posterior, MixturePosterior):
            density = "draws and no density"
        reason = (
            f"{method.name} gives {density}, so KL and ELBO are not defined; compare "
            "such posteriors by the log likelihood of held-out points, or by PSIS-LOO"
        )
        if isinstance(posterior, LinearizedPosterior):
            reason = _LINEARIZED
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
    bound = elbo(posterior, train, seed=seed)
    assert bound is not None
    content: dict[str, Any] = {name: getattr(bound, name) for name in _NUMBERS}
    content |= {
        "points": len(train),
        "per_point": bound.value / len(train),
        "temperature": temperature,
        "by_layer": _by_layer(bound),
        "pruned": _pruned(posterior),
        "symmetrized": _symmetrized(posterior, bound, seed),
        "posterior_scales": scales,
        "reason": None,
    }
    widths = getattr(run.config.architecture, "widths", None)
    verdicts, advice = interpret_elbo(content, widths)
    sentences = {name: verdict.text for name, verdict in verdicts.items()}
    conclusion = " ".join(sentences.values())
    return {**content, "verdicts": sentences, "conclusion": conclusion, "next": advice}


def _by_layer(bound: Elbo) -> dict[str, Any]:
    """Return the KL by layer and tensor."""
    tensors = {name: _share(share, bound.kl) for name, share in bound.by_tensor.items()}
    return {
        layer: {
            **_share(share, bound.kl),
            "at_prior": share.nats_per_parameter < AT_PRIOR,
            "by_tensor": {name: own for name, own in tensors.items() if layer_name(name) == layer},
        }
        for layer, share in bound.by_layer.items()
    }


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
    nothing = {"fraction": None, "num_units": None, "groups": {}}
    if not isinstance(posterior, GaussianPosterior):
        return {**nothing, "reason": _COVARIES}
    try:
        pruning = pruned_units(posterior)
    except SymmetryError as error:
        return {**nothing, "reason": str(error)}
    assert pruning is not None
    return {
        "fraction": pruning.fraction,
        "num_units": pruning.num_units,
        "kl_below": pruning.kl_below,
        "signal_below": pruning.signal_below,
        "groups": _groups(pruning),
        "reason": None if pruning.num_units else "the network has no hidden units",
    }


def _groups(pruning: Pruning) -> dict[str, Any]:
    """Return the numbers of pruned units of each group."""
    return {
        name: {
            "num_units": len(group.kl),
            "pruned": int(group.pruned.sum()),
            "reverted": int(group.reverted.sum()),
            "silent": int(group.silent.sum()),
            "fraction": float(group.pruned.mean()),
            "pruned_units": np.flatnonzero(group.pruned).tolist(),
        }
        for name, group in pruning.groups.items()
    }


def _symmetrized(posterior: ClosedFormPosterior, bound: Elbo, seed: int) -> dict[str, Any]:
    """Return the symmetrized ELBO, or the reason why it is not defined."""
    names = [field.name for field in dataclasses.fields(SymmetrizedElbo) if field.name != "elbo"]
    nothing = {**dict.fromkeys(names), "by_group": {}}
    if not isinstance(posterior, GaussianPosterior):
        return {**nothing, "reason": _COVARIES}
    try:
        found = dataclasses.asdict(symmetrized_elbo(posterior, bound, seed=seed))
    except SymmetryError as error:
        return {**nothing, "reason": str(error)}
    return {**{name: found[name] for name in names}, "reason": None}
