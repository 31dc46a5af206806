"""Damage to files from a seed, as by disks, copies, editors and attackers."""

import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import load, save

ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    10**30,
    "",
    "x" * 5000,
    "$\\bad{$",
    "a\nb\x1b[31m",
    "../../x",
    [],
    [[]],
    {},
    {"a": {}},
    [1, "a", None],
]
HOSTILE_JSON = [
    "",
    "null",
    "[]",
    "{",
    "[" * 50_000,
    '{"a": NaN}',
    '{"a": ' + "9" * 5000 + "}",
    "\x00",
    "\ud800",
]
HOSTILE_YAML = [
    "[" * 5000,
    "a: !!python/object/apply:os.system [ls]",
    "a: !!int abc",
    "a: " + "9" * 5000,
    "a: &a [*a]",
    "? [1]\n: 2",
    "\ta: 1",
    "a: \x00",
    "seed: 2020-13-45",
    "seed: 0x" + "f" * 900,
]


def flip(path: Path, dice: random.Random) -> None:
    """Flip some random bits."""
    content = bytearray(path.read_bytes())
    for _ in range(dice.choice([1, 1, 3, 20]) if content else 0):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, dice: random.Random) -> None:
    """Remove the end of the file."""
    os.truncate(
        path,
        dice.choice([0, dice.randrange(path.stat().st_size + 1), max(0, path.stat().st_size - 1)]),
    )


def extend(path: Path, dice: random.Random) -> None:
    """Append bytes, or write noise in the middle."""
    content = path.read_bytes()
    at = dice.choice([len(content), dice.randrange(len(content) + 1)])
    path.write_bytes(content[:at] + dice.randbytes(dice.choice([1, 8, 500])) + content[at:])


def remove(path: Path, dice: random.Random) -> None:
    """Remove the file from its folder."""
    path.unlink()


def replace_by_other_kinds(path: Path, dice: random.Random) -> None:
    """Replace the file by a pipe, a folder, a link or a huge sparse file."""
    path.unlink()
    kind = dice.randrange(6)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to("nowhere")
    elif kind == 3:
        path.symlink_to(dice.choice(["/dev/zero", "/dev/null", "/proc/self/mem"]))
    elif kind == 4:
        path.symlink_to(path.name)
    else:
        with path.open("wb") as file:
            file.truncate(2**40)


def retype(path: Path, dice: random.Random) -> None:
    """Change a value, a type or a shape, according to the format."""
    change = {
        ".json": _retype_json,
        ".jsonl": _retype_json_lines,
        ".yaml": _retype_yaml,
        ".safetensors": _retype_safetensors,
        ".npy": _retype_npy,
        ".parquet": _retype_parquet,
        ".nc": _retype_netcdf,
    }.get(path.suffix, flip)
    change(path, dice)


DAMAGES: list[Callable[[Path, random.Random], None]] = [
    flip,
    truncate,
    extend,
    remove,
    replace_by_other_kinds,
    retype,
    retype,
    retype,
]


def _change_somewhere(content: Any, dice: random.Random) -> Any:
    """Replace an item of nested plain data by an unusual value."""
    if isinstance(content, dict | list) and content and dice.random() < 0.75:
        key = (
            dice.choice(list(content))
            if isinstance(content, dict)
            else dice.randrange(len(content))
        )
        if dice.random() < 0.1:
            del content[key]
        else:
            content[key] = _change_somewhere(content[key], dice)
        return content
    return dice.choice(ODD_VALUES)


def _retype_json(path: Path, dice: random.Random) -> None:
    if dice.random() < 0.1:
        path.write_text(dice.choice(HOSTILE_JSON), errors="replace")
        return
    path.write_text(json.dumps(_change_somewhere(json.loads(path.read_text()), dice)))


def _retype_json_lines(path: Path, dice: random.Random) -> None:
    lines = path.read_text().splitlines() or ["{}"]
    at = dice.randrange(len(lines))
    changed = json.dumps(_change_somewhere(json.loads(lines[at]), dice))
    lines[at] = dice.choice([changed, dice.choice(HOSTILE_JSON)])
    path.write_text("\n".join(lines) + "\n", errors="replace")


def _retype_yaml(path: Path, dice: random.Random) -> None:
    if dice.random() < 0.2:
        path.write_text(dice.choice(HOSTILE_YAML))
        return
    path.write_text(yaml.safe_dump(_change_somewhere(yaml.safe_load(path.read_text()), dice)))


