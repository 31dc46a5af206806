"""Check that the user has named the code that a configuration imports.

A configuration names a factory as `package.module:factory`, and building its network imports that
module and calls the factory. A configuration written by the user may do so. A run directory may
not: the code that it names runs only if the user repeats it with `--module`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from bnn_symm.advice import advise
from bnn_symm.errors import ConfigError, InvalidRun, one_line, shell_words
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.run import code_of, module_flags

PLACEHOLDER = "PACKAGE.MODULE:FACTORY"
"""Placeholder for a factory in printed commands: names from a directory must not be copied."""

# Files beside a configuration which show that it belongs to the directory of a run, a study or a
# check, and was not written by the user.
_DIRECTORY_MARKERS = ("run.json", "plan.json", "sbc.json", "zoo.json")
_MAX_NAME = 80  # characters of a name in a message


def factories_of(configs: Iterable[Config]) -> tuple[str, ...]:
    """Return the code of the user that configurations name, each once.

    Args:
        configs: the configurations.
    """
    return tuple(dict.fromkeys(name for config in configs for name in code_of(config)))


def study_commands(path: Path, factories: Sequence[str]) -> dict[str, str]:
    """Return the commands that repeat a study, resume it, and write its report.

    Args:
        path: the directory of the study.
        factories: the factories of its networks, to be repeated.
    """
    flags = module_flags(factories)
    return {
        "repeat": f"bnn-symm {shell_words('compare', path / 'study.yaml')} --out DIR{flags}",
        "resume": f"bnn-symm {shell_words('compare', '--resume', path)}{flags}",
        "report": f"bnn-symm {shell_words('report', path)}",
    }


def check_repeated(named: Sequence[str], repeated: Sequence[str], where: object) -> None:
    """Check that the user has repeated every factory that a directory names.

    Args:
        named: the factories in files of the directory.
        repeated: the factories given with `--module`.
        where: the directory or file, for the message.

    Raises:
        ConfigError: if a named factory is not repeated, or a repeated one is not named.
    """
    missing = [name for name in named if name not in repeated]
    if missing:
        raise ConfigError(
            f"{one_line(where, _MAX_NAME)} names code of the user, which is not run "
            f"automatically; if you trust it, repeat it: "
            f"{advise(module_flags(missing).strip(), f'modules={missing!r}')}"
        )
    for name in repeated:
        if name not in named:
            what = (
                f"uses {', '.join(one_line(factory, _MAX_NAME) for factory in named)}"
                if named
                else "uses no code of the user"
            )
            raise ConfigError(
                f"{advise('--module', 'the module')} {one_line(name, _MAX_NAME)}: "
                f"{one_line(where, _MAX_NAME)} {what}"
            )


def check_same(planned: Sequence[str], stored: Sequence[str], where: Path) -> None:
    """Check that a run within a study names the code that the study names.

    Args:
        planned: the names in the study.
        stored: the names in the run.
        where: the run directory, for the message.

    Raises:
        InvalidRun: if the two differ.
    """
    if planned != stored:
        theirs, ours = (
            one_line(", ".join(names), _MAX_NAME) if names else "no code of the user"
            for names in (stored, planned)
        )
        raise InvalidRun(
            f"{where} names {theirs}, and its study {ours}: it does not belong to this study; "
            "remove it, and resume with "
            f"{advise('`compare --resume`', 'run_study(..., resume=True)')}"
        )


def check_configuration(path: str | Path, named: Sequence[str], repeated: Sequence[str]) -> None:
    """Check that the user has repeated the code in the configuration of a run, a study or a check.

    Any other configuration was written by the user, and the code that it names is meant to run.

    Args:
        path: the path of the configuration.
        named: the factories in it.
        repeated: the factories given with `--module`.

    Raises:
        ConfigError: as `check_repeated`.
    """
    if repeated or any((Path(path).parent / name).exists() for name in _DIRECTORY_MARKERS):
        check_repeated(named, repeated, path)
