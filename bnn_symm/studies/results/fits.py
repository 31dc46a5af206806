"""Read fits and pairs of a study from disk, and check that each belongs to its key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_symm.errors import InvalidRun
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.factories import check_same
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import Run, code_of, load_run, stored_config
from bnn_symm.studies.directory import StudyDirectory, check_task
from bnn_symm.studies.results.measures import MEASURES


def open_fit(study_directory: StudyDirectory, key: str, config: Config) -> Run:
    """Open the run of a fit.

    Args:
        study_directory: the study.
        key: of the fit.
        config: the planned configuration of the fit; the user has named its custom code again.

    Returns:
        The run.

    Raises:
        InvalidRun: if the directory contains another fit, or is damaged.
    """
    path = study_directory.fit_path(key)
    module = code_of(config)
    check_same(module, code_of(stored_config(RunDirectory(path))), path)
    run = load_run(path, module=module)
    check_task(path, run.record, key)
    return run


def read_measures(run: Run) -> dict[str, Any]:
    """Return the measurements of a fit.

    Args:
        run: the fit.

    Returns:
        The content of `measures.json`.

    Raises:
        InvalidRun: if the file is missing, damaged, or was changed.
    """
    run.directory.signature.check(run.path / MEASURES)
    return RunDirectory.read_json(run.path / MEASURES)


def read_pair(study_directory: StudyDirectory, key: str) -> dict[str, Any] | None:
    """Return the measurements of a pair.

    Args:
        study_directory: the study.
        key: of the pair.

    Returns:
        The content of its file; None if there is no such file.

    Raises:
        InvalidRun: if the file is damaged, or belongs to another pair.
    """
    path = study_directory.pair_path(key)
    if not path.exists():
        return None
    content = RunDirectory.read_json(path)
    check_task(path, content, key)
    return content


def section(content: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    """Return a nested object of a result.

    Args:
        content: of the file.
        name: key of the object.
        path: of the file, for the message.

    Returns:
        The object; empty if the key is missing or null.

    Raises:
        InvalidRun: if the value is not an object.
    """
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRun(
            f"{path} is damaged: {name} is a {type(value).__name__}, expected an object; remove it"
        )
    return value
