"""The effects of a study as gains: figure, cells and sentences at the top of its page."""

import dataclasses
import json
import math
import re

import pytest

from bnn_symm.report.html.study_data import read_study
from bnn_symm.report.html.study_effects import (
    effect_cell,
    gain_of,
    gains_picture,
    lead_sentences,
)
from bnn_symm.report.html.study_settings import context_views, verdict_cell
from bnn_symm.studies.results.narrative import Answer
from tests.report.synthetic_study import write_study


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_study(write_study(tmp_path_factory.mktemp("study") / "digits"))


@pytest.mark.parametrize(
    ("measure", "difference", "gain"),
    [
        ("test_nll", (-0.2, -0.3, -0.1), (0.2, 0.1, 0.3)),
        ("test_accuracy", (-0.2, -0.3, -0.1), (-0.2, -0.3, -0.1)),
        ("gradients_to_target", (math.log(0.75), math.log(0.5), 0.0), (25.0, 0.0, 50.0)),
        ("elbo", (None, None, None), (None, None, None)),
    ],
)
def test_a_gain_is_positive_where_the_setting_is_better(measure, difference, gain):
    keys = ("mean", "low", "high")
    found = gain_of({"measure": measure, "difference": dict(zip(keys, difference, strict=True))})
    for key, own in zip(keys, gain, strict=True):
        assert found[key] == (None if own is None else pytest.approx(own))


def test_every_effect_says_which_side_is_better(data):
    (view,) = context_views(data.summary)
    for conclusion in data.summary["conclusions"]:
        cell = effect_cell(data.summary, view, conclusion)
        assert cell.text.startswith(("better by ", "worse by "))
        assert re.search(r"\d (better|worse)$", cell.small)
        if conclusion["answer"] == Answer.SUPPORTED:
            assert cell.text.startswith("better")
            assert "worse" not in cell.small


def test_verdicts_are_of_three_kinds():
    texts = {verdict_cell(answer).text for answer in Answer}
    assert texts == {"supported", "not supported", "inconclusive"}
    assert verdict_cell(Answer.OPPOSITE, "strong evidence").small.startswith("opposite effect; ")


def test_the_page_begins_with_up_to_three_sentences_that_name_every_effect(data):
    text = lead_sentences(data, context_views(data.summary))
    assert 1 <= len(re.findall(r"\.(?= [A-Z]|$)", text)) <= 3
    titles = [
        one["title"].partition(" (")[0].lower()
        for one in data.summary["conclusions"]
        if one["answer"] != Answer.OPPOSITE
    ]
    assert all(title in text.lower() for title in titles)
    controls = {name for one in data.summary["conclusions"] for name in one["explained_by"]}
    (view,) = context_views(data.summary)
    assert controls
    assert all(view.names[number] in text for number in controls)


def test_effects_are_counted_over_contexts(tmp_path):
    path = write_study(tmp_path / "grid", contexts=("a", "b", "c"), seeds=3, kinds=3)
    data = read_study(path)
    text = lead_sentences(data, context_views(data.summary))
    assert "3 contexts" in text
    assert " of 3)" in text


def test_a_study_without_effects_has_its_headline(tmp_path):
    data = read_study(write_study(tmp_path / "new", bare=True))
    views = context_views(data.summary)
    assert lead_sentences(data, views) == data.summary["headline"]
    assert gains_picture(data, views[0]) is None


def test_settings_side_by_side_name_the_best(tmp_path):
    path = write_study(tmp_path / "methods", contexts=("map", "nuts"), kinds=1, seeds=3)
    data = read_study(path)
    views = context_views(data.summary)
    means = {view.title: view.own[0]["measures"]["test_nll"]["mean"] for view in views}
    best = min(means, key=lambda name: means[name])
    assert f"lowest mean test NLL has {best}, " in lead_sentences(data, views)


@pytest.mark.thorough
def test_the_figure_has_all_settings_but_the_standard_network(data):
    (view,) = context_views(data.summary)
    picture = gains_picture(data, view)
    names = picture.numbers.columns["setting"]
    assert list(names) == [view.names[number] for number in view.numbers[1:]]
    assert picture.narrow.get_figwidth() < 5.6 < picture.figure.get_figwidth()
    verdicts = [axes.get_title().splitlines()[-1] for axes in picture.figure.axes]
    stored = [one["answer"] for one in data.summary["conclusions"]]
    assert verdicts[: len(stored)] == stored[: len(picture.numbers.columns) - 1]


def test_older_summaries_without_the_names_of_controls_have_a_page(data):
    old = json.loads(json.dumps(data.summary))
    for one in old["conclusions"]:
        del one["explained_by"]
    older = dataclasses.replace(data, summary=old)
    assert lead_sentences(older, context_views(old))


def test_words_of_former_summaries_are_read(tmp_path):
    path = write_study(tmp_path / "former")
    file = path / "summary.json"
    summary = json.loads(file.read_text())
    present = [one["answer"] for one in summary["conclusions"]]
    former = {"supported": "yes", "not supported": "no", "inconclusive": "cannot be told"}
    for one in summary["conclusions"]:
        one["answer"] = former.get(one["answer"], "the other way")
        one["because_of_symmetry"] = "not asked"
    file.write_text(json.dumps(summary))
    found = read_study(path).summary["conclusions"]
    assert [one["answer"] for one in found] == present
    assert {one["because_of_symmetry"] for one in found} == {"not assessed"}
