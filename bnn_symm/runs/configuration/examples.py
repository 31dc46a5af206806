"""Find the configurations that ship with the package.

They lie in the folder `bnn_symm/examples`. Where a command takes a configuration, the name of one,
such as `quickstart` or `papers/lim2024_mlp_mnist`, stands for its file.
"""

import itertools
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bnn_symm
from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError, nearest, one_line

_FOLDER = Path(bnn_symm.__file__).parent / "examples"


@dataclass(frozen=True, kw_only=True)
class Example:
    """Name a configuration that ships with the package.

    Attributes:
        name: path of its file below the folder of all, without the suffix.
        description: the first sentence of its file.
        command: the command that runs it.
        path: its file.
    """

    name: str
    description: str
    command: str
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """Return the description with JSON types."""
        return asdict(self) | {"path": str(self.path)}


def list_examples() -> list[Example]:
    """Return all configurations that ship with the package, by name, those of papers last."""
    files = sorted(_FOLDER.rglob("*.yaml"), key=lambda path: (len(path.parents), path))
    return [_example(path) for path in files]


@checked
def find_example(name: str) -> Example:
    """Return a configuration that ships with the package.

    Args:
        name: as `list_examples` gives it.

    Raises:
        ConfigError: if there is none of that name; the message suggests the nearest one.

    Example:
        >>> from bnn_symm.runs.configuration.examples import find_example
        >>> find_example("quickstart").command
        'bnn-symm compare quickstart'
    """
    examples = {example.name: example for example in list_examples()}
    if name not in examples:
        raise ConfigError(f"no example {one_line(repr(name), 60)}; {nearest(name, examples)}")
    return examples[name]


def config_path(path: Path) -> Path:
    """Return the file of a configuration: the path itself, or the example of that name.

    Args:
        path: a file, or the name of an example. A file of that name takes precedence.
    """
    example = _FOLDER / f"{path}.yaml"
    is_name = not path.suffix and not path.is_absolute() and ".." not in path.parts
    return example if is_name and not path.exists() and example.is_file() else path


def _example(path: Path) -> Example:
    text = path.read_text(encoding="utf-8")
    lines = itertools.takewhile(lambda line: line.startswith("# "), text.splitlines())
    comment = " ".join(line.removeprefix("# ") for line in lines)
    name = path.relative_to(_FOLDER).with_suffix("").as_posix()
    command = "compare" if "\nstudy:" in text else "zoo train" if "\nzoo:" in text else "fit"
    description = re.split(r"(?<=[.?])(?<!al\.) ", comment)[0].removesuffix(".")
    return Example(
        name=name, description=description, command=f"bnn-symm {command} {name}", path=path
    )
