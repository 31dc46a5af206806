"""Apply dotted overrides to a configuration, such as `--set inference.num_steps=500`.

Values are YAML, except for settings that are texts, which are used as typed: a column may be called
`No`, `2020`, `null` or `a: b`, which YAML would read as something else. Where a list of texts is
possible too, `[a, b]` is one; a list of one text is the text as typed.
"""

import dataclasses
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from bnn_symm.advice import advise
from bnn_symm.errors import ConfigError, one_line
from bnn_symm.io.documents import parse_yaml

# Types with a YAML notation of their own; a setting that also accepts one of them is read as YAML.
_YAML_TYPES = (bool, int, float, dict, list)
_MAX_LENGTH = 80  # characters of an override in a message


def apply_override(raw: dict[str, Any], override: str, sections: Any) -> None:
    """Set one dotted key of nested mappings.

    Args:
        raw: the mappings, changed in place.
        override: `key=value`; an empty value unsets a setting that is a text.
        sections: the settings class that the mappings describe.

    Raises:
        ConfigError: if the override has another form, or a part of its key is a value.
    """
    key, equals, text = override.partition("=")
    shown = f"{advise('--set', 'override')} {one_line(override, _MAX_LENGTH)!r}"
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"{shown}: expected key=value, such as inference.num_steps=500")
    if not is_text(sections, names):
        value = parse_yaml(text, f"{shown}: the value")
    elif tuple in _kinds(sections, names):
        value = _several(text) or text or None
    else:
        value = text or None
    set_nested(raw, key, value, shown)


def set_nested(raw: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set a dotted key of nested mappings.

    Args:
        raw: the mappings, changed in place.
        key: the names of the sections and of the setting, separated by dots.
        value: the new value.
        source: where the value comes from, for error messages.

    Raises:
        ConfigError: if a part of the key is a value, not a section.
    """
    section = raw
    *path, last = key.strip().split(".")
    if not all([*path, last]):
        raise ConfigError(f"{source}: expected a key such as inference.num_steps")
    for name in path:
        below = section.get(name)
        if below is None:
            below = section[name] = {}
        if not isinstance(below, dict):
            raise ConfigError(f"{source}: {one_line(name, _MAX_LENGTH)} is a value, not a section")
        section = below
    section[last] = value


def is_text(sections: Any, names: Sequence[str]) -> bool:
    """Return whether a setting is a text, and no type that has another YAML notation.

    Args:
        sections: a settings class.
        names: the names of the sections and of the setting.
    """
    kinds = _kinds(sections, names)
    return str in kinds and not any(
        kind in _YAML_TYPES or dataclasses.is_dataclass(kind) for kind in kinds
    )


def _kinds(sections: Any, names: Sequence[str]) -> list[Any]:
    """Return the types that a setting may have."""
    kinds = [sections]
    for name in names:
        kinds = [
            found
            for kind in kinds
            if dataclasses.is_dataclass(kind)
            for field in dataclasses.fields(kind)
            if field.name == name
            for found in _alternatives(field.type)
        ]
    return kinds


def _several(text: str) -> list[str] | None:
    """Return the texts of a YAML list of two or more; None for any other text."""
    if not text.startswith("["):
        return None
    try:
        value = parse_yaml(text, "")
    except ConfigError:
        return None
    is_several = isinstance(value, list) and len(value) > 1
    return value if is_several and all(isinstance(item, str) for item in value) else None


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation allows; containers without the types of their items."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for alternative in get_args(annotation):
            yield from _alternatives(alternative)
    else:
        yield origin or annotation
