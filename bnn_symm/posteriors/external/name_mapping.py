"""The user's map of names: which array of other software is which parameter, where names alone do
not say it.

layers.0.weight: w1
layers.1.weight: {name: w2, transpose: true}              theirs is (in, out)
head.weight: {name: w3, flatten: channels_last}           it reads maps that were flattened channels
    last
likelihood.log_noise: {name: sigma, transform: log}       theirs is a standard deviation
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bnn_symm.errors import ConfigError, nearest
from bnn_symm.io.documents import read_yaml

Names = Mapping[str, Any]
"""Parameter -> name of theirs, or {name, transpose, flatten, transform}; checked when it is
used."""

TRANSFORMS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "log": ("a standard deviation", lambda value: value.log()),
    "log_sqrt": ("a variance", lambda value: 0.5 * value.log()),
    "log_rsqrt": ("a precision", lambda value: -0.5 * value.log()),
}
"""What a latent variable of a likelihood is of theirs: the logarithm of a standard deviation."""

_KEYS = ("name", "transpose", "flatten", "transform")
_ORDERS = ("channels_first", "channels_last")


def read_names(path: str | Path) -> dict[str, Any]:
    """Reads a map of names, YAML.

    Raises:
        ConfigError: if it is missing, no YAML, or no map.
    """
    example = "wanted lines such as `layers.0.weight: w1`"
    try:
        content = read_yaml(Path(path))
    except FileNotFoundError:
        raise ConfigError(f"no map of names {path}; {example}") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path} holds no map of names; {example}")
    return {str(key): value for key, value in content.items()}


def checked_names(
    names: Names, parameters: Mapping[str, Any], latents: list[str], theirs: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The map with its entries written out.

    Args:
        names: as the user wrote it.
        parameters: of the network and the likelihood, by name.
        latents: those of the likelihood.
        theirs: names that there are.

    Raises:
        ConfigError: if it names what is not there, or says what has no meaning.
    """
    entries: dict[str, dict[str, Any]] = {}
    for parameter, entry in names.items():
        where = f"map of names, {parameter}"
        if parameter not in parameters:
            raise ConfigError(
                f"{where}: the network has no such parameter; {nearest(parameter, parameters)}"
            )
        own = (
            {"name": entry}
            if isinstance(entry, str)
            else dict(entry)
            if isinstance(entry, Mapping)
            else {}
        )
        if not isinstance(own.get("name"), str):
            raise ConfigError(
                f"{where}: got {entry!r}, wanted a name, or {{name: NAME, transpose: true}}"
            )
        if own["name"] not in theirs:
            raise ConfigError(
                f"{where}: there is no {own['name']!r} among theirs; {nearest(own['name'], theirs)}"
            )
        _check_keys(where, own, parameter in latents)
        entries[parameter] = own
    given = [entry["name"] for entry in entries.values()]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"map of names: {twice} is named for two parameters; it can be one of them only"
        )
    return entries


def _check_keys(where: str, entry: Mapping[str, Any], latent: bool) -> None:
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(f"{where}: unknown key {key}; {nearest(str(key), _KEYS)}")
        if key != "name" and latent != (key == "transform"):
            what = "latent variables of the likelihood" if key == "transform" else "weights"
            raise ConfigError(f"{where}: {key} is for {what}; leave it out")
    if not isinstance(entry.get("transpose", True), bool):
        raise ConfigError(f"{where}: transpose: got {entry['transpose']!r}, wanted true or false")
    if entry.get("flatten", _ORDERS[0]) not in _ORDERS:
        raise ConfigError(
            f"{where}: flatten: got {entry['flatten']!r}, wanted {' or '.join(_ORDERS)}"
        )
    if "transform" in entry and entry["transform"] not in TRANSFORMS:
        known = ", ".join(f"{name} (of {what})" for name, (what, _) in TRANSFORMS.items())
        raise ConfigError(f"{where}: transform: got {entry['transform']!r}; known: {known}")
