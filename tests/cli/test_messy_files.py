"""Files as people have them are fitted by one command, and a row is the same beside any others."""

import gzip
import zipfile
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from bnn_symm.runs import load_run

pytestmark = pytest.mark.thorough

ROWS = 80
RANDOM = np.random.default_rng(1)
SIZE = RANDOM.uniform(20, 200, ROWS).round(1)
PRICE = (900 * SIZE + RANDOM.normal(0, 9000, ROWS)).round()
TOWN = np.array(["Ulm", "Bonn", "Jena"])[np.arange(ROWS) % 3]
DAY = pd.Timestamp("2023-01-01") + pd.to_timedelta(RANDOM.integers(0, 700, ROWS), "D")


def german(value, digits=1):
    return f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,"))


def plain(**columns):
    return pd.DataFrame({"size": SIZE, "town": TOWN, **columns, "price": PRICE})


def text(separator=",", line_end="\n", **columns):
    return plain(**columns).to_csv(index=False, sep=separator, lineterminator=line_end).encode()


def zipped(content):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("houses/table.csv", content)
            archive.writestr("__MACOSX/._table.csv", b"")

    return write


def excel(path):
    pytest.importorskip("openpyxl")
    plain(sold=DAY, note=[None, "new"] * (ROWS // 2)).to_excel(path, index=False)


def numeric_types(path):
    kinds = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64", "float32", "float16")
    columns = {
        kind: pd.Series(np.arange(ROWS) % 9, dtype=kind) for kind in kinds if kind != "float16"
    }
    columns["Int64"] = pd.array([None, *range(1, ROWS)], dtype="Int64")
    columns["decimal"] = [Decimal(row) / 4 for row in range(ROWS)]
    columns["day"] = [date(2024, 1, 1 + row % 28) for row in range(ROWS)]
    plain(**columns).to_parquet(path)


# Name of the file -> its content, or a function that writes it; settings.
FILES = {
    "windows.tsv": (b"\xef\xbb\xbf" + text("\t", "\r\n"), ()),
    "caret.csv": (text("^"), ("data.delimiter=^",)),
    "german.csv": (
        plain(size=map(german, SIZE), price=[german(p, 2) + " €" for p in PRICE])
        .to_csv(index=False, sep=";")
        .encode(),
        (),
    ),
    "us.csv": (
        plain(size=[f"{s} sqm" for s in SIZE], price=[f"${p:,.0f}" for p in PRICE])
        .to_csv(index=False)
        .encode(),
        ("data.decimal=point",),
    ),
    "small.csv.gz": (gzip.compress(text()), ()),
    "sent.csv.zip": (zipped(text()), ()),
    "sheet.xlsx": (excel, ()),
    "frame.feather": (lambda path: plain(sold=DAY).to_feather(path), ()),
    "types.parquet": (numeric_types, ()),
    "gaps.csv": (
        text(
            rooms=[["", "NA", "?", "3"][row % 4] for row in range(ROWS)],
            street=["" if row % 5 == 0 else "ABC"[row % 3] for row in range(ROWS)],
        ),
        (),
    ),
    "dates.csv": (text(sold=[f"{day:%d.%m.%Y %H:%M}" for day in DAY], built=DAY.date), ()),
    "names.csv": (
        text(
            id=range(ROWS),
            customer_id=[f"C{row}" for row in range(ROWS)],
            owner=[f"Ann Bee {row}" for row in range(ROWS)],
        ),
        ("data.types={owner: text}",),
    ),
    "wide.csv": (
        text(
            zip=[f"z{row % 3}" if row < 50 else f"rare{row}" for row in range(ROWS)],
            junk=["x"] * ROWS,
        ),
        ("data.features=[size, town, zip]",),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_one_command_fits_and_every_subset_of_rows_has_its_predictions(cli, tmp_path, name):
    content, keys = FILES[name]
    path = tmp_path / name
    content(path) if callable(content) else path.write_bytes(content)
    tiny = ["inference.name=map", "inference.num_steps=20", "architecture.widths=[4]", "threads=1"]
    keys = [f"data.name={path}", "data.target=price", *keys, *tiny]
    status, _, err = cli("fit", "--quiet", "--set", *keys, "--out", "run")
    assert status == 0, err
    run = load_run("run")
    whole = run.predict(path)
    assert len(whole) == ROWS
    assert whole["mean"].between(-1e6, 1e6).all()
    assert whole["mean"].std() > 1
    if path.suffix in (".csv", ".tsv"):
        lines = path.read_text("utf-8-sig").splitlines()
        for rows in ([0], [5, 3], list(range(ROWS))[::-1]):
            part = tmp_path / f"part{path.suffix}"
            part.write_text("\n".join([lines[0], *(lines[row + 1] for row in rows)]))
            got = run.predict(part)
            np.testing.assert_allclose(got, whole.iloc[rows], rtol=1e-5)
