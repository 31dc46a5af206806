"""Dates have one format, and become a trend and positions in the year, week and day."""

import math
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from bnn_symm.data import load_dataset, read_inputs
from bnn_symm.data.preprocessing.column_types import dates
from bnn_symm.data.preprocessing.column_types.inference import infer_column
from bnn_symm.errors import ConfigError, InvalidData


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["2024-01-31", "2023-12-01"], "iso"),
        (["2024-01-31T12:30", "2024-01-31 08:00:01"], "iso"),
        (["2024-01-31T12:30:00+02:00"], "iso"),
        (["31.12.2024", "01.02.2024"], "%d.%m.%Y"),
        (["12/31/2024", "01/02/2024"], "%m/%d/%Y"),
        (["31/12/24 18:30"], "%d/%m/%y %H:%M"),
        (["3 Feb 2024", "14 Mar 2023"], "%d %b %Y"),
        (["February 3, 2024", "March 4, 2024"], "%B %d, %Y"),
        (["12:30", "08:15"], "%H:%M"),
    ],
)
def test_formats(texts, form):
    assert dates.formats(texts) == [form]


@pytest.mark.parametrize("texts", [["20240131"], ["2024-02-30"], ["2024-01-31", "red"], ["1.5"]])
def test_texts_that_are_no_dates(texts):
    assert dates.formats(texts) == []


def test_days_and_months_that_may_be_exchanged():
    assert dates.formats(["03/04/2024", "05/06/2024"]) == ["%d/%m/%Y", "%m/%d/%Y"]
    assert len(dates.formats(["04/04/2024"])) == 1  # one meaning in both


def test_features_by_hand():
    moments = [datetime(2000, 1, 3, 6), datetime(2001, 1, 1), None]
    got = dates.features(moments, day=True, time=True)
    assert dates.feature_names("t", day=True, time=True)[:2] == ("t", "t (year sine)")
    np.testing.assert_allclose(got[0, 0], 2.25 / 365.2425)
    np.testing.assert_allclose(
        got[0, 3:5], [math.sin(2 * math.pi / 28), math.cos(2 * math.pi / 28)]
    )
    np.testing.assert_allclose(got[0, 5:], [1, 0], atol=1e-12)  # 2000-01-03 was a Monday
    np.testing.assert_allclose(got[1], [366 / 365.2425, 0, 1, 0, 1, 0, 1], atol=1e-12)
    assert np.isnan(got[2]).all()


def test_a_declared_format_and_later_rows(tmp_path):
    rows = [(f"{row % 12 + 1:02}/{row % 9 + 1:02}/2024", row / 7) for row in range(40)]
    frame = pd.DataFrame(rows, columns=["when", "y"])
    frame.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InvalidData, match=r"declare it with data.types=\{when: '%d/%m/%Y'\}"):
        load_dataset(tmp_path / "x.csv")
    data = load_dataset(tmp_path / "x.csv", types={"when": "%m/%d/%Y"})
    assert len(data.feature_names) == 5
    whole = read_inputs(tmp_path / "x.csv", data.preprocessing)
    frame.iloc[[7]].to_csv(tmp_path / "one.csv", index=False)
    assert (read_inputs(tmp_path / "one.csv", data.preprocessing) == whole[7]).all()
    moments = pd.to_datetime(frame["when"], format="%m/%d/%Y")
    assert (data.preprocessing.encode(frame.assign(when=moments)) == whole).all()
    frame.assign(when="2024").to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(InvalidData, match="'when', row 1: got '2024', expected a date"):
        read_inputs(tmp_path / "one.csv", data.preprocessing)
    with pytest.raises(ConfigError, match="got 'day', expected number, category"):
        load_dataset(tmp_path / "x.csv", types={"when": "day"})


def test_the_last_year_of_the_calendar_is_read_and_mentioned():
    series = pd.Series(["2024-01-31", "9999-12-31", "0001-01-01"] * 10, name="until")
    found = infer_column(series)
    assert "the latest is 9999-12-31" in found.notes[0]
    encoded = found.column.encode(series)
    assert np.isfinite(encoded).all()
    assert encoded[1, 0] == pytest.approx(8000.0, abs=0.01)
    assert dates.parse("9999-12-31T23:59:59-05:00", dates.ISO) is None


def test_months_are_dates():
    found = infer_column(pd.Series(["2020-01", "2021-12"] * 20, name="c"))
    assert (found.column.kind, found.column.date_format) == ("date", "%Y-%m")


@pytest.mark.parametrize(
    "texts",
    [
        ["2009-10", "2010-11", "2011-12"],  # seasons
        ["ABC 1000", "MAX 2000"],
        ["Marina 2000", "Junior 1999", "Decade 2010"],
        ["Sept 2020", "Oct 2020"],
        ["December-2020", "January 2020"],
    ],
)
def test_texts_that_resemble_months_are_categories(texts):
    assert infer_column(pd.Series(texts * 20, name="c")).column.kind == "category"


def test_integers_that_may_be_dates_are_numbers_with_a_note():
    found = infer_column(pd.Series([20240131, 20240201, 20231231] * 10, name="sold"))
    assert found.column.kind == "number"
    assert "declare data.types={sold: '%Y%m%d'}" in found.notes[0]
    assert infer_column(pd.Series([20240131, 20240299] * 10, name="c")).notes == ()
