"""The ELBO of a run and what is behind it, as text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_symm.report.plots.posterior_scales import plot_posterior_scales
from bnn_symm.report.text.tables import table


def elbo_text(content: Mapping[str, Any]) -> str:
    """A sentence on each part, what to do next, and tables by layer and by group of units.

    Args:
        content: of `experiments.elbo_report.describe_elbo`; of a run without an ELBO a `conclusion`
            is enough.
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
        found = content["symmetrized"]
        relation = "=" if found["kind"] == "exact" else ">="
        lines += [
            "",
            f"symmetrized ELBO {relation} {found['value']:,.5g} nats{_interval(found)} "
            f"({found['kind']}, {found['num_samples']:,} draws): {found['method']}",
        ]
    return "\n".join(lines)


def _interval(found: Mapping[str, Any]) -> str:
    """Return the interval of the value; of a diagnosis that has none, its standard error."""
    if found.get("value_low") is None:
        return f" +- {found['standard_error']:.2g}"
    return f" (95 % interval {found['value_low']:,.5g} to {found['value_high']:,.5g})"


def draw_elbo(content: Mapping[str, Any], folder: Path, *, title: str) -> list[Path]:
    """Writes the picture of the posterior's scales, if there are any; returns where it is."""
    scales = content.get("posterior_scales")
    if not scales or scales["reason"] is not None:
        return []
    path = folder / "posterior_scales.png"
    plot_posterior_scales(scales, path, title=title)
    return [path]


def _layers(layers: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, own in layers.items():
        share = "-" if own["share"] is None else f"{own['share']:.1%}"
        rows.append([name, own["kl"], share, own["num_parameters"], own["bits_per_parameter"]])
    return table(["layer", "KL, nats", "share", "parameters", "bits a parameter"], rows)


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
        "symmetry adds, nats",
        "of at most",
    ]
    return table(header, rows)
