"""Notations of numbers are found where values have one meaning, and stored."""

import pandas as pd
import pytest

from bnn_symm.data import load_dataset, read_inputs
from bnn_symm.data.preprocessing.column_types.number_notation import NumberNotation, notations
from bnn_symm.errors import InvalidData


@pytest.mark.parametrize(
    ("texts", "plain", "notation"),
    [
        (["1,5", "2", "-0,25"], ["1.5", "2", "-0.25"], ",  "),
        (["1.234,5", "12,25"], ["1234.5", "12.25"], ",. "),
        (["1.234.567", "89"], ["1234567", "89"], ",. "),
        (["1,234.5", "999"], ["1234.5", "999"], "., "),
        (["1,234,567", "1,000"], ["1234567", "1000"], "., "),
        (["1 234,5", "2\u00a0000,5"], ["1234.5", "2000.5"], ",  "),
        (["1'234.5", "7"], ["1234.5", "7"], ".' "),
        (["$1,234.50", "-$5"], ["1234.50", "-5"], ".,$"),
        (["5 \u20ac", "7,5 \u20ac"], ["5", "7.5"], ", \u20ac"),
        (["12%", "5 %"], ["12", "5"], ". %"),
        (["5.2 kg", "10 kg"], ["5.2", "10"], ". kg"),
        (["\u22125", "3"], ["-5", "3"], ".  "),
    ],
)
def test_one_meaning(texts, plain, notation):
    (found,) = notations(texts)
    assert [found.plain(text) for text in texts] == plain
    assert found == NumberNotation.from_dict(found.to_dict())
    if notation[1] != " ":
        assert (found.decimal, found.thousands) == (notation[0], notation[1])
    assert found.affix == notation[2:].strip()
    assert found.plain("word") is None


@pytest.mark.parametrize(
    "texts",
    [
        ["1 kg", "2 lb"],
        ["2wd", "4wd"],
        ["1st", "2nd", "3rd"],
        ["5k", "7k", "9k"],
        ["1,2,3", "4"],
        ["1,5", "1.5", "1'5"],
        ["1.234,567.8"],
        ["12,34,567"],
        ["1/2"],
        ["red", "1,5"],
        ["+-5", "1,5"],
    ],
)
def test_no_meaning(texts):
    assert notations(texts) == []


@pytest.mark.parametrize("texts", [["1,234", "12,000"], ["$1,234"], ["-1,500"]])
def test_two_meanings_need_a_declaration(tmp_path, texts):
    assert {found.decimal for found in notations(texts)} == {".", ","}
    rows = [(texts[row % len(texts)], row % 7 / 2) for row in range(40)]
    pd.DataFrame(rows, columns=["a", "y"]).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InvalidData, match=r"declare data\.decimal=comma or data\.decimal=point"):
        load_dataset(tmp_path / "x.csv")
    for decimal in ("comma", "point"):
        data = load_dataset(tmp_path / "x.csv", decimal=decimal)
        (wanted,) = notations(texts, decimal)
        assert data.preprocessing.columns[0].notation == wanted


def test_points_among_thousands_need_a_declaration(tmp_path):
    swap = str.maketrans(",.", ".,")
    rows = [
        (f"{row / 8:.3f}".translate(swap), f"{row * 250:,}".translate(swap)) for row in range(40)
    ]
    frame = pd.DataFrame(rows, columns=["a", "y"])
    frame.to_csv(tmp_path / "x.csv", index=False, sep=";")
    with pytest.raises(InvalidData, match=r"'1\.000' in row 5, among numbers without a point"):
        load_dataset(tmp_path / "x.csv")
    assert load_dataset(tmp_path / "x.csv", decimal="comma").scaling.y_mean > 1000


def test_a_target_and_later_files_are_read_by_the_stored_notation(tmp_path):
    swap = str.maketrans(",.", ".,")
    rows = [
        (f"{row / 8:.3f}".translate(swap), f"{row * 250:,.2f}".translate(swap)) for row in range(40)
    ]
    frame = pd.DataFrame(rows, columns=["a", "y"])
    frame.to_csv(tmp_path / "x.csv", index=False, sep=";")
    data = load_dataset(tmp_path / "x.csv")
    assert data.task == "regression"
    assert data.scaling.y_mean == pytest.approx(250 * 19.5, rel=0.2)
    frame.iloc[[8]].to_csv(tmp_path / "one.csv", index=False, sep=";")
    x = read_inputs(tmp_path / "one.csv", data.preprocessing)
    assert x.item() == pytest.approx((1 - data.scaling.x_mean[0]) / data.scaling.x_scale[0])
    y = data.preprocessing.encode_target(["2.000"])
    assert y.item() * data.scaling.y_scale + data.scaling.y_mean == pytest.approx(2000, rel=1e-5)
    frame.assign(a="1.5").to_csv(tmp_path / "one.csv", index=False, sep=";")
    with pytest.raises(InvalidData, match=r"'1\.5'"):
        read_inputs(tmp_path / "one.csv", data.preprocessing)
