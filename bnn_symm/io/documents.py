"""JSON and YAML documents, read with limits and stricter checks than those of their parsers.

Errors are one line. Besides damaged files, documents with duplicate keys, numbers that are not
finite, or integers beyond the range of floats are errors. YAML is read without Python tags and
timestamps, so that `2020-13-45` is a text; keys are always texts, and the expansion of aliases is
limited.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bnn_symm.errors import BnnSymmError, ConfigError, InvalidRun, one_line
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.memory import check_memory, format_bytes
from bnn_symm.io.paths import check_regular_file

# Size limits in bytes. A configuration has hundreds of lines; a JSON document may contain the mean
# of every pixel and the curves of many fits.
YAML_LIMIT = 2**20
JSON_LIMIT = 2**28
# Limits of an expanded YAML document, because aliases can repeat content without bound.
_YAML_NODES = 20_000
_YAML_DEPTH = 60
# Bytes of Python objects per byte of JSON, at most.
_JSON_EXPANSION = 24
_ADVICE = "copy the file again, or recreate it"
_YAML_ADVICE = "correct the file"
# Integers with more bits are beyond the range of floats.
_INTEGER_BITS = 1023
_FLOAT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


def read_text(
    path: Path,
    error: type[BnnSymmError] = InvalidRun,
    limit: int = JSON_LIMIT,
    *,
    on_damage: str = "strict",
) -> str:
    """Return the content of a text file in UTF-8, with or without a byte order mark.

    Args:
        path: path of a regular file.
        error: class of the error to raise.
        limit: largest size in bytes.
        on_damage: handling of bytes that are not UTF-8, as for `bytes.decode`.

    Raises:
        error: if it is no regular file, too large, not UTF-8, or cannot be read.
        FileNotFoundError: if the path does not exist.
    """
    size = check_regular_file(path, error)
    if size > limit:
        raise error(
            f"{shown(path)} has {format_bytes(size)}, expected at most {format_bytes(limit)}; "
            "check the path"
        )
    with parser_errors(path, "expected a text file in UTF-8", error), path.open("rb") as file:
        return file.read(limit + 1).decode("utf-8-sig", on_damage)


def read_json(path: Path, error: type[BnnSymmError] = InvalidRun) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: path of a regular file.
        error: class of the error to raise.

    Raises:
        error: if the file is damaged, has no object, a duplicate key, or a number that is not
            finite.
        FileNotFoundError: if the path does not exist.
    """
    check_memory(_JSON_EXPANSION * check_regular_file(path, error), shown(path), _ADVICE)
    content = parse_json(read_text(path, error), path, error)
    if not isinstance(content, dict):
        raise error(
            f"{shown(path)} is damaged: got {_kind(content)}, expected an object; {_ADVICE}"
        )
    return content


def parse_json(
    text: str, what: str | Path, error: type[BnnSymmError] = InvalidRun, *, allow_nan: bool = False
) -> Any:
    """Return the content of a JSON text.

    Args:
        text: JSON text.
        what: source of the text, as messages name it.
        error: class of the error to raise.
        allow_nan: whether NaN and infinities are allowed, as in logs of a diverging fit.

    Raises:
        error: as for `read_json`.
    """
    with parser_errors(what, _ADVICE, error, "is damaged"):
        content = json.loads(
            text,
            parse_int=_parse_integer,
            parse_float=float if allow_nan else _parse_finite,
            parse_constant=float if allow_nan else _parse_finite,
            object_pairs_hook=_parse_object,
        )
        if "\\u" in text:  # unpaired surrogates raise an error here
            json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content


def read_yaml(path: Path, error: type[BnnSymmError] = ConfigError) -> Any:
    """Return the content of a YAML file with one document; None for an empty file.

    Args:
        path: path of a regular file.
        error: class of the error to raise.

    Raises:
        error: if the file is damaged, too large, has a duplicate key, or more than plain data.
        FileNotFoundError: if the path does not exist.
    """
    return parse_yaml(read_text(path, error, YAML_LIMIT), path, error)


