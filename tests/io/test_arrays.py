"""Damaged, oversized and unsupported arrays and tables raise an error of one line."""

import decimal
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from bnn_symm.errors import BnnSymmError, InvalidRun, NotEnoughMemory
from bnn_symm.io.arrays import read_arrays, read_npy_layout, read_tensors, read_torch_file
from bnn_symm.io.parquet import read_rows


def _refused(
    read: Callable[[Path], Any], path: Path, error: type[BnnSymmError] = InvalidRun
) -> str:
    with pytest.raises(error) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300
    return str(caught.value)


def _sparse(path: Path, start: bytes) -> None:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(2**43)


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": np.arange(6.0).reshape(2, 3), "b": np.array([True])}, path)
    assert {name: value.tolist() for name, value in read_arrays(path).items()} == {
        "a": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        "b": [True],
    }
    assert torch.equal(
        read_tensors(path)["a"], torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
    )
    content = path.read_bytes()
    header = (
        b'{"a":{"dtype":"F64","shape":[2,3],"data_offsets":[0,48]},'
        b'"b":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}}'
    )
    hostile = [
        b"",
        content[:7],
        content[:-1],
        content + b"\0",
        b"\xff" * 8 + content[8:],
        content.replace(b"F64", b"F65"),
        content.replace(b"[2,3]", b"[3,3]"),
        content.replace(b"[2,3]", b"[-2]  "[:5]),
        len(header).to_bytes(8, "little") + header + bytes(48),
        b"\x02\0\0\0\0\0\0\0[]",
    ]
    for damaged in hostile:
        path.write_bytes(damaged)
        _refused(read_arrays, path)
        _refused(read_tensors, path)
    _sparse(path, content)
    _refused(read_arrays, path, NotEnoughMemory)


def test_npy_layout(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    rows = np.zeros(3, [("chain", "i4"), ("position", "f4", 2)])
    np.save(path, rows)
    layout = read_npy_layout(path)
    assert (layout.shape, layout.dtype, layout.offset) == (
        (3,),
        rows.dtype,
        path.stat().st_size - rows.nbytes,
    )
    content = path.read_bytes()
    for damaged in (
        b"",
        content[:50],
        content[:-1],
        content + b"\0",
        content.replace(b"(3,)", b"(9,)"),
        content.replace(b"(3,)", b"-3  "),
        content.replace(b"(3,)", b"(-3)"),
        content.replace(b"'<f4'", b"'O'  "),
        content.replace(b"'<f4'", b"((((("),
        content.replace(b"NUMPY\x01", b"NUMPY\x09"),
        content.replace(b"(3,)", b"(((("),
        content[:8] + b"\xff\xff" + content[10:],
    ):
        path.write_bytes(damaged)
        _refused(read_npy_layout, path)
    np.save(path, np.asfortranarray(np.zeros((3, 2))))
    _refused(read_npy_layout, path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    _refused(read_npy_layout, path)
    np.save(path, np.zeros(3, "V0"))
    _refused(read_npy_layout, path)


def test_files_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(2)}, path)
    assert torch.equal(read_torch_file(path)["a"], torch.ones(2))
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        _refused(read_torch_file, path)
    path.write_bytes(pickle.dumps(print))
    assert "safetensors" in _refused(read_torch_file, path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**6))
    _refused(read_torch_file, path)


def test_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame(
        {"step": [1, 2], "nll": [0.5, None], "name": ["a", None], "same": [True, False]}
    ).to_parquet(path)
    assert read_rows(path) == [
        {"step": 1, "nll": 0.5, "name": "a", "same": True},
        {"step": 2, "nll": None, "name": None, "same": False},
    ]
    content = path.read_bytes()
    for size in (0, 4, 100, len(content) - 1):
        path.write_bytes(content[:size])
        _refused(read_rows, path)
    for column in (
        pa.array([{"x": 1}]),
        pa.array([decimal.Decimal("1.5")]),
        pa.array([0], pa.timestamp("ns")),
        pa.array([b"x"]),
        pa.array([[[1]]]),
    ):
        pq.write_table(pa.table({"x": column}), path)
        assert "'x'" in _refused(read_rows, path)
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]), path)
    _refused(read_rows, path)
