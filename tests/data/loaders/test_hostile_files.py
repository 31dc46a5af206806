"""Damaged and malicious data files raise an error of one line within bounded memory and time."""

import gzip
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bnn_symm.data import load_dataset, read_inputs
from bnn_symm.errors import BnnSymmError, ConfigError, DatasetNotFound, InvalidData, NotEnoughMemory

ROWS = 24


def refused(path, error=InvalidData, **keys):
    with pytest.raises(error) as caught:
        load_dataset(path, **keys)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) <= 300
    return text


def header(shape, descr):
    text = str({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("name", "array", "word"),
    [
        ("x", np.zeros((ROWS, 2), np.complex64), "complex64"),
        ("x", np.zeros((ROWS, 2), np.longdouble), "float128|longdouble"),
        ("x", np.zeros(ROWS, [("a", "f4"), ("b", "i4")]), "type"),
        ("x", np.zeros((ROWS, 2), "V8"), "V8"),
        ("x", np.zeros((ROWS, 2), "M8[s]"), "datetime64"),
        ("x", np.array([["a"]] * ROWS), "<U1"),
        ("y", np.array([b"a", b"b"] * (ROWS // 2)), "S1"),
        ("y", np.zeros(ROWS, "V4"), "V4"),
        ("y", np.zeros(ROWS, np.complex128), "complex128"),
        ("y", np.zeros(ROWS, "M8[D]"), "datetime64"),
        ("x", np.full((ROWS, 1), 2**63 + 1, np.uint64), "more digits than float64"),
        ("y", np.array(["yes", "YES"] * (ROWS // 2)), "differ only in case"),
        ("y", np.array(["0,5", "1,5"] * (ROWS // 2)), "decimal comma"),
    ],
)
def test_npz_types(tmp_path, name, array, word):
    arrays = {
        "x": np.random.default_rng(0).normal(size=(ROWS, 2)),
        "y": np.arange(ROWS) % 2,
        name: array,
    }
    np.savez(tmp_path / "x.npz", **arrays)
    assert any(each in refused(tmp_path / "x.npz") for each in word.split("|"))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f8", ">i4", np.uint8, bool, np.uint64])
def test_npz_types_that_are_read(tmp_path, dtype):
    x = (np.arange(ROWS) % 5).astype(dtype)
    np.savez(tmp_path / "x.npz", x=x, y=(np.arange(ROWS) % 2).astype(">i8"))
    dataset = load_dataset(tmp_path / "x.npz", standardize=False)
    whole = read_inputs(tmp_path / "x.npz", dataset.preprocessing)
    assert whole[:, 0].tolist() == x.astype(float).tolist()
    assert dataset.class_labels == (0, 1)


def test_npz_that_declares_more_than_memory_or_than_it_has(tmp_path):
    y = header((ROWS,), "<i8") + bytes(8 * ROWS)
    path = npz(tmp_path / "x.npz", x=header((10**9, 10**6), "<f8"), y=y)
    assert "memory" in refused(path, NotEnoughMemory)
    assert "needs" in refused(npz(path, x=header((ROWS, 10), "<f8") + bytes(80), y=y))
    assert "cannot be read" in refused(npz(path, x=header((-1, 10), "<f8"), y=y), BnnSymmError)
    assert "objects" in refused(npz(path, x=header((ROWS,), "|O") + bytes(8 * ROWS), y=y))
    assert "cannot be read" in refused(npz(path, x=b"\x93NUMPY\x01\x00\xff\xff{", y=y))
    assert "cannot be read" in refused(npz(path, x=header((ROWS,), "os.system"), y=y))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_npz_encrypted_or_with_two_members_of_a_name(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.zeros((ROWS, 1)), y=np.arange(ROWS) % 2)
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 1)
    path.write_bytes(content)
    assert "encrypted" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        for value in (0, 1):
            archive.writestr("x.npy", header((ROWS, 1), "|u1") + bytes([value]) * ROWS)
    assert "two arrays 'x'" in refused(path)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([{"a": 1}] * ROWS, "dict"),
        ([[1, 2]] * ROWS, "ndarray"),
        ([b"x"] * ROWS, "bytes"),
        (pa.array([1] * ROWS, pa.duration("s")), "durations"),
        ([f"{row}.5" for row in range(ROWS)], "stored as text"),
        ([2**63 + 1] * ROWS, "9223372036854775809"),
    ],
)
@pytest.mark.parametrize("target", ["y", "bad"])
def test_parquet_types(tmp_path, values, word, target):
    values = (
        values
        if isinstance(values, pa.Array)
        else pa.array(values, pa.uint64() if isinstance(values[0], int) else None)
    )
    table = pa.table({"a": np.arange(ROWS) / 7, "bad": values, "y": np.arange(ROWS) % 2})
    pq.write_table(table, tmp_path / "x.parquet")
    text = refused(tmp_path / "x.parquet", target=target)
    assert word in text or target == "bad"


def test_parquet_that_is_damaged(tmp_path):
    path = tmp_path / "x.parquet"
    pd.DataFrame({"a": np.arange(50.0), "t": ["u", "v"] * 25, "y": np.arange(50.0)}).to_parquet(
        path
    )
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for position in random.integers(len(content), size=3):
            damaged[position] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        error = None
        try:
            load_dataset(path)
        except BnnSymmError as caught:
            error = str(caught)
        assert error is None or ("\n" not in error and len(error) <= 300)


def table_text(separator="\t"):
    return "\n".join(separator.join((f"{row / 7:.3f}", str(row % 3))) for row in range(60))


@pytest.mark.parametrize(
    "suffix", [".csv", ".CSV", ".tsv", ".tab", ".txt", ".data", ".dat", ".csv.gz", ".tsv.gz"]
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_endings_and_separators(tmp_path, suffix, separator):
    path, text = tmp_path / f"d{suffix}", f"a{separator}y\n{table_text(separator)}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    dataset = load_dataset(path)
    assert (dataset.task, dataset.feature_names, len(dataset.train)) == (
        "classification",
        ("a",),
        43,
    )


def test_a_packed_table_that_grows_beyond_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("bnn_symm.io.memory.available_memory", lambda: 10_000_000)
    with gzip.open(tmp_path / "x.csv.gz", "wb") as file:
        file.write(b"a,y\n" + b"1,2\n" * 1_000_000)
    assert "memory" in refused(tmp_path / "x.csv.gz", NotEnoughMemory)
    (tmp_path / "x.csv").write_bytes(b"a,y\n" + b"1,2\n" * 1_000_000)
    assert "memory" in refused(tmp_path / "x.csv", NotEnoughMemory)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("0.75,-0.4,red\n0.1,0.2,blue\n0.3,0.1,red\n", "row of values"),
        ("5,3,red\n1,2,red\n2,3,blue\n", "row of values"),
        ("1.5,2,100\n1.5,2,300\n", "starts with numbers"),
        ("1,1,2\n3,4,5\n", "starts with numbers"),
        ("red,small\nblue,small\nred,large\n", "row of values"),
        ("0,5;1,5;a\n0,5;2,5;a\n", "row of values"),
        ("a y\n1 2\n3 4\n", "separated by spaces"),
        ("a,y\n1,2\n\0,3\n", "null characters"),
        ("a,y\n1\n", "row 1 has 1 fields"),
        ("a,y\n" + "x" * 200_000 + ",1\n", "field larger"),
        ("a,y\n1,2\n", "too few|single value"),
    ],
)
def test_text_files(tmp_path, text, word):
    (tmp_path / "x.csv").write_text(text)
    message = refused(tmp_path / "x.csv", BnnSymmError, target="y")
    assert any(each in message for each in word.split("|")), message


@pytest.mark.parametrize("names", ["a,b,y", "2019,2020,y", "0,1,y", "a,1,y", "true,false,y"])
def test_lines_of_names(tmp_path, names):
    rows = [f"{row / 8:g},{row % 5},{('u', 'v')[row % 2]}" for row in range(40)]
    (tmp_path / "x.csv").write_text("\n".join([names, *rows]))
    assert load_dataset(tmp_path / "x.csv").feature_names == tuple(names.split(",")[:2])


def test_paths_that_are_no_files(tmp_path):
    (tmp_path / "d.csv").mkdir()
    text = refused(tmp_path / "d.csv", DatasetNotFound)
    assert "folder" in text
    assert "did you mean" not in text
    os.mkfifo(tmp_path / "pipe.csv")
    assert "named pipe" in refused(tmp_path / "pipe.csv", DatasetNotFound)
    (tmp_path / "link.csv").symlink_to(tmp_path / "nothing.csv")
    assert "a link" in refused(tmp_path / "link.csv", DatasetNotFound)
    (tmp_path / "device.csv").symlink_to("/dev/zero")
    assert "a device" in refused(tmp_path / "device.csv", DatasetNotFound)
    assert "null character" in refused("a\0b.csv", ConfigError)
    assert "home directory" in refused("~nobody_of_this_name/x.csv", ConfigError)
    refused(f"{tmp_path}/{'x' * 5000}.csv", DatasetNotFound)
    refused(f"{tmp_path}/" + "x/" * 200 + "x.csv", DatasetNotFound)
    refused("x" * 5000, DatasetNotFound)


@pytest.mark.parametrize(
    ("column", "word"),
    [
        ([f"n{row % 15}" for row in range(30)], None),
        ([f"n{row % 26}" for row in range(60)], "26 categories"),
        ([f"n{row % 26}" for row in range(60 * 2)], "26 of the features|categories"),
    ],
)
def test_many_categories_for_few_points(tmp_path, column, word):
    frame = pd.DataFrame({"name": column, "y": np.arange(len(column)) / 7})
    frame.to_csv(tmp_path / "x.csv", index=False)
    try:
        notes = " ".join(load_dataset(tmp_path / "x.csv").notes)
    except InvalidData as error:
        notes = str(error)
    assert (word is None and notes == "") or any(each in notes for each in (word or "").split("|"))


@pytest.mark.parametrize(
    "name",
    [
        "RowNumber",
        "CustomerId",
        "customer_id",
        "id",
        "PassengerId",
        "Unnamed: 0",
        "row_id",
        "userID",
    ],
)
def test_names_of_identifiers(tmp_path, name):
    frame = pd.DataFrame(
        {name: np.arange(40) * 3 % 41, "a": np.arange(40) / 7, "y": np.arange(40) / 9}
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    dataset = load_dataset(tmp_path / "x.csv")
    assert dataset.feature_names == ("a",)
    assert "identifier and is left out" in dataset.notes[0]


@pytest.mark.parametrize(
    "name",
    [
        "width",
        "grid",
        "acid",
        "humid",
        "aid",
        "covid",
        "key_rate",
        "growth",
        "row_height",
        "row",
        "key",
    ],
)
def test_names_that_only_look_like_those(tmp_path, name):
    frame = pd.DataFrame({name: np.arange(40) % 7, "y": np.arange(40) / 9})
    frame.to_csv(tmp_path / "x.csv", index=False)
    assert load_dataset(tmp_path / "x.csv").feature_names == (name,)


@pytest.mark.parametrize(
    ("values", "word"),
    [(np.arange(40), "counts the rows"), (15_000_000 + np.arange(40) ** 2, "identifier")],
)
def test_integers_that_look_like_row_numbers_are_noted(tmp_path, values, word):
    pd.DataFrame({"n": values, "y": np.arange(40) / 9}).to_csv(tmp_path / "x.csv", index=False)
    assert word in load_dataset(tmp_path / "x.csv").notes[0]


def test_summary(tmp_path):
    frame = pd.DataFrame(
        {"town": ["Ulm", "Jena"] * 30, "a": np.arange(60) / 7, "y": [0.0, 1.0] * 30}
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    dataset = load_dataset(tmp_path / "x.csv")
    for part in (
        "classification of 'y' (only 0.0 and 1.0)",
        "60 rows",
        "43 train",
        "3 features",
        "town (2: Jena, Ulm)",
    ):
        assert part in dataset.summary
    assert "read as classes" in dataset.notes[0]
    frame.assign(y=[1.0, 2.0] * 30).to_csv(tmp_path / "x.csv", index=False)
    dataset = load_dataset(tmp_path / "x.csv")
    assert dataset.task == "regression"
    assert "task='classification'" in dataset.notes[0]


@pytest.mark.thorough
def test_objects_in_place_of_names():
    """A separate process has no run-time type checks, like that of a user."""
    code = """
import numpy as np, pandas as pd, torch
from bnn_symm.data import load_dataset, load_points, read_inputs
from bnn_symm.errors import BnnSymmError, ConfigError
loader = torch.utils.data.DataLoader([1])
iris = load_dataset("iris").preprocessing
for thing in (loader, pd.DataFrame({"a": [1]}), np.zeros(3), [1, 2], None, torch.zeros(2), 5):
    for call in (lambda: load_dataset(thing), lambda: load_points(thing, iris),
                 lambda: read_inputs(thing, iris),
                 lambda: load_points("iris", thing)):
        try:
            call()
        except ConfigError as error:
            assert type(thing).__name__ in str(error)
            assert "\\n" not in str(error) and len(str(error)) <= 300
        else:
            raise SystemExit(f"accepted {thing!r}")
for thing in (loader, [1, 2], None, torch.zeros(2)):
    try:
        iris.encode(thing)
    except ConfigError as error:
        assert "numpy array" in str(error)
for keys in ({"taget": "y"}, {"test_fraction": 2.0}, {"limit": "many"}, {"task": "classify"}):
    try:
        load_dataset("iris", **keys)
    except ConfigError as error:
        assert next(iter(keys)) in str(error) and "http" not in str(error)
    else:
        raise SystemExit(f"accepted {keys}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout


def test_large_integers_are_no_features(tmp_path):
    (tmp_path / "x.csv").write_text(
        "a,y\n" + "\n".join(f"{2**53 + row},{row / 7}" for row in range(40))
    )
    assert "more digits than float64" in refused(tmp_path / "x.csv")
    assert torch.get_default_dtype() == torch.float32
