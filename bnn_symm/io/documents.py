"""JSON and YAML documents: read with limits, checked for what their parsers let pass, refused in
one line.

Beside damage, a document is refused for what would be read as something other than what it says: a
    key that appears
twice, numbers that are not finite, integers beyond the range of floats. YAML is read without tags
of Python and without timestamps, so that `2020-13-45` is a text; every key is the text that was
written; aliases may not multiply.
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

# The largest files of each kind, in bytes. A configuration has hundreds of lines; a JSON document
# may hold the mean of every pixel, and curves of many fits.
YAML_LIMIT = 2**20
JSON_LIMIT = 2**28
# What a YAML document may expand to: its aliases can repeat a part without bound.
_YAML_NODES = 20_000
_YAML_DEPTH = 60
# Bytes of objects that one byte of JSON can become.
_JSON_EXPANSION = 24
_ADVICE = "copy the file again from where it was made, or make it again"
_YAML_ADVICE = "correct the file"
# Integers with more bits are beyond the range of floats, and too long to print.
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
        path: of a regular file.
        error: the class of the error.
        limit: the largest size in bytes.
        on_damage: what becomes of bytes that are not UTF-8, as `bytes.decode` names it.

    Raises:
        error: if it is no regular file, too large, not UTF-8, or cannot be read.
        FileNotFoundError: if there is nothing at the path.
    """
    size = check_regular_file(path, error)
    if size > limit:
        raise error(
            f"{shown(path)} has {format_bytes(size)}, more than the {format_bytes(limit)} of a "
            "file of its kind; check that it is the file that you mean"
        )
    with parser_errors(path, "expected a text file in UTF-8", error), path.open("rb") as file:
        return file.read(limit + 1).decode("utf-8-sig", on_damage)


def read_json(path: Path, error: type[BnnSymmError] = InvalidRun) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Args:
        path: of a regular file.
        error: the class of the error.

    Raises:
        error: if it is damaged, holds no object, has a key twice, or a number that is not finite.
        FileNotFoundError: if there is nothing at the path.
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
        text: the text.
        what: where it comes from, as messages call it.
        error: the class of the error.
        allow_nan: whether NaN and infinities may occur, as in logs of a fit that diverges.

    Raises:
        error: as `read_json`.
    """
    with parser_errors(what, _ADVICE, error, "is damaged"):
        content = json.loads(
            text,
            parse_int=_integer,
            parse_float=float if allow_nan else _finite,
            parse_constant=float if allow_nan else _finite,
            object_pairs_hook=_object,
        )
        if "\\u" in text:  # halves of surrogate pairs cannot be printed
            json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content


def read_yaml(path: Path, error: type[BnnSymmError] = ConfigError) -> Any:
    """Return the content of a YAML file of one document; None of an empty one.

    Args:
        path: of a regular file.
        error: the class of the error.

    Raises:
        error: if it is damaged, too large, has a key twice, or more than plain data.
        FileNotFoundError: if there is nothing at the path.
    """
    return parse_yaml(read_text(path, error, YAML_LIMIT), path, error)


def parse_yaml(text: str, what: str | Path, error: type[BnnSymmError] = ConfigError) -> Any:
    """Return the content of a YAML text of one document: mappings with keys of text, lists and
    scalars.

    Args:
        text: the text.
        what: where it comes from, as messages call it.
        error: the class of the error.

    Raises:
        error: as `read_yaml`.

    Example:
        >>> parse_yaml("{a: 1e3, b: 2020-13-45, No: [yes]}", "text")
        {'a': 1000.0, 'b': '2020-13-45', 'No': [True]}
    """
    with parser_errors(what, _YAML_ADVICE, error, "is not valid YAML"):
        if len(text) > YAML_LIMIT:
            raise ValueError(f"it has {len(text)} characters, at most {YAML_LIMIT} are expected")
        return yaml.load(text, _Loader)


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Return YAML that `parse_yaml` reads back as the same: a text such as `1e3` is quoted."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """Safe YAML of plain data: `1e3` is a number, as in YAML 1.2, a date is a text, and keys are
    texts.
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
        _check_twice(
            node
        )  # before keys of merged mappings, which may be set again, are put in front
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
        return _bounded(self.construct_yaml_int(node))


def _without_timestamps(resolvers: Mapping[Any, Any]) -> dict[Any, Any]:
    stamp = "tag:yaml.org,2002:timestamp"
    return {
        first: [pair for pair in pairs if pair[0] != stamp] for first, pairs in resolvers.items()
    }


_Loader.yaml_implicit_resolvers = _without_timestamps(yaml.SafeLoader.yaml_implicit_resolvers)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_plain_mapping)
# No key of a configuration takes these, and a `str` is expected where a text is.
for _tag in ("binary", "timestamp", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", yaml.SafeLoader.construct_undefined)


class _Dumper(yaml.SafeDumper):
    """Safe YAML without aliases, in which a text that `_Loader` would read as a number is
    quoted.
    """

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _expanded_size(node: Any, known: dict[int, float]) -> float:
    """Return the number of values of a node with its aliases written out; infinity if it holds
    itself.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1.0
    if id(node) not in known:
        known[id(node)] = math.inf  # while it is counted: whoever meets it meanwhile is inside it
        pairs = (
            node.value
            if isinstance(node, yaml.SequenceNode)
            else [part for pair in node.value for part in pair]
        )
        known[id(node)] = 1.0 + sum(_expanded_size(part, known) for part in pairs)
    return known[id(node)]


def _check_twice(node: Any) -> None:
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
    """Return a key as it was written, so that `No` and `01` keep their letters."""
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"a key is a {node.id}, expected a text, line {node.start_mark.line + 1}")
    return node.value


def _integer(text: str) -> int:
    if len(text) > _INTEGER_BITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return _bounded(int(text))


def _bounded(number: int) -> int:
    if number.bit_length() > _INTEGER_BITS:
        raise ValueError("an integer beyond the range of floating-point numbers")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{one_line(text, 40)} is not a finite number")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {one_line(twice, 60)} appears twice")
    return content


def _kind(value: Any) -> str:
    names: dict[type, str] = {
        list: "a list",
        str: "a text",
        bool: "a truth value",
        type(None): "null",
    }
    return names.get(type(value), "a number")
