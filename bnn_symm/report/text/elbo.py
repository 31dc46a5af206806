"""Format and draw the ELBO of a run and its components."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_symm.formatting import count, interval, mean, percent, with_error
from bnn_symm.report.plots.posterior_scales import plot_posterior_scales
from bnn_symm.report.text.tables import table


def elbo_text(content: Mapping[str, Any]) -> str:
    """Return a sentence on each component, advice, and tables by layer and by group of units.

    Args:
        content: of `describe_elbo`; for a run without an ELBO, a `conclusion`.

    Returns:
        The text.
    """
    verdicts: Mapping[str, str] = content.get("verdicts") or {}
    if not verdicts:
        return f"elbo: {content['conclusion']}"
    lines = [f"{name}: {sentence}" for name, sentence in verdicts.items()]
    if content["next"]:
        lines.append(f"next: {content['next']}")
    lines += ["", _layers(content["by_layer"])]
    groups = _groups(content)
    if groups:
        lines += ["", groups]
    if content["symmetrized"]["value"] is not None and content["symmetrized"]["log_order"] > 0:
        symmetrized = content["symmetrized"]
        relation = "=" if symmetrized["kind"] == "exact" else ">="
        lines += [
            "",
            f"symmetrized ELBO {relation} {_symmetrized(symmetrized)} ({symmetrized['kind']}, "
            f"{count(symmetrized['num_samples'], 'draw')}): "
            f"{symmetrized['method']}",
        ]
    return "\n".join(lines)


def _symmetrized(symmetrized: Mapping[str, Any]) -> str:
    """Return the value with its interval, or with its standard error where there is none."""
    value = symmetrized["value"]
    if symmetrized.get("value_low") is None:
        return f"{with_error(value, symmetrized['standard_error'])} nats"
    ends = {"low": symmetrized["value_low"], "high": symmetrized["value_high"]}
    return f"{mean({'value': value, **ends})} nats (95 % interval {interval(ends)})"


def draw_elbo(content: Mapping[str, Any], folder: Path, *, title: str) -> list[Path]:
    """Draw the scales of the posterior, if there are any.

    Args:
        content: of `describe_elbo`.
        folder: of the figure.
        title: of the figure.

    Returns:
        The path of the figure, or nothing.
    """
    scales = content.get("posterior_scales")
    if not scales or scales["reason"] is not None:
        return []
    path = folder / "posterior_scales.png"
    plot_posterior_scales(scales, path, title=title)
    return [path]


def _layers(layers: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, own in layers.items():
        share = percent(own["share"], 1)
        rows.append([name, own["kl"], share, own["num_parameters"], own["bits_per_parameter"]])
    return table(["layer", "KL, nats", "share", "parameters", "bits per parameter"], rows)


def _groups(content: Mapping[str, Any]) -> str | None:
    pruned, gained = content["pruned"]["groups"], content["symmetrized"]["by_group"]
    rows = []
    for name in [*pruned, *(name for name in gained if name not in pruned)]:
        own, gain = pruned.get(name) or {}, gained.get(name) or {}
        counts = [own.get(key) for key in ("num_units", "pruned", "reverted", "silent")]
        rows.append([name, *counts, gain.get("mutual_information"), gain.get("log_order")])
    if not rows:
        return None
    header = [
        "units of",
        "units",
        "pruned",
        "reverted",
        "silent",
        "gain by symmetry, nats",
        "maximum",
    ]
    return table(header, rows)
