"""Describe every key of a configuration: meaning, default and allowed values.

The settings classes are the only source. Their JSON Schema has the types, bounds and defaults, and
their docstrings the meanings. Editors complete and check YAML files by the schema, and the list of
keys is read from it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from bnn_symm.errors import ConfigError, nearest, one_line
from bnn_symm.models.priors.prior import CLASS_SCHEMA
from bnn_symm.runs.configuration.config import UNNAMED, Config
from bnn_symm.settings import attribute_descriptions
from bnn_symm.summaries import Result

_OWN_CLASS = "PACKAGE.MODULE:CLASS"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Bounds of validated numbers, as pydantic writes them and as JSON Schema calls them.
_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
_SIGNS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
_TYPES = {
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
    "object": "mapping",
}


@dataclass(frozen=True, kw_only=True)
class ConfigKey(Result):
    """Describe one key of a configuration.

    Attributes:
        key: dotted key, such as `inference.num_steps`; `*` stands for names chosen by the user.
        meaning: what it sets, with its unit.
        default: its default value; None if it is null, or if there is none.
        is_required: whether it has no default.
        allowed: its type, bounds or choices.
        names: names of the section's kinds that have the key, such as methods; empty for all.
    """

    key: str
    meaning: str
    default: Any
    is_required: bool
    allowed: str
    names: tuple[str, ...] = ()


def config_schema(sections: Mapping[str, type] | None = None) -> dict[str, Any]:
    """Return the JSON Schema of configurations, with the meaning of every key.

    Args:
        sections: settings classes of further sections, by name.

    Returns:
        The schema, in the dialect 2020-12.

    Example:
        >>> from bnn_symm.runs.configuration.reference import config_schema
        >>> config_schema()["properties"]["seed"]["minimum"]
        0
    """
    schema = TypeAdapter(Config).json_schema()
    classes = [(cls, "validation") for cls in (sections or {}).values()]
    references, further = models_json_schema(classes)  # pyright: ignore[reportArgumentType]
    for (name, cls), reference in zip((sections or {}).items(), references.values(), strict=True):
        schema["properties"][name] = reference
        description = schema["description"]
        schema["description"] = f"{description}\n    {name}: {_first_line(cls.__doc__ or '')}"
    schema["$defs"] |= further.get("$defs", {})
    for part in (schema, *schema["$defs"].values()):
        _describe_properties(part)
    _convert(schema)
    _allow_own_settings(schema["$defs"]["Prior"])
    for section, name in UNNAMED.items():
        if section in schema["properties"]:
            _require_names(schema, schema["properties"][section], name)
    return {"$schema": _DIALECT, "title": "Configuration of bnn-symm", **schema}


def config_keys(schema: Mapping[str, Any], pattern: str | None = None) -> list[ConfigKey]:
    """Return the description of every key, in the order of the sections.

    Args:
        schema: as `config_schema` returns it.
        pattern: a key, a section or a name such as `nuts`; None for all keys.

    Raises:
        ConfigError: if nothing has that name; the message suggests the nearest one.

    Example:
        >>> from bnn_symm.runs.configuration.reference import config_keys, config_schema
        >>> [key] = config_keys(config_schema(), "data.test_fraction")
        >>> key.default, key.allowed
        (0.2, 'number >= 0 and < 1')
    """
    keys = list(_keys(schema, schema, ""))
    if pattern is None:
        return keys
    kinds = {kind: key.key.partition(".")[0] for key in keys for kind in key.names}
    for is_chosen in (
        lambda key: key.key == pattern or key.key.startswith(f"{pattern}."),
        lambda key: pattern in (key.names or kinds) and key.key.startswith(f"{kinds[pattern]}."),
        lambda key: key.key.rpartition(".")[2] == pattern,
    ):
        if chosen := [key for key in keys if is_chosen(key)]:
            return chosen
    known = [*schema["properties"], *kinds, *(key.key for key in keys)]
    close = nearest(pattern, known)
    raise ConfigError(
        f"no key or section of configurations is called {one_line(repr(pattern), 60)}; "
        f"{close if close.startswith('did') else '`bnn-symm config` lists all'}"
    )


def _describe_properties(part: dict[str, Any]) -> None:
    """Move the meanings from the description of a class to its properties."""
    docstring = part.get("description", "")
    meanings = attribute_descriptions(docstring)
    part["description"] = _first_line(docstring)
    for name, content in part.get("properties", {}).items():
        content.pop("title", None)
        if name in meanings:
            content["description"] = " ".join(meanings[name].split())


def _first_line(docstring: str) -> str:
    return docstring.strip().partition("\n")[0]


def _convert(node: Any) -> None:
    """Write bounds as JSON Schema names them, and drop what belongs to OpenAPI."""
    if isinstance(node, dict):
        for short, name in _BOUNDS.items():
            if isinstance(node.get(short), int | float):
                node[name] = node.pop(short)
        node.pop("discriminator", None)
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        _convert(child)


def _require_names(schema: dict[str, Any], section: dict[str, Any], unnamed: str) -> None:
    """Require the name of every kind of a section, except for the kind that needs none."""
    for variant in _variants(schema, section).values():
        name = variant["properties"]["name"]["const"]
        if name != unnamed:
            variant["required"] = sorted({*variant.get("required", ()), "name"})


def _resolve(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = node.get("$ref")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else node


def _variants(schema: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the kinds of a section by name; none if it has one kind only."""
    for part in (node, *node.get("anyOf", ())):
        if "oneOf" in part:
            kinds = [_resolve(schema, kind) for kind in part["oneOf"]]
            return {kind["properties"]["name"]["const"]: kind for kind in kinds}
    return {}


