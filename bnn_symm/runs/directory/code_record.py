"""Record the source of likelihoods and priors of the user's own code, and compare it at loading."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_symm.models import BayesianModel, Imported
from bnn_symm.runs.configuration.config import Config
from bnn_symm.user_code import source_record

CodeRecord = Mapping[str, Mapping[str, str]]

_WORDS = {"sha256": "source (sha256)", "version": "version of the package"}


class CodeWarning(UserWarning):
    """Warn that a class of the user's own code is not the one of the fit."""


def code_record(config: Config, model: BayesianModel) -> dict[str, dict[str, str]]:
    """Describe the classes of the user's own code that a model uses.

    Args:
        config: the configuration of the model.
        model: the model.

    Returns:
        Name -> what is known of its source (`source_record`).
    """
    own = [(config.likelihood, model.likelihood), (config.prior.name, model.prior.name)]
    return {
        named.name: source_record(type(built))
        for named, built in own
        if isinstance(named, Imported)
    }


def code_changes(stored: CodeRecord | None, now: CodeRecord) -> list[str]:
    """Return sentences on what differs between the classes of a fit and the present ones.

    Args:
        stored: of the fit.
        now: the present ones; a class with another name has moved, and takes the stored place.
    """
    if not stored or len(stored) != len(now):
        return []
    pairs: list[tuple[Any, Any]] = [(name, name) for name in stored if name in now]
    pairs += zip(
        [name for name in stored if name not in now],
        [name for name in now if name not in stored],
        strict=True,
    )
    return [
        f"the {words} of {new} is {now[new].get(key, 'not known')[:12]}, at the fit it was "
        f"{stored[old][key][:12]}"
        for old, new in pairs
        for key, words in _WORDS.items()
        if stored[old].get(key) not in (None, now[new].get(key))
    ]


def check_code(path: Path, stored: CodeRecord | None, now: CodeRecord) -> None:
    """Warn if a class of the user's own code is not the one of the fit.

    Args:
        path: the run directory.
        stored: the record of the fit.
        now: the present record.
    """
    for change in code_changes(stored, now):
        warnings.warn(
            f"{path}: {change}; results may differ: restore it, or fit again",
            CodeWarning,
            stacklevel=3,
        )
