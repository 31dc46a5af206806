"""A damaged summary of a study is an error of one line that names the wrong part."""

import copy
import json

import pytest

from bnn_symm.errors import InvalidRun
from bnn_symm.report.html.study_data import read_study
from tests.report.synthetic_study import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study") / "s", seeds=2, kinds=2)


@pytest.fixture(scope="module")
def summary(study):
    return json.loads((study / "summary.json").read_text())


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("conclusions.0", "x", "conclusions.0"),
        ("conclusions.0.context", 7, "conclusions.0 has setting 1, which is not in context 7"),
        ("comparisons.0.first", 10**9, "comparisons.0 has setting"),
        ("contexts.0.baseline", 9, "contexts.0 has setting 9"),
        ("settings.0.context", 3, "settings.0 has context 3 of 1"),
        ("settings.0.measures.test_nll", [], "settings.0.measures.test_nll"),
        ("settings.0.measures.test_nll.mean", 1e308, "settings.0.measures.test_nll.mean"),
        ("contexts.0.convergence.groups.0.target.value", -1e308, "target.value"),
        ("contexts.0.convergence.groups.0.bands.seconds.low", [1.0], "parts differ in length"),
        ("failures", ["x"], "failures.0"),
        ("counts.cells", "4", "counts.cells"),
    ],
)
def test_damage_of_the_summary_is_named(study, summary, place, value, message):
    content = copy.deepcopy(summary)
    *parents, last = place.split(".")
    part = content
    for key in parents:
        part = part[int(key) if isinstance(part, list) else key]
    part[int(last) if isinstance(part, list) else last] = value
    path = study / "summary.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InvalidRun, match=r"summary\.json is damaged") as error:
        read_study(study)
    path.write_text(json.dumps(summary))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_plotted_number_near_the_largest_float_is_refused(study):
    import pandas

    path = study / "cells.parquet"
    frame = pandas.read_parquet(path)
    frame.assign(test_nll=1e308).to_parquet(path)
    with pytest.raises(InvalidRun, match=r"test_nll is 1e\+308"):
        read_study(study)
    frame.to_parquet(path)
    assert read_study(study).fits
