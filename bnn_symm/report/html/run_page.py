"""Build the page of a run: scores, convergence, calibration, mixing, settings and commands."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.analyses.calibration import describe_calibration
from bnn_symm.analyses.convergence.report import describe_convergence
from bnn_symm.analyses.mixing import describe_mixing
from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.errors import BnnSymmError, shell_words
from bnn_symm.formatting import count, number, with_error
from bnn_symm.io.documents import read_text
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.report.html.page import Block, Code, Page, Picture, Section, Text, facts
from bnn_symm.report.html.study_sections import positions
from bnn_symm.report.plots.convergence import convergence_figure
from bnn_symm.report.tables import Table
from bnn_symm.report.text.calibration import calibration_table
from bnn_symm.report.text.mixing import mixing_table
from bnn_symm.runs.run import NoPosterior, Run, module_flags, module_of
from bnn_symm.symmetry import symmetry_group
from bnn_symm.threads import use_threads

# Number of values in all draws up to which chains are diagnosed here, within seconds; larger runs
# are left to `bnn-symm diagnose`.
_CHEAP = 4_000_000
_RESAMPLES = 200


def run_page(run: Run) -> Page:
    """Build the page of a run; sections without results state the reason.

    Args:
        run: the run.

    Returns:
        The page.

    Raises:
        InvalidRun: if the posterior of the run is damaged or missing.
    """
    with contextlib.suppress(NoPosterior):
        _ = run.posterior
    convergence = describe_convergence([run])
    metrics = run.metrics
    sections = {
        "Convergence": _convergence(convergence),
        "Scores": _scores(metrics),
        "Calibration": _blocks_or_reason(lambda: _calibration(run)),
        "Mixing": _blocks_or_reason(lambda: _mixing(run)),
        "Parameters and symmetries": _blocks_or_reason(lambda: _symmetry(run)),
        "Settings": [
            Code(what="config.yaml with all settings", text=read_text(run.directory.config))
        ],
        "Provenance": [facts("Provenance of the numbers", _provenance(run))],
        "Commands": _commands(run),
    }
    warnings = (
        []
        if run.status == "complete"
        else [f"This run is {run.status}: the page shows its last saved state."]
    )
    data = run.record["dataset"]
    size = run.record.get("num_parameters", run.model.num_net_parameters)
    return Page(
        title=f"{run.path.resolve().name}: {run.config.inference.name} on {data['name']}",
        about=f"{count(size, 'parameter')}, "
        f"seed {run.config.seed}, {data.get('train', '-')} training points, "
        f"{data.get('test', '-')} test points",
        headline=_headline(metrics, convergence["verdict"]),
        warnings=warnings,
        sections=[
            Section(title=title, blocks=blocks) for title, blocks in sections.items() if blocks
        ],
    )


def _blocks_or_reason(section: Any) -> list[Block]:
    """Return the blocks of a section, or the reason why it is unavailable, such as changed data."""
    try:
        return section()
    except BnnSymmError as error:
        return [Text(text=f"Unavailable: {error}")]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _headline(metrics: Mapping[str, Any] | None, verdict: str) -> str:
    parts = next(
        (
            own
            for own in ((metrics or {}).get(name) for name in ("test", "validation", "train"))
            if own
        ),
        None,
    )
    if metrics is None or parts is None:
        return f"No scores yet. {_sentence(verdict)}"
    name = next(name for name in ("test", "validation", "train") if metrics.get(name))
    shown = [key for key in ("nll", "accuracy", "rmse", "ece") if parts.get(key) is not None]
    scores = ", ".join(f"{measure_of(key).title} {number(parts[key], 4)}" for key in shown)
    return f"On the {name} part: {scores}. {_sentence(verdict)}"


def _convergence(content: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [Text(text=_sentence(content["verdict"]))]
    blocks += [Text(text=f"Next: {advice}") for advice in content["next"]]
    figure = convergence_figure(dict(content))
    if figure is None:
        return blocks
    band = next(iter(content["groups"][0]["bands"].values()))
    names = {"times": "gradient evaluations", "median": content["quantity"].replace("_", " ")}
    columns = {
        name: [band[key][i] for i in positions(len(band["times"]))] for key, name in names.items()
    }
    numbers = Table(caption="Numbers of this figure, at five positions", columns=columns)
    caption = "The smoothed history over gradient evaluations and over time."
    notes = [Text(text=f"Note: {note}.", mark="note") for note in content["notes"]]
    return [*blocks, Picture(figure=figure, caption=caption, numbers=numbers), *notes]


def _scores(metrics: Mapping[str, Any] | None) -> list[Block]:
    if metrics is None:
        return [Text(text="There are no scores, because the run is not complete.")]
    parts = {name: metrics[name] for name in ("train", "validation", "test") if metrics.get(name)}
    columns: dict[str, list[Any]] = {"part": list(parts)}
    for key in dict.fromkeys(key for own in parts.values() for key in own):
        columns[measure_of(key).title] = [own.get(key) for own in parts.values()]
    notes = []
    if metrics.get("elbo") is not None:
        notes.append(f"ELBO {with_error(metrics['elbo'], metrics.get('elbo_standard_error'))} nats")
    return [Table(caption="Scores of predictions", columns=columns, notes=notes)]


def _calibration(run: Run) -> list[Block]:
    with use_threads(run.threads):
        content = describe_calibration(run, num_resamples=_RESAMPLES)
    blocks: list[Block] = [
        Text(text=_sentence(content["conclusion"])),
        calibration_table(content),
        _reliability(content["reliability"]),
    ]
    return [*blocks, *(Text(text=f"Note: {note}.", mark="note") for note in content["notes"])]


def _reliability(diagram: Mapping[str, Any]) -> Table:
    """Return the reliability diagram as a table."""
    band = {"a calibrated model: from": "low", "to": "high"}
    if diagram["kind"] == "classes":
        keys = {"mean confidence": "confidence", "accuracy": "accuracy", **band, "points": "count"}
    else:
        keys = {"level of the quantile": "nominal", "share of targets below": "observed", **band}
    columns = {name: diagram[key] for name, key in keys.items()}
    return Table(caption="Reliability by bin", columns=columns, folded=True)


def _mixing(run: Run) -> list[Block]:
    posterior = run.posterior
    if not isinstance(posterior, SamplePosterior):
        return []
    chains, draws, size = posterior.shape
    if chains * draws * size > _CHEAP:
        command = (
            f"bnn-symm {shell_words('diagnose', run.path)}{module_flags([module_of(run.config)])}"
        )
        text = (
            f"The {chains} chains with {count(draws, 'draw')} of {count(size, 'parameter')} are "
            "not compared here, because this takes long."
        )
        return [Text(text=text), Code(what="to compare them", text=command)]
    with use_threads(run.threads):
        content, _ = describe_mixing(
            posterior, run.dataset(), method=run.config.inference, per_draw=False
        )
    views = mixing_table(content)
    return [Text(text=_sentence(content["conclusion"])), *([views] if views else [])]


def _symmetry(run: Run) -> list[Block]:
    group = symmetry_group(run.model.net, input_shape=run.preprocessing.input_shape)
    content = {
        "kind": run.config.architecture.symmetry.kind,
        measure_of("num_parameters").title: number(run.model.num_net_parameters),
        measure_of("log10_order").title: number(group.log10_order, 4),
        "certificate": group.certificate,
        "mask fingerprint": run.record["mask_fingerprint"],
    }
    return [facts("Free parameters and remaining permutations of units", content)]


def _provenance(run: Run) -> dict[str, Any]:
    keys = (
        "status",
        "method",
        "engine",
        "host",
        "started",
        "seconds",
        "gradient_evaluations",
        "threads",
        "device",
    )
    known = {key: run.record[key] for key in keys if run.record.get(key) is not None}
    return {**known, "dataset": run.record["dataset"], "versions": run.record["versions"]}


def _commands(run: Run) -> list[Block]:
    flags = module_flags([module_of(run.config)])
    commands: Sequence[tuple[str, str]] = [
        (
            "to repeat the fit",
            f"bnn-symm {shell_words('fit', run.directory.config)} --out DIR{flags}",
        ),
        ("to diagnose it in full", f"bnn-symm {shell_words('diagnose', run.path)}{flags}"),
        ("to write this page", f"bnn-symm {shell_words('report', run.path)}{flags}"),
    ]
    return [Code(what=what, text=text) for what, text in commands]
