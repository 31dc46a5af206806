"""Random tables are read unambiguously or raise an error, and rows are encoded independently."""

import csv
import io

import numpy as np
import pytest
import torch

from bnn_symm.data import load_dataset, read_inputs
from bnn_symm.data.loaders.delimited import _separator
from bnn_symm.errors import BnnSymmError
from tests.fuzz.tables import random_table, write_table


def check_message(error):
    text = str(error)
    assert "\n" not in text
    assert len(text) <= 300, text
    assert text.isprintable(), text


def rows_of(path):
    """Return the header and the lines of a file that `load_dataset` accepted."""
    text = path.read_bytes().decode("utf-8-sig")
    separator = _separator(path, text)
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    return separator, rows[0], rows[1:]


def check_rows(path, dataset, random):
    """Compare the encoding of random subsets of the rows with that of the table."""
    separator, header, rows = rows_of(path)
    whole = read_inputs(path, dataset.preprocessing, torch.float64)
    assert len(whole) == len(rows)
    part = path.with_name("part.csv")
    for count in (1, 2, len(rows)):
        chosen = random.permutation(len(rows))[:count]
        with part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=separator).writerows(
                [header, *(rows[row] for row in chosen)]
            )
        assert torch.equal(
            read_inputs(part, dataset.preprocessing, torch.float64), whole[chosen.tolist()]
        )


def check_table(seed, folder):
    """Check a random table and return whether it was accepted."""
    random = np.random.default_rng(seed)
    path = folder / "table.csv"
    path.write_bytes(write_table(random, *random_table(random)))
    try:
        dataset = load_dataset(path, target="y", dtype=torch.float64)
    except BnnSymmError as error:
        check_message(error)
        return False
    for text in (dataset.summary, *dataset.notes):
        check_message(text)
    assert dataset.train.x.isfinite().all()
    check_rows(path, dataset, random)
    return True


@pytest.mark.thorough
def test_tables_are_read_to_one_meaning_or_refused(tmp_path):
    accepted = [check_table(seed, tmp_path) for seed in range(150)]
    assert 20 < sum(accepted) < 130


@pytest.mark.slow
def test_many_tables(tmp_path):
    accepted = [check_table(seed, tmp_path) for seed in range(1000, 3000)]
    assert sum(accepted) > 300


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_fits_and_predictions(tmp_path, capsys, seed):
    from bnn_symm.cli import main

    random = np.random.default_rng(10_000 + seed)
    path = tmp_path / "table.csv"
    path.write_bytes(write_table(random, *random_table(random)))
    keys = ["inference.name=map", "inference.num_steps=5", "architecture.widths=[3]"]
    run, out = str(tmp_path / "run"), str(tmp_path / "out.csv")
    status = main(
        ["fit", "--quiet", "--set", f"data.name={path}", "data.target=y", *keys, "--out", run]
    )
    err = capsys.readouterr().err
    assert status in (0, 2), err
    assert "Traceback" not in err
    assert all(len(line) < 340 for line in err.splitlines())
    if status == 0:
        assert main(["predict", "--quiet", run, str(path), "-o", out]) == 0