def _keys(schema: Mapping[str, Any], part: Mapping[str, Any], prefix: str) -> Iterator[ConfigKey]:
    """Yield the keys of a settings class and of the sections in it."""
    for name, node in part["properties"].items():
        key, variants = f"{prefix}{name}", _variants(schema, node)
        sections = list(_sections(node, key))
        if variants:
            default = node.get("default", UNNAMED.get(key))
            own = [_OWN_CLASS] if any(map(_is_own_class, node.get("anyOf", ()))) else []
            allowed = " | ".join([*variants, *own])
            yield _key(f"{key}.name", node, default=default, allowed=allowed)
            if prefix:  # its keys are those of the section with its name, such as inference
                continue
            yield from _merged(
                {name: _keys(schema, kind, f"{key}.") for name, kind in variants.items()}
            )
        elif "$ref" not in node:
            required = name in part.get("required", ())
            yield _key(key, node, default=node.get("default"), is_required=required)
        for section, below in sections:
            yield from _keys(schema, _resolve(schema, section), f"{below}.")


def _sections(node: Mapping[str, Any], key: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the settings classes of a key, with the dotted key of their values."""
    for option in (node, *node.get("anyOf", ())):
        if "$ref" in option:
            yield option, key
        values = option.get("additionalProperties")
        if isinstance(values, Mapping) and "$ref" in values:
            yield values, f"{key}.*"


def _key(
    key: str,
    node: Mapping[str, Any],
    *,
    default: Any,
    is_required: bool = False,
    allowed: str | None = None,
) -> ConfigKey:
    if default is None and node.get("type") in ("array", "object"):
        default = [] if node["type"] == "array" else {}
    return ConfigKey(
        key=key,
        meaning=node.get("description", ""),
        default=default,
        is_required=is_required,
        allowed=allowed or _allowed(node),
    )


def _merged(variants: Mapping[str, Iterator[ConfigKey]]) -> list[ConfigKey]:
    """Merge equal keys of several kinds of a section, except for the name, into one each."""
    names: dict[str, tuple[ConfigKey, list[str]]] = {}
    for name, keys in variants.items():
        for key in keys:
            if not key.key.endswith(".name") or key.key.count(".") > 1:
                names.setdefault(json.dumps(key.to_dict()), (key, []))[1].append(name)
    return [
        replace(key, names=() if len(kinds) == len(variants) else tuple(kinds))
        for key, kinds in names.values()
    ]


def _allowed(node: Mapping[str, Any]) -> str:
    """Return the type, the bounds or the choices of a value in words."""
    if node.get("format") == "class":
        return _OWN_CLASS
    if "const" in node or "enum" in node:
        return " | ".join(json.dumps(choice).strip('"') for choice in _choices(node))
    if "anyOf" in node:
        return " | ".join(dict.fromkeys(_allowed(option) for option in node["anyOf"]))
    if "oneOf" in node or "$ref" in node:
        return "section"
    if node.get("type") == "array":
        items = node.get("items", {})
        return f"list of {'sections' if 'oneOf' in items else _allowed(items)}"
    bounds = [f"{sign} {node[name]:g}" for name, sign in _SIGNS.items() if name in node]
    return f"{_TYPES.get(node.get('type', ''), 'any value')} {' and '.join(bounds)}".strip()


def _is_own_class(node: Mapping[str, Any]) -> bool:
    """Return whether a kind of a section is a class of the user's own code."""
    return node.get("properties", {}).get("name", {}).get("format") == "class"


def _allow_own_settings(prior: dict[str, Any]) -> None:
    """Allow further keys of a prior whose name is that of a class of the user's own code."""
    del prior["additionalProperties"]
    names = {"enum": list(prior["properties"])}
    prior["if"] = {"properties": {"name": CLASS_SCHEMA}, "required": ["name"]}
    prior["else"] = {"propertyNames": names}


def _choices(node: Mapping[str, Any]) -> list[Any]:
    return [node["const"]] if "const" in node else node["enum"]
