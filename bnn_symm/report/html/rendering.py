"""Write `report.html`: one self-contained file with embedded figures and without scripts.

`templates/page.html.j2` defines the layout. All values are escaped. Equal data give equal bytes.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from bnn_symm.errors import BnnSymmError, InvalidRun, one_line
from bnn_symm.io.atomic import write_atomically
from bnn_symm.report.glossary import TermMarker
from bnn_symm.report.html.page import Page
from bnn_symm.report.html.run_page import run_page
from bnn_symm.report.html.study_data import SUMMARY, read_study
from bnn_symm.report.html.study_page import study_page
from bnn_symm.runs.configuration.factories import PLACEHOLDER, factories_of, study_commands
from bnn_symm.runs.directory.output_directory import disk_errors
from bnn_symm.runs.run import load_run
from bnn_symm.studies.study import load_study

REPORT = "report.html"


def write_report(
    directory: Path, path: Path | None = None, *, module: str | Sequence[str] | None = None
) -> Path:
    """Write the report of a study or of a run.

    Args:
        directory: of the study or the run.
        path: of the page, by default `report.html` in the directory.
        module: code of the user that the run names.

    Returns:
        The path of the page.

    Raises:
        InvalidRun: if the directory is neither a study nor a run, or is damaged.
    """
    if (directory / SUMMARY).exists():
        return write_study_report(directory, path)
    if (directory / "run.json").exists():
        return write_run_report(directory, path, module=module)
    if (directory / "study.yaml").exists():
        raise InvalidRun(
            f"{one_line(directory, 100)} is a study without {SUMMARY}; resume it with: "
            f"{_resume_command(directory)}"
        )
    what = "there is no directory" if not directory.is_dir() else "neither a study nor a run"
    raise InvalidRun(
        f"{one_line(directory, 120)}: {what}; expected a directory that `bnn-symm compare CONFIG` "
        "or `bnn-symm fit CONFIG` wrote, such as runs/fit-1"
    )


def write_study_report(directory: Path, path: Path | None = None) -> Path:
    """Write the report of a study.

    Args:
        directory: of the study.
        path: of the page, by default `report.html` in the directory.

    Returns:
        The path of the page.

    Raises:
        InvalidRun: if the directory is not a study, or a file of it is damaged.
    """
    return _write(study_page(read_study(directory)), path or directory / REPORT)


def write_run_report(
    directory: Path, path: Path | None = None, *, module: str | Sequence[str] | None = None
) -> Path:
    """Write the report of a run.

    Args:
        directory: of the run.
        path: of the page, by default `report.html` in the directory.
        module: code of the user that the run names.

    Returns:
        The path of the page.

    Raises:
        InvalidRun: if the directory is not a run, or a file of it is damaged.
        ConfigError: if the run names code of the user and `module` does not.
    """
    return _write(run_page(load_run(directory, module=module)), path or directory / REPORT)


def _resume_command(directory: Path) -> str:
    try:
        factories = factories_of(load_study(directory / "study.yaml").configs())
    except BnnSymmError:  # the command reports the error
        factories = ()
    return study_commands(directory, [PLACEHOLDER] * len(factories))["resume"]


def render(page: Page) -> str:
    """Return a page as HTML.

    Args:
        page: the page.

    Returns:
        The HTML document.
    """
    return _environment().get_template("page.html.j2").render(page=page, terms=TermMarker())


def _write(page: Page, path: Path) -> Path:
    text = render(page)
    with disk_errors(path, "free some space, or name another file with -o"):
        write_atomically(
            path, lambda temporary: temporary.write_text(text, "utf-8", "replace", "\n")
        )
    return path


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("bnn_symm.report.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
