"""Read and check the user's name mapping: which array of other software is which parameter.

It is needed where names alone are ambiguous.

    layers.0.weight: w1
    layers.1.weight: {name: w2, transpose: true}              the array is (in, out)
    head.weight: {name: w3, flatten: channels_last}           reads maps flattened channels last
    likelihood.log_noise: {name: sigma, transform: log}       the array is a standard deviation
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bnn_symm.errors import ConfigError, nearest
from bnn_symm.io.documents import read_yaml

NameMapping = Mapping[str, Any]
"""Parameter -> name of the array, or {name, transpose, flatten, transform}; checked when used."""

TRANSFORMS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "log": ("a standard deviation", lambda value: value.log()),
    "log_sqrt": ("a variance", lambda value: 0.5 * value.log()),
    "log_rsqrt": ("a precision", lambda value: -0.5 * value.log()),
}
"""Conversions to a latent variable of a likelihood, the logarithm of a standard deviation."""

_KEYS = ("name", "transpose", "flatten", "transform")
_ORDERS = ("channels_first", "channels_last")


def read_names(path: str | Path) -> dict[str, Any]:
    """Read a name mapping from a YAML file.

    Args:
        path: of the file.

    Returns:
        Parameter -> name of the array, or {name, transpose, flatten, transform}.

    Raises:
        ConfigError: if the file is missing, is not YAML, or is not a mapping.
    """
    example = "expected lines such as `layers.0.weight: w1`"
    try:
        content = read_yaml(Path(path))
    except FileNotFoundError:
        raise ConfigError(f"no name mapping {path}; {example}") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path} holds no name mapping; {example}")
    return {str(key): value for key, value in content.items()}


def checked_names(
    names: NameMapping, parameters: Mapping[str, Any], latents: list[str], theirs: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the name mapping in its long form, after checking it.

    Args:
        names: as the user wrote it.
        parameters: of the network and the likelihood, by name.
        latents: latent variables of the likelihood.
        theirs: arrays of the other software, by name.

    Returns:
        Parameter -> {name, transpose, flatten, transform}.

    Raises:
        ConfigError: if it lists unknown parameters or arrays, or an entry is invalid.
    """
    entries: dict[str, dict[str, Any]] = {}
    for parameter, entry in names.items():
        where = f"name mapping, {parameter}"
        if parameter not in parameters:
            raise ConfigError(
                f"{where}: the network has no such parameter; {nearest(parameter, parameters)}"
            )
        options = (
            {"name": entry}
            if isinstance(entry, str)
            else dict(entry)
            if isinstance(entry, Mapping)
            else {}
        )
        if not isinstance(options.get("name"), str):
            raise ConfigError(
                f"{where}: got {entry!r}, expected a name, or {{name: NAME, transpose: true}}"
            )
        if options["name"] not in theirs:
            raise ConfigError(
                f"{where}: got the unknown array {options['name']!r}; "
                f"{nearest(options['name'], theirs)}"
            )
        _check_keys(where, options, parameter in latents)
        entries[parameter] = options
    given = [entry["name"] for entry in entries.values()]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"name mapping: {twice} is listed for two parameters; list it for one of them only"
        )
    return entries


def _check_keys(where: str, entry: Mapping[str, Any], latent: bool) -> None:
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(f"{where}: unknown key {key}; {nearest(str(key), _KEYS)}")
        if key != "name" and latent != (key == "transform"):
            kind = "latent variables of the likelihood" if key == "transform" else "weights"
            raise ConfigError(f"{where}: {key} is for {kind}; omit it")
    if not isinstance(entry.get("transpose", True), bool):
        raise ConfigError(f"{where}: transpose: got {entry['transpose']!r}, expected true or false")
    if entry.get("flatten", _ORDERS[0]) not in _ORDERS:
        raise ConfigError(
            f"{where}: flatten: got {entry['flatten']!r}, expected {' or '.join(_ORDERS)}"
        )
    if "transform" in entry and entry["transform"] not in TRANSFORMS:
        known = ", ".join(f"{name} (of {what})" for name, (what, _) in TRANSFORMS.items())
        raise ConfigError(f"{where}: transform: got {entry['transform']!r}; known: {known}")