def _other_array(array: np.ndarray, dice: random.Random) -> np.ndarray:
    kind = dice.randrange(9)
    if kind == 0:
        return array[:0] if array.ndim else np.zeros((2, 2))
    if kind == 1:
        return np.concatenate([array.ravel(), array.ravel()])
    if kind == 2:
        return array.astype(dice.choice(["f2", "f4", "f8", "i4", "u1", "bool"]))
    if kind == 3:
        return np.full_like(array, np.nan) if array.dtype.kind == "f" else np.full_like(array, 1)
    if kind == 4:
        return np.full(array.shape, dice.choice([np.inf, -1.0, 1e300, 0.0]), "f8")
    if kind == 5:
        return array[None]
    if kind == 6:
        return array.reshape(-1)[:1]
    if kind == 7:
        return np.asarray(dice.choice([0.0, 1e18, -5]))
    return np.zeros((dice.randrange(3), dice.randrange(4)), dice.choice(["f4", "f8", "i8"]))


def _retype_safetensors(path: Path, dice: random.Random) -> None:
    arrays = load(path.read_bytes())
    name = dice.choice(list(arrays) or ["x"])
    kind = dice.randrange(4)
    if kind == 0:
        arrays.pop(name, None)
    elif kind == 1:
        arrays[dice.choice(["x", "../y", "", "a" * 5000])] = np.zeros(3)
    else:
        arrays[name] = np.ascontiguousarray(_other_array(arrays.get(name, np.zeros(2)), dice))
    path.write_bytes(save(arrays))


def _retype_npy(path: Path, dice: random.Random) -> None:
    rows = np.load(path)
    kind = dice.randrange(7)
    names = list(rows.dtype.names or ())
    if kind == 0:
        rows = (
            np.asarray(rows.tolist(), dtype=object)
            if dice.random() < 0.3
            else _other_array(np.zeros((3, 2)), dice)
        )
    elif kind == 1 and names:
        rows = rows[[name for name in names if name != dice.choice(names)]].copy()
    elif kind == 2:
        fields = [
            (name, "f8" if name != "position" else ("f8", rows.dtype[name].shape)) for name in names
        ]
        rows = rows.astype([(n, *t) if isinstance(t, tuple) else (n, t) for n, t in fields])
    elif kind == 3:
        wider = [
            (n, rows.dtype[n].base, (7,)) if n == "position" else (n, rows.dtype[n]) for n in names
        ]
        rows = np.zeros(len(rows), wider)
    elif kind == 4:
        rows[dice.choice(["chain", "draw"])] = dice.choice([-1, 5, 2**30])
    elif kind == 5:
        rows["position"] = dice.choice([np.nan, np.inf])
    else:
        rows = np.concatenate([rows, rows])
    stream = io.BytesIO()
    np.save(stream, rows, allow_pickle=True)
    path.write_bytes(stream.getvalue())


def _retype_parquet(path: Path, dice: random.Random) -> None:
    frame = pd.read_parquet(path)
    column = dice.choice(list(frame.columns) or ["x"])
    value = dice.choice(
        [None, "x", -1, 1.5, {"a": 1}, [1], b"x", True, pd.Timestamp(0), float("inf")]
    )
    if dice.random() < 0.2 and column in frame:
        frame = frame.drop(columns=column)
    else:
        frame[column] = [value] * max(1, len(frame)) if len(frame) == 0 else [value] * len(frame)
    frame.to_parquet(path)


def _retype_netcdf(path: Path, dice: random.Random) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = dice.choice(names)
        kind = dice.randrange(7)
        if kind == 0:
            del file[name]
        elif kind == 1:
            attributes = list(file.attrs)
            if attributes:
                file.attrs[dice.choice(attributes)] = dice.choice(
                    [1, "x", [1, 2], b"y", 2.5, 10**9, -1]
                )
        elif kind == 2:
            del file[name]
            file.create_group(name)
        elif kind == 3:
            del file[name]
            file[name] = (
                h5py.SoftLink("/posterior")
                if dice.random() < 0.5
                else h5py.ExternalLink("x.h5", "/")
            )
        else:
            old = file[name]
            array = np.asarray(old) if isinstance(old, h5py.Dataset) else np.zeros((2, 3))
            del file[name]
            file[name] = _other_array(array, dice)
