"""Numbers have one supported notation; others are errors at any number of values."""

import math

import numpy as np
import pytest

from bnn_symm.data import load_dataset
from bnn_symm.data.preprocessing.column_types.notation import (
    form_of,
    is_exact,
    parse_number,
    parse_numbers,
    unit_of,
)
from bnn_symm.data.preprocessing.column_types.text_columns import infer_text_column, typed_values
from bnn_symm.errors import InvalidData


@pytest.mark.parametrize(
    "text", ["0", "-1", "+5", "12.", ".5", "1e5", "1E-05", "-0", "9007199254740992", "1e300"]
)
def test_numbers(text):
    assert form_of(text) == "number"
    assert parse_number(text) == float(text)


@pytest.mark.parametrize(
    "text",
    [
        "9" * 5000,
        "007",
        "01",
        "00",
        "01.11",
        "1e999",
        "inf",
        "nan",
        "0x10",
        "1_000",
        "9007199254740993",
    ],
)
def test_texts_that_are_no_numbers(text):
    assert not math.isfinite(parse_number(text)) or form_of(text) == "not finite"


@pytest.mark.parametrize(
    ("word", "texts"),
    [
        ("decimal comma", ["0,5", ",5", "-1,25", "1,5e3", "\uff11\uff0c\uff15"]),
        ("thousands", ["1,234", "1,234,567.5", "1.234,5", "1.234.567", "1,23,456"]),
        ("space", ["1 234", "1\u00a0234", "1\u202f234 567", "10 000,5"]),
        ("apostrophe", ["1'234", "1\u2019234.5"]),
        ("underscore", ["1_000"]),
        ("percent", ["12%", "1,5 %", "5\u2030"]),
        ("currency", ["$5", "5 \u20ac", "USD 12", "\u00a31,000", "-$5"]),
        ("feet and inches", ["5'11\"", "5' 7''", "6'"]),
        ("fraction", ["1/2", "1 1/2", "\u00bd", "3\u20444"]),
        ("base", ["0x1F", "0b101", "0o17"]),
        ("exponent", ["1.5d3", "1.5\u00d710^5", "10^5", "1D-3"]),
        ("bound", ["<0.1", "> 5", "~3", "\u22651", "5\u00b10.2"]),
        ("parentheses or a sign", ["(123)", "5-", "- 5", "5.1(2)"]),
        ("quotation", ["'5'", '="5"']),
        ("footnote", ["5*", "5.2\u2020"]),
        ("imaginary", ["1+2j", "3j"]),
        (
            "outside ASCII",
            ["\u22125", "\u0663", "\u0663\u066b\u0665", "\uff11\uff12.5", "\u20115", "5\u00b2"],
        ),
        (
            "placeholder",
            ["?", "-", "N/A", "NA", "nan", "None", "null", "missing", "#DIV/0!", "<NA>"],
        ),
        ("code", ["007", "01", "01.11"]),
        ("word", ["red", "3+", "18-25", "A12", "1.2.3.4", "1st", "10 km", "x", "1;2"]),
    ],
)
def test_forms(word, texts):
    assert [text for text in texts if word not in form_of(text)] == []


@pytest.mark.parametrize(
    ("text", "unit"),
    [("5 kg", "kg"), ("37.2\u00b0C", "\u00b0C"), ("10km/h", "km/h"), ("1st", None), ("3+", None)],
)
def test_units(text, unit):
    found = unit_of(text)
    assert (found and found[1]) == unit


def test_many_numbers_at_once_are_those_one_by_one():
    texts = [
        "1",
        "-2.5e-3",
        "9007199254740993",
        "9007199254740992",
        "1e300",
        "1e999",
        "1" + "0" * 400,
    ]
    for others in ([], ["red"], ["007"]):
        np.testing.assert_array_equal(
            parse_numbers([*texts, *others]), [parse_number(t) for t in [*texts, *others]]
        )


@pytest.mark.parametrize(
    ("integer", "exact"), [(2**53, True), (2**53 + 1, False), (10**18, True), (10**400, False)]
)
def test_integers_that_float64_holds(integer, exact):
    assert is_exact(integer) == exact
    assert is_exact(-integer) == exact