def parse_yaml(text: str, what: str | Path, error: type[BnnSymmError] = ConfigError) -> Any:
    """Return the content of a YAML text with one document.

    It consists of mappings with text keys, lists and scalars.

    Args:
        text: YAML text.
        what: source of the text, as messages name it.
        error: class of the error to raise.

    Raises:
        error: as for `read_yaml`.

    Example:
        >>> parse_yaml("{a: 1e3, b: 2020-13-45, No: [yes]}", "text")
        {'a': 1000.0, 'b': '2020-13-45', 'No': [True]}
    """
    with parser_errors(what, _YAML_ADVICE, error, "is not valid YAML"):
        if len(text) > YAML_LIMIT:
            raise ValueError(f"it has {len(text)} characters, expected at most {YAML_LIMIT}")
        return yaml.load(text, _Loader)


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Return YAML that `parse_yaml` reads as the same content.

    Texts that resemble numbers, such as `1e3`, are quoted.

    Args:
        content: mapping to serialize.
    """
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """Load YAML of plain data.

    `1e3` is a number, as in YAML 1.2, dates are texts, and keys are texts.
    """

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._nodes = 0
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._nodes += 1
        self._depth += 1
        if self._nodes > _YAML_NODES:
            raise ValueError(f"it has more than {_YAML_NODES} values")
        if self._depth > _YAML_DEPTH:
            raise RecursionError
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None and _expanded_size(node, {}) > _YAML_NODES:
            raise ValueError(f"its aliases expand to more than {_YAML_NODES} values")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        _check_duplicates(node)  # before merging, because merged keys may be overridden
        self.flatten_mapping(node)
        return {_key(key): self.construct_object(value, deep=True) for key, value in node.value}

    def construct_plain_mapping(self, node: Any) -> Any:
        content: dict[Any, Any] = {}
        yield content
        content.update(self.construct_mapping(node))

    def construct_integer(self, node: Any) -> int:
        text = self.construct_scalar(node)
        if len(str(text)) > _INTEGER_BITS:
            raise ValueError(f"an integer of {len(str(text))} digits")
        return _check_range(self.construct_yaml_int(node))


def _without_timestamps(resolvers: Mapping[Any, Any]) -> dict[Any, Any]:
    stamp = "tag:yaml.org,2002:timestamp"
    return {
        first: [pair for pair in pairs if pair[0] != stamp] for first, pairs in resolvers.items()
    }


_Loader.yaml_implicit_resolvers = _without_timestamps(yaml.SafeLoader.yaml_implicit_resolvers)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_plain_mapping)
# These types are not used by any setting.
for _tag in ("binary", "timestamp", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", yaml.SafeLoader.construct_undefined)


class _Dumper(yaml.SafeDumper):
    """Dump YAML without aliases, and quote texts that `_Loader` would read as numbers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _expanded_size(node: Any, known: dict[int, float]) -> float:
    """Return the number of values of a node with aliases expanded; infinity for cycles."""
    if isinstance(node, yaml.ScalarNode):
        return 1.0
    if id(node) not in known:
        known[id(node)] = math.inf  # a node that contains itself meets this value
        pairs = (
            node.value
            if isinstance(node, yaml.SequenceNode)
            else [part for pair in node.value for part in pair]
        )
        known[id(node)] = 1.0 + sum(_expanded_size(part, known) for part in pairs)
    return known[id(node)]


def _check_duplicates(node: Any) -> None:
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"expected a mapping, got a {node.id}")
    seen = set()
    for key, _ in node.value:
        if key.tag != "tag:yaml.org,2002:merge" and _key(key) in seen:
            raise ValueError(
                f"the key {one_line(_key(key), 60)} appears twice, line {key.start_mark.line + 1}"
            )
        seen.add(_key(key))


def _key(node: Any) -> str:
    """Return a key as written, so that `No` and `01` are unchanged."""
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(
            f"got a {node.id} as a key, expected a text, line {node.start_mark.line + 1}"
        )
    return node.value


def _parse_integer(text: str) -> int:
    if len(text) > _INTEGER_BITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return _check_range(int(text))


def _check_range(number: int) -> int:
    if number.bit_length() > _INTEGER_BITS:
        raise ValueError("an integer beyond the range of floating-point numbers")
    return number


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{one_line(text, 40)} is not a finite number")
    return number


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {one_line(duplicate, 60)} appears twice")
    return content


def _kind(value: Any) -> str:
    names: dict[type, str] = {
        list: "a list",
        str: "a text",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number")
