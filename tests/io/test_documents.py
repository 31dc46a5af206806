"""Plain JSON and YAML are read as written; all else raises an error of one line."""

import os
from pathlib import Path
from typing import Any

import pytest

from bnn_symm.errors import ConfigError, InvalidRun
from bnn_symm.io.documents import (
    YAML_LIMIT,
    dump_yaml,
    parse_json,
    parse_yaml,
    read_json,
    read_text,
    read_yaml,
)

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(9 * [f'*{before}'])}]\n"
    for before, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", None),
        ("a: 1e3", {"a": 1000.0}),
        ("a: 2020-13-45\nb: 2020-01-01", {"a": "2020-13-45", "b": "2020-01-01"}),
        ("No: 1\n2020: 2\n01: 3\nnull: 4", {"No": 1, "2020": 2, "01": 3, "null": 4}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: &x [1, {b: 2}]\nc: *x", {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}),
        ("\ufeffa: 1".removeprefix("\ufeff"), {"a": 1}),
    ],
)
def test_yaml_is_read_as_it_was_written(text: str, content: Any) -> None:
    assert parse_yaml(text, "text") == content


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "{a: " * 3000,
        "".join(f"{'  ' * i}a:\n" for i in range(300)),
        "a: !!int abc",
        "a: !!int ''",
        "a: " + "9" * 5000,
        "a: 0x" + "f" * 300,
        "a: 0x" + "f" * 5000,
        "a: !!float abc",
        "a: !!bool abc",
        "a: !!timestamp 2020-13-45",
        "a: !!timestamp x",
        "a: !!binary x",
        "a: !!set {b, c}",
        "a: !!python/object/apply:os.system [ls]",
        "a: !!python/name:os.system",
        "a: !unknown b",
        "!!map [1]",
        "!!seq {a: 1}",
        "a: 1\na: 2",
        "a: {b: 1, b: 1}",
        "? [1, 2]\n: 3",
        "? {a: 1}\n: 3",
        "a: 1\n---\nb: 2",
        "\ta: 1",
        "a: \0",
        "a: *nowhere",
        "a: &a [*a]",
        "a: &a {<<: *a}",
        "<<: 3",
        BOMB,
        "a: [" + "1," * 20_000 + "]",
        "a: " + "x" * YAML_LIMIT,
        "a: 'never closed",
        "%YAML 9.9\n---\na: 1",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_hostile_yaml_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="config") as caught:
        parse_yaml(text, "config.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_yaml_that_is_written_is_read_back() -> None:
    texts = [
        "1e3",
        "-1E-5",
        "2020-01-01",
        "No",
        "null",
        "~",
        "1:30",
        "010",
        "1_000",
        "life ",
        "x: y",
        "#",
        "<<",
        "=",
        "é",
    ]
    shared = [1, 2]
    content = {text: text for text in texts} | {
        "numbers": [1e22, 1e-7, 3, True, None],
        "twice": [shared, shared],
    }
    assert parse_yaml(dump_yaml(content), "text") == content


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "null",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1, "b": 1}}',
        '{"a": "\\ud800"}',
        '{"a": 1} {"b": 2}',
    ],
    ids=lambda text: repr(text[:20]),
)
def test_hostile_json_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InvalidRun, match=r"run\.json") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"a": [1, 2.5, null, "\\u00e9"], "b": {}}', encoding="utf-8-sig")
    assert read_json(path) == {"a": [1, 2.5, None, "é"], "b": {}}
    assert parse_json('{"a": Infinity}', "text", allow_nan=True) == {"a": float("inf")}


def test_only_regular_text_files_are_opened(tmp_path: Path) -> None:
    pipe, binary, link = tmp_path / "pipe", tmp_path / "binary", tmp_path / "link"
    os.mkfifo(pipe)
    binary.write_bytes(b"\xff\xfe\x00")
    link.symlink_to("/dev/zero")
    for path in (pipe, binary, link, tmp_path):
        for read, error in ((read_json, InvalidRun), (read_yaml, ConfigError)):
            with pytest.raises(error):
                read(path)
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InvalidRun):
        read_text(sparse)
    with pytest.raises(ConfigError):
        read_yaml(sparse)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent")
