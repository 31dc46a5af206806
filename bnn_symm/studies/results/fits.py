"""The fits of a study as they lie on disk, each with what was measured of it, and proof that it is
the one meant.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_symm.errors import InvalidRun
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.factories import check_same
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import Run, load_run, module_of, stored_config
from bnn_symm.studies.directory import StudyDirectory, check_task
from bnn_symm.studies.results.measures import MEASURES


def open_cell(place: StudyDirectory, key: str, config: Config) -> Run:
    """Open the run of a fit.

    Args:
        place: the study.
        key: of the fit.
        config: of the fit, as it was planned; the code that it names has been repeated by the user.

    Raises:
        InvalidRun: if the directory holds another fit, or is damaged.
    """
    path = place.cell(key)
    module = module_of(config)
    check_same(module, module_of(stored_config(RunDirectory(path))), path)
    run = load_run(path, module=module)
    check_task(path, run.record, key)
    return run


def read_measures(run: Run) -> dict[str, Any]:
    """Return what was measured of a fit.

    Raises:
        InvalidRun: if the file is missing, damaged, or was changed.
    """
    run.directory.signature.check(run.path / MEASURES)
    return RunDirectory.read_json(run.path / MEASURES)


def read_pair(place: StudyDirectory, key: str) -> dict[str, Any] | None:
    """Return what was measured of a pair; None if it is not there.

    Raises:
        InvalidRun: if the file is damaged, or is of another pair.
    """
    path = place.pair(key)
    if not path.exists():
        return None
    content = RunDirectory.read_json(path)
    check_task(path, content, key)
    return content


def section(content: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    """Return a part of a result that has keys of its own; empty if it is not there.

    Raises:
        InvalidRun: if it is something else.
    """
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRun(
            f"{path} is damaged: {name} is a {type(value).__name__}, expected an object; remove it"
        )
    return value
