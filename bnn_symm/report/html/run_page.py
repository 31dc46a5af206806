"""Build the page of a run: first what its reader asks first, then the details.

Is it any good, is it calibrated, predicted against observed, has it converged, what did it cost,
and how to repeat it. What cannot be computed is left out, with the reason in a sentence.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bnn_symm.analyses.convergence.report import describe_convergence
from bnn_symm.analyses.mixing import describe_mixing
from bnn_symm.analyses.predictions.quality import describe_qualities
from bnn_symm.analyses.predictions.stored_regions import stored_regions
from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.errors import BnnSymmError, shell_words
from bnn_symm.formatting import count, listed, number, with_error
from bnn_symm.io.documents import read_text
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.report.html.page import Answer, Block, Code, Page, Picture, Section, Text, facts
from bnn_symm.report.html.run_quality import (
    CALIBRATED,
    GOOD,
    quality_answers,
    quality_sections,
    region_blocks,
    score_sentence,
)
from bnn_symm.report.html.study_sections import positions
from bnn_symm.report.plots.convergence import convergence_figure
from bnn_symm.report.tables import Table
from bnn_symm.report.text.mixing import mixing_table
from bnn_symm.report.text.tables import with_target_columns
from bnn_symm.runs.run import NoPosterior, Run, code_of, module_flags
from bnn_symm.symmetry import symmetry_group
from bnn_symm.threads import use_threads

CONVERGED, COST, REPEAT = "Has it converged?", "What did it cost?", "How to repeat it"
# Number of values in all draws up to which chains are diagnosed here, within seconds; larger runs
# are left to `bnn-symm diagnose`.
_CHEAP = 4_000_000
_RESAMPLES = 500


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
    headline, answers, sections = _predictions(run)
    mixing = _mixing(run)
    converged, blocks = _convergence(run, mixing)
    cost, costs = _cost(run)
    answers += [converged, cost]
    if regions := _blocks_or_reason(lambda: region_blocks(stored_regions(run))):
        sections.setdefault(CALIBRATED, []).extend(regions)
    sections |= {CONVERGED: blocks, COST: costs, REPEAT: _repeat(run)}
    sections |= {
        "Scores of all parts": _scores(run.metrics),
        "Parameters and symmetries": _blocks_or_reason(lambda: _symmetry(run)),
        "Settings": [
            Code(what="config.yaml with all settings", text=read_text(run.directory.config))
        ],
        "Provenance": [facts("Provenance of the numbers", _provenance(run))],
    }
    warnings = (
        []
        if run.status == "complete"
        else [f"This run is {run.status}: the page shows its last saved state."]
    )
    data = run.record["dataset"]
    size = run.record.get("num_parameters", run.model.num_net_parameters)
    fixed = run.model.num_fixed_parameters
    share = f"{number(size)} stochastic of {count(size + fixed, 'parameter')}"
    return Page(
        title=f"{run.path.resolve().name}: {run.config.inference.name} on {data['name']}",
        about=f"{share if fixed else count(size, 'parameter')}, "
        f"seed {run.config.seed}, {_points(data, 'train')} training points, "
        f"{_points(data, 'test')} test points",
        headline=headline,
        answers=answers,
        warnings=warnings,
        sections=[
            Section(title=title, blocks=blocks) for title, blocks in sections.items() if blocks
        ],
    )


def _points(data: Mapping[str, Any], part: str) -> str:
    return number(data.get(part))


def _blocks_or_reason(section: Any) -> list[Block]:
    """Return the blocks of a section, or the reason why it is unavailable, such as changed data."""
    try:
        return section()
    except BnnSymmError as error:
        return [Text(text=f"Unavailable: {error}")]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _predictions(run: Run) -> tuple[str, list[Answer], dict[str, list[Block]]]:
    """Return the headline, answers and sections on predictions, or the reason for none."""
    try:
        with use_threads(run.threads):
            qualities = describe_qualities(run, num_resamples=_RESAMPLES)
    except BnnSymmError as error:
        answer = Answer(question=GOOD, text="unknown", mark="no")
        reason: list[Block] = [Text(text=f"Unavailable: {error}")]
        return "Its predictions cannot be scored here.", [answer], {GOOD: reason}
    # Of several target columns, each has sections of its own, with its name.
    names = [f" ({own.target})" if len(qualities) > 1 else "" for own in qualities]
    sections = {
        f"{title}{name}": blocks
        for own, name in zip(qualities, names, strict=True)
        for title, blocks in quality_sections(own).items()
    }
    answers = [
        replace(answer, question=f"{answer.question}{name}")
        for own, name in zip(qualities, names, strict=True)
        for answer in quality_answers(own)
    ]
    headline = " ".join(
        f"{name.strip(' ()')}: {score_sentence(own)}" if name else score_sentence(own)
        for own, name in zip(qualities, names, strict=True)
    )
    return headline, answers, sections


def _convergence(run: Run, mixing: Mapping[str, Any] | None) -> tuple[Answer, list[Block]]:
    content = describe_convergence([run])
    verdict = content["verdict"]
    blocks: list[Block] = []
    if mixing is not None:
        blocks = _mixing_blocks(mixing)
        text, mark = mixing["conclusion"], _mark(mixing["usable"])
    else:
        converged = content["runs"][0]["converged"]
        text, mark = verdict, _mark(converged or (None if "inconclusive" in verdict else False))
        blocks = _too_large(run)
    by = "" if mixing is None else "by the history of the log density alone: "
    blocks.append(Text(text=_sentence(f"{by}{verdict}")))
    blocks += [Text(text=f"Next: {advice}") for advice in content["next"]]
    answer = Answer(question=CONVERGED, text=text.partition(":")[0], mark=mark)
    figure = convergence_figure(dict(content))
    if figure is not None:
        blocks.append(_curves(content, figure))
    return answer, [*blocks, *(Text(text=f"Note: {own}.", mark="note") for own in content["notes"])]


def _mark(is_good: bool | None) -> str:
    return "open" if is_good is None else "yes" if is_good else "other"


def _curves(content: Mapping[str, Any], figure: Any) -> Picture:
    band = next(iter(content["groups"][0]["bands"].values()))
    names = {"times": "gradient evaluations", "median": content["quantity"].replace("_", " ")}
    columns = {
        name: [band[key][i] for i in positions(len(band["times"]))] for key, name in names.items()
    }
    return Picture(
        figure=figure,
        narrow=convergence_figure(dict(content), columns=1),
        caption="The smoothed history over gradient evaluations and over time.",
        numbers=Table(caption="Numbers of this figure, at five positions", columns=columns),
    )


def _has_chains(run: Run) -> bool:
    try:
        posterior = run.posterior
    except NoPosterior:
        return False
    return isinstance(posterior, SamplePosterior) and not run.config.inference.has_independent_draws


def _mixing(run: Run) -> dict[str, Any] | None:
    """Return how the chains mix; None without chains, without data, or if they are too large."""
    if not _has_chains(run):
        return None
    chains, draws, size = run.posterior.shape
    if chains * draws * size > _CHEAP:
        return None
    with contextlib.suppress(BnnSymmError), use_threads(run.threads):
        return describe_mixing(
            run.posterior, run.dataset(), method=run.config.inference, per_draw=False
        )[0]
    return None


def _mixing_blocks(mixing: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [Text(text=_sentence(mixing["conclusion"]))]
    if mixing.get("next"):
        blocks.append(Text(text=f"Next: {mixing['next']}"))
    views = mixing_table(mixing)
    return [*blocks, *([views] if views else [])]


def _too_large(run: Run) -> list[Block]:
    """Return the command that compares chains which are too large for this page, or whose data."""
    if not _has_chains(run):
        return []
    chains, draws, size = run.posterior.shape
    if chains * draws * size <= _CHEAP:
        return []
    command = f"bnn-symm {shell_words('diagnose', run.path)}{module_flags(code_of(run.config))}"
    text = (
        f"The {chains} chains with {count(draws, 'draw')} of {count(size, 'parameter')} are not "
        "compared here, because this takes long."
    )
    return [Text(text=text), Code(what="to compare them", text=command)]


def _scores(metrics: Mapping[str, Any] | None) -> list[Block]:
    if metrics is None:
        return [Text(text="There are no scores, because the run is not complete.")]
    parts = with_target_columns(
        {name: metrics.get(name) for name in ("train", "validation", "test")}
    )
    columns: dict[str, list[Any]] = {"part": list(parts)}
    for key in dict.fromkeys(key for own in parts.values() for key in own):
        columns[measure_of(key).title] = [own.get(key) for own in parts.values()]
    notes = []
    if metrics.get("elbo") is not None:
        notes.append(f"ELBO {with_error(metrics['elbo'], metrics.get('elbo_standard_error'))} nats")
    if metrics.get("log_evidence") is not None:
        notes.append(f"log evidence of the Laplace approximation {number(metrics['log_evidence'])}")
    if metrics.get("prior_scale") is not None:
        notes.append(f"prior.scale {number(metrics['prior_scale'])}, chosen by the evidence")
    return [Table(caption="Scores of predictions", columns=columns, notes=notes)]


def _cost(run: Run) -> tuple[Answer, list[Block]]:
    """Return what the fit cost: gradients, time, draws and files."""
    record = run.record
    seconds, gradients = record.get("seconds"), record.get("gradient_evaluations")
    known: dict[str, Any] = {}
    if gradients is not None:
        known["gradient evaluations"] = number(gradients)
    if seconds is not None:
        known["seconds"] = number(seconds)
        if gradients:
            known["milliseconds per gradient"] = number(1000 * seconds / gradients)
    with contextlib.suppress(NoPosterior):
        chains, draws, _ = run.posterior.shape
        known["draws"] = f"{count(chains, 'chain')} with {count(draws, 'draw')}"
    files = [run.directory.path / name for name in record.get("files") or ()]
    if files:
        size = sum(path.stat().st_size for path in files if path.is_file())
        known["files of the run"] = f"{number(size / 1e6)} MB"
    on = [f"{record['device']}, {count(run.threads, 'thread')}"]
    known["machine"] = ", ".join([*on, *([record["host"]] if record.get("host") else [])])
    parts = [f"{number(seconds)} s"] if seconds is not None else []
    parts += [f"{number(gradients)} gradients"] if gradients is not None else []
    blocks: list[Block] = [] if seconds is not None else [Text(text=_no_time(run))]
    answer = Answer(question=COST, text=", ".join(parts) or "not recorded", mark="no")
    return answer, [*blocks, facts("Cost of the fit", known)]


def _is_imported(run: Run) -> bool:
    return "derived" in run.record


def _no_time(run: Run) -> str:
    why = "another program drew them" if _is_imported(run) else f"the run is {run.status}"
    return f"The time is not known, because {why}."


def _repeat(run: Run) -> list[Block]:
    """Return commands to repeat the fit, and what the numbers depend on."""
    flags, record = module_flags(code_of(run.config)), run.record
    commands: Sequence[tuple[str, str]] = [
        ("to diagnose it in full", f"bnn-symm {shell_words('diagnose', run.path)}{flags}"),
        ("to write this page", f"bnn-symm {shell_words('report', run.path)}{flags}"),
    ]
    versions = ", ".join(f"{name} {own}" for name, own in record["versions"].items())
    if _is_imported(run):
        text = (
            f"Another program drew these parameters ({record['engine']}), so the fit cannot be "
            "repeated from here."
        )
        return [Text(text=text), *(Code(what=what, text=own) for what, own in commands)]
    fit = f"bnn-symm {shell_words('fit', run.directory.config)} --out DIR{flags}"
    text = (
        f"The settings below, with seed {run.config.seed}, determine every random number of the "
        f"fit. The result is the same on a machine of the same type with "
        f"{count(run.threads, 'thread')} and the same versions: {versions}."
    )
    commands = [("to repeat the fit", fit), *commands]
    return [Text(text=text), *(Code(what=what, text=own) for what, own in commands)]


def _symmetry(run: Run) -> list[Block]:
    group = symmetry_group(run.model.net, input_shape=run.preprocessing.input_shape)
    content = {
        "kind": run.config.architecture.symmetry.kind,
        measure_of("num_parameters").title: number(run.model.num_net_parameters),
        **_fixed_parameters(run),
        measure_of("log10_order").title: number(group.log10_order, 4),
        "certificate": group.certificate,
        "mask fingerprint": run.record["mask_fingerprint"],
    }
    return [facts("Free parameters and remaining permutations of units", content)]


def _fixed_parameters(run: Run) -> dict[str, Any]:
    """Return how many parameters of the network get no posterior, if any, and which do."""
    fixed = run.model.num_fixed_parameters
    if not fixed:
        return {}
    return {
        "fixed parameters": number(fixed),
        "stochastic": listed(list(run.model.net_values(run.model.shapes))),
    }


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