REFUSED = [
    (["0,5", "1,0"], "decimal comma"),
    (["1,5", "2", "3"], "row 1: got '1,5'.*decimal comma"),
    (["1,234", "999", "12,000"], "thousands"),
    (["1 234", "2 345"], "space between digits"),
    (["5%", "7%"], "percent"),
    (["$5", "$6", "N/A"], "currency"),
    (["1.5 kg", "2 kg"], "the unit 'kg'"),
    (["2 kg", "3 kg", "5 kg"], "the unit 'kg'"),
    (["2 kg", "600 g", "1.5 lb"], "the unit 'kg'"),
    (["1.5", "2.5", "?"], "row 3 has '\\?'"),
    (["1", "2", "?"], "row 3 has '\\?'"),
    (["0", "1", "unknown"], "'unknown'"),
    (["1", "2", "NA"], "row 3 has 'NA'"),
    (["1.5", "nan", "2"], "row 2 has 'nan'"),
    (["0.5", "1.5", "2.5", "high"], "row 4 has 'high'"),
    (["1/2", "1/4"], "fraction"),
    (["0x10", "0x1F"], "base"),
    (["1", "\u22122"], "row 2.*outside ASCII"),
    (["\u0663", "\u0664"], "outside ASCII"),
    (["1.5", "inf"], "row 2: got inf"),
    (["1.5", "1e999"], "row 2: got 1e999"),
    (["true", "1", "false"], "beside 0 and 1"),
    (["12:30", "13:45"], "dates or times"),
    (["01.05.20", "24.12.21"], "dates or times"),
    (["2024-01-31", "2024-02-01"], "dates or times"),
    ([*(f"2024-01-{day}" for day in range(10, 30)), "2024-02-30"], "row 21: '2024-02-30' is no"),
    ([*(f"{i},5" for i in range(30)), "k.A."], "decimal comma.*row 31 has 'k.A.'"),
    ([*(f"{i}.5 kg" for i in range(30)), "61 kgs"], "the unit 'kg'.*row 31 has '61 kgs'"),
    ([*(f"{i} %" for i in range(30)), "0.12"], "percent.*row 31 has '0.12'"),
    (["yes", "Yes", "no"], "differ only in case"),
    (["a b", "a  b"], "differ only in case, spaces"),
    (["caf\u00e9", "cafe\u0301"], "character variants"),
    (["1", "1.0", "A", "B", "C"], "differ only in case"),
    (["9007199254740993", "1"], "more digits than float64"),
]


@pytest.mark.parametrize(("texts", "message"), REFUSED)
@pytest.mark.parametrize("copies", [20, 400])
def test_columns_that_a_person_reads_otherwise(texts, message, copies):
    with pytest.raises(InvalidData, match=message) as caught:
        infer_text_column("column 'c'", texts * copies)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "2.5", "-1e3", " 4 "], "number"),
        (["true", "FALSE", "True"], "boolean"),
        (["01", "1", "A"], "category"),
        (["01", "02", "12"], "category"),
        (["007", "1", "NA"], "category"),
        (["1", "2", "3+"], "category"),
        (["18-25", "26-35", "65+"], "category"),
        (["10th", "11th", "Bachelors"], "category"),
        (["None", "mild", "severe"], "category"),
        (["2wd", "4wd"], "category"),
        (["12A", "3B", "7C", "1D"], "category"),
        (["yes", "no "], "category"),
    ],
)
def test_columns_that_are_read(texts, kind):
    assert infer_text_column("column 'c'", texts * 20).kind == kind


@pytest.mark.parametrize(
    ("texts", "word"),
    [
        (["None", "mild"], "'None' in 20 rows"),
        (["1", "2", "3+"], "mixes numbers and words"),
        (["yes", "yes ", "no"], "spaces around values are ignored"),
    ],
)
def test_what_is_decided_and_may_surprise_is_noted(texts, word):
    (note,) = infer_text_column("column 'c'", texts * 20).notes
    assert word in note


def test_values_of_a_decision():
    assert typed_values("number", ["1", " 2 "]).dtype == np.int64
    assert typed_values("number", ["1", "2.5"]).tolist() == [1.0, 2.5]
    assert typed_values("number", ["18446744073709551615", "1"]).tolist() == [2**64 - 1, 1]
    assert typed_values("boolean", ["TRUE", "false"]).tolist() == [True, False]
    assert typed_values("category", [" a", "b "]).tolist() == ["a", "b"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("position", ["feature", "target"])
@pytest.mark.parametrize(
    "write", ["{} 000".format, "{}.5 m".format, "{}/7".format, "<{}".format, "({})".format]
)
def test_files_in_a_notation_without_one_meaning(tmp_path, separator, position, write):
    rows = [
        [f'"{write(row % 10)}"', str(row % 7)][:: 1 if position == "feature" else -1]
        for row in range(60)
    ]
    path = tmp_path / "x.csv"
    path.write_text("\n".join(separator.join(row) for row in [["a", "y"], *rows]))
    with pytest.raises(InvalidData, match=r"row 1.*a number with"):
        load_dataset(path, target="y")
