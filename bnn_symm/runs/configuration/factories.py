"""Which code of the user's own a configuration names, and whether the user has named it too.

A configuration names a factory as `package.module:factory`, and building its network imports that
module and calls the factory. The user's own configuration may do so. A directory may not: what it
names is run only where the user repeats it with `--module`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from bnn_symm.errors import ConfigError, InvalidRun, one_line, shell_words
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.run import module_flags, module_of

PLACEHOLDER = "PACKAGE.MODULE:FACTORY"
"""Stands for a factory in commands of a directory: what it names is not handed to a user as a
command to type."""

# Files beside a configuration that show that a program wrote it into the directory of a run, a
# study or a check.
_OF_A_DIRECTORY = ("run.json", "plan.json", "sbc.json")
_SHOWN = 80  # characters of a name in a message


def factories_of(configs: Iterable[Config]) -> tuple[str, ...]:
    """Return the factories that configurations name, each once."""
    return tuple(
        dict.fromkeys(name for config in configs if (name := module_of(config)) is not None)
    )


def study_commands(path: Path, factories: Sequence[str]) -> dict[str, str]:
    """Return what to type to repeat a study, to go on with it, and to write its page.

    Args:
        path: the directory of the study.
        factories: that make its networks, to be repeated.
    """
    flags = module_flags(factories)
    return {
        "repeat": f"bnn-symm {shell_words('compare', path / 'study.yaml')} --out DIR{flags}",
        "resume": f"bnn-symm {shell_words('compare', '--resume', path)}{flags}",
        "report": f"bnn-symm {shell_words('report', path)}",
    }


def check_repeated(named: Sequence[str], repeated: Sequence[str], where: object) -> None:
    """Refuse to go on where a directory names code that the user did not repeat.

    Args:
        named: factories in files of the directory.
        repeated: those that the user gave with `--module`.
        where: the directory or file, for the message.

    Raises:
        ConfigError: if one of `named` is not repeated, or one that is repeated is not named.
    """
    missing = [name for name in named if name not in repeated]
    if missing:
        raise ConfigError(
            f"{one_line(where, _SHOWN)} names code that makes its networks, and what a directory "
            "names never runs by "
            f"itself; if it is yours, repeat it:{module_flags(missing)}"
        )
    for name in repeated:
        if name not in named:
            what = (
                f"uses {', '.join(one_line(own, _SHOWN) for own in named)}"
                if named
                else "uses no code of yours"
            )
            raise ConfigError(
                f"--module {one_line(name, _SHOWN)}: {one_line(where, _SHOWN)} {what}"
            )


def check_same(planned: str | None, stored: str | None, where: Path) -> None:
    """Refuse a run within a study that names another factory than the study does.

    Raises:
        InvalidRun: if the two differ.
    """
    if planned != stored:
        theirs, ours = (
            one_line(name, _SHOWN) if name else "no factory" for name in (stored, planned)
        )
        raise InvalidRun(
            f"{where} names {theirs}, and its study {ours}: it is not of this study; remove it, "
            "and go on with "
            f"`compare --resume`"
        )


def check_configuration(path: str | Path, named: Sequence[str], repeated: Sequence[str]) -> None:
    """Refuse the configuration of a run, a study or a check whose code the user did not repeat.

    Any other configuration is the user's own, and the code that it names is meant to run.

    Args:
        path: of the configuration.
        named: factories in it.
        repeated: those that the user gave with `--module`.

    Raises:
        ConfigError: as `check_repeated`.
    """
    if repeated or any((Path(path).parent / name).exists() for name in _OF_A_DIRECTORY):
        check_repeated(named, repeated, path)
