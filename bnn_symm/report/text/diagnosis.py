"""Format and draw the results of `bnn-symm diagnose`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnn_symm.analyses.diagnosis import Diagnosis
from bnn_symm.report.plots.convergence import plot_convergence
from bnn_symm.report.plots.predictions.regression_bands import plot_regression_bands
from bnn_symm.report.text.calibration import calibration_text, draw_calibration
from bnn_symm.report.text.convergence import convergence_text
from bnn_symm.report.text.elbo import draw_elbo, elbo_text
from bnn_symm.report.text.mixing import draw_mixing, mixing_text
from bnn_symm.runs.run import Run


def diagnosis_text(content: dict[str, Any]) -> str:
    """Return convergence, mixing, ELBO and calibration, first jointly and then for each run.

    Args:
        content: of `diagnosis.json`.

    Returns:
        The text.
    """
    sections = [convergence_text(content["convergence"])]
    if "each" not in content:
        return "\n\n".join([*sections, *_run_texts(content)])
    sections.append(f"all runs together\n{mixing_text(content['mixing'])}")
    for own in content["each"]:
        sections.append("\n\n".join([f"== {own['run']}", *_run_texts(own)]))
    return "\n\n".join(sections)


def _run_texts(content: dict[str, Any]) -> list[str]:
    if content["calibration"] is None:
        return [content["mixing"]["conclusion"]]
    return [
        mixing_text(content["mixing"]),
        elbo_text(content["elbo"]),
        calibration_text(content["calibration"]),
    ]


def draw_diagnosis(diagnosis: Diagnosis, runs: Sequence[Run], folder: Path) -> list[Path]:
    """Draw all figures, with one subfolder for each of several runs.

    Args:
        diagnosis: of the runs.
        runs: the runs.
        folder: of the figures.

    Returns:
        The paths of the figures.
    """
    folder.mkdir()
    content, paths = diagnosis.content, []
    if plot_convergence(content["convergence"], folder / "convergence.png"):
        paths.append(folder / "convergence.png")
    if "each" not in content:
        return paths + _draw_run(content, diagnosis.traces[0], runs[0], folder)
    together, *traces = diagnosis.traces
    title = f"{len(runs)} runs together"
    paths += draw_mixing(content["mixing"], together, folder, title=title)
    for number, (own, panels, run) in enumerate(
        zip(content["each"], traces, runs, strict=True), start=1
    ):
        inner = folder / f"{number}-{run.path.name}"
        inner.mkdir()
        paths += _draw_run(own, panels, run, inner)
    return paths


def _draw_run(
    content: dict[str, Any], traces: list[dict[str, Any]], run: Run, folder: Path
) -> list[Path]:
    if content["calibration"] is None:
        return []
    title = run.path.name
    paths = draw_mixing(content["mixing"], traces, folder, title=title)
    paths += draw_elbo(content["elbo"], folder, title=title)
    paths += draw_calibration(content["calibration"], folder, title=title)
    dataset = run.dataset()
    if dataset.input_shape == (1,) and dataset.task not in ("classification", "survival"):
        paths.append(folder / "bands.png")
        plot_regression_bands(run.posterior, dataset, paths[-1])
    return paths
