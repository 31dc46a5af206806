"""Files of a study that were damaged, exchanged, or no longer fit: one line, exit status 2, and
nothing is done."""

import json
import shutil

import numpy as np
import pytest
import yaml

from bnn_symm.cli import main
from bnn_symm.errors import InvalidRun
from bnn_symm.studies import task as study_task
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.plan import plan_study
from bnn_symm.studies.results.summary import write_summary
from bnn_symm.studies.study import load_study


def write_data(path, seed=0):
    rows = np.random.default_rng(seed).normal(size=(40, 3))
    np.savetxt(path, rows, delimiter=",", header="a,b,y", comments="", fmt="%.3f")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study in which one fit of three is missing, and a pair of two fits that are there."""
    folder = tmp_path_factory.mktemp("study")
    write_data(folder / "t.csv")
    (folder / "study.yaml").write_text(
        yaml.safe_dump(
            {
                "data": {"name": str(folder / "t.csv"), "target": "y"},
                "architecture": {"widths": [2]},
                "inference": {"name": "map", "num_steps": 3},
                "study": {"seeds": 3, "pairs": {"num_draws": 2}},
            }
        )
    )
    study = load_study(folder / "study.yaml")
    plan = plan_study(study)
    place = StudyDirectory.create(folder / "out", "study")
    place.write_plan(study, plan)
    for task in (*plan.fits[:2], plan.pairs[0]):
        assert study_task.run_task(place, task.key) == 0
    write_summary(place, study, plan)
    return place, study, plan


@pytest.fixture
def place(made, tmp_path):
    return StudyDirectory(shutil.copytree(made[0].path, tmp_path / "out"))


@pytest.fixture
def refused(capsys):
    """Runs a command that must end with status 2 and one short line on stderr; returns that
    line."""

    def run(function, *arguments):
        capsys.readouterr()
        status = function([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert len(err) <= 320
        return err

    return run


WRONG = {
    "no JSON": "{",
    "empty": "",
    "binary": "\x00\x01",
    "deep": "[" * 100_000,
    "a list": "[]",
    "a number": "1",
    "null": "null",
    "no key": "{}",
    "digits": '{"cells": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_damaged_plan_is_refused_by_tasks(made, place, refused, text):
    place.plan.write_text(text)
    refused(study_task.main, place.path, made[2].fits[2].key)


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"cells": []},
            {"cells": {"../../x": {}}},
            {"cells": {"0" * 16: 3}},
            {"cells": {"x" * 5000: {}}},
        ),
        *(
            {"pairs": None},
            {"pairs": {"1" * 16: {}}},
            {"pairs": {"1" * 16: {"first": "../a", "second": "0" * 16}}},
        ),
        *({"options": []}, {"options": {"num_draws": 0, "matching": "w2"}}, {"options": {}}),
        *(
            {"options": {"num_draws": "many", "matching": "w2"}},
            {"options": {"num_draws": 2, "matching": "x" * 5000}},
        ),
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_a_plan_of_wrong_types_is_refused_with_what_writes_it_again(made, place, refused, change):
    content = json.loads(place.plan.read_text())
    place.plan.write_text(json.dumps({**content, **change}))
    assert "compare --resume" in refused(study_task.main, place.path, made[2].fits[2].key)


def test_a_pair_of_fits_that_the_plan_lacks_is_refused(made, place, refused):
    content = json.loads(place.plan.read_text())
    content["pairs"]["1" * 16] = {"first": "0" * 16, "second": made[2].fits[0].key}
    place.plan.write_text(json.dumps(content))
    refused(study_task.main, place.path, "1" * 16)
    refused(study_task.main, place.path, "2" * 16)
    refused(study_task.main, place.path, "../" * 2000)


@pytest.mark.parametrize(
    "change", [{"seed": 9}, {"inference": {"name": "map", "num_steps": 4}}, {"seed": "x"}]
)
def test_a_plan_whose_fit_is_not_that_of_its_key_is_refused(made, place, refused, change):
    key = made[2].fits[2].key
    content = json.loads(place.plan.read_text())
    content["cells"][key].update(change)
    place.plan.write_text(json.dumps(content))
    refused(study_task.main, place.path, key)
    assert not place.is_done(key)


def test_a_task_refuses_data_that_changed_after_the_study_began(made, place, refused, tmp_path):
    content = yaml.safe_load(place.study.read_text())
    data = tmp_path / "t.csv"
    shutil.copy(content["data"]["name"], data)
    content["data"]["name"] = str(data)
    place.study.write_text(yaml.safe_dump(content))
    study = place.read_study()
    plan = plan_study(study)
    assert [fit.key for fit in plan.fits] == [
        fit.key for fit in made[2].fits
    ]  # of values, not of names
    place.write_plan(study, plan)
    for change in (
        lambda: write_data(data, seed=1),
        lambda: data.write_text("a,b,y\n1,2,3\n"),
        data.unlink,
    ):
        change()
        refused(study_task.main, place.path, plan.fits[2].key)
        assert not place.is_done(plan.fits[2].key)


STUDIES = {
    "no YAML": "study: {",
    "empty": "",
    "a list": "- 1",
    "a text": "x",
    "no study": "data: {name: iris}",
    "wrong types": "study: {vary: 3}",
    "wrong seeds": "study: {seeds: -1}",
    "a date": "study: {seeds: 2020-13-45}",
    "an integer": "study: {seeds: !!int abc}",
    "deep": "study: " + "[" * 5000,
    "an object": "study: !!python/object/apply:os.system ['true']",
    "escapes": 'study: {"\\e[31m\\u202e": 1}',
    "long": "study: {" + "k" * 5000 + ": 1}",
}


@pytest.mark.parametrize("text", STUDIES.values(), ids=STUDIES)
def test_a_damaged_configuration_is_refused(place, refused, text):
    place.study.write_text(text)
    refused(main, "compare", "--resume", place.path, "--jobs", 1)


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_damaged_summary_is_refused_by_the_report(place, refused, text):
    place.summary.write_text(text)
    refused(main, "report", place.path)


@pytest.mark.parametrize(
    "key", ["contexts", "settings", "comparisons", "conclusions", "counts", "headline"]
)
@pytest.mark.parametrize("value", [None, 3, "x"])
def test_a_summary_of_wrong_types_is_refused_by_the_report(place, refused, key, value):
    if (key, value) == ("headline", "x"):
        return
    content = json.loads(place.summary.read_text())
    place.summary.write_text(json.dumps({**content, key: value}))
    refused(main, "report", place.path)


@pytest.mark.parametrize("name", ["measures.json", "run.json", "config.yaml"])
def test_a_fit_of_the_study_that_was_damaged_or_exchanged_is_in_no_pair(made, place, refused, name):
    first, second = (fit.key for fit in made[2].fits[:2])
    place.pair_path(made[2].pairs[0].key).unlink()
    whole = (place.fit_path(first) / name).read_bytes()
    for content in (
        (place.fit_path(second) / name).read_bytes(),
        b"{",
        b"",
        whole[: len(whole) // 2],
    ):
        if content == whole:  # two fits may have the same measures
            continue
        (place.fit_path(first) / name).write_bytes(content)
        if name == "measures.json":
            with pytest.raises(InvalidRun):
                write_summary(place, made[1], made[2])
        else:
            refused(study_task.main, place.path, made[2].pairs[0].key)
    assert not place.is_done(made[2].pairs[0].key)


def test_a_fit_under_the_key_of_another_is_refused(made, place, refused):
    first, second = (fit.key for fit in made[2].fits[:2])
    place.pair_path(made[2].pairs[0].key).unlink()
    shutil.rmtree(place.fit_path(first))
    shutil.copytree(place.fit_path(second), place.fit_path(first))
    assert "another task" in refused(study_task.main, place.path, made[2].pairs[0].key)


@pytest.mark.parametrize(
    "text", [*WRONG.values(), '{"task": "0000000000000000"}'], ids=[*WRONG, "another pair"]
)
def test_a_pair_that_was_damaged_or_exchanged_is_not_used(made, place, refused, text):
    place.pair_path(made[2].pairs[0].key).write_text(text)
    with pytest.raises(InvalidRun):
        write_summary(place, made[1], made[2])


@pytest.mark.parametrize("text", [*WRONG.values(), '{"error": 3}', '{"error": "a\\u001b[31m\\nb"}'])
def test_the_reason_of_a_failure_is_one_printable_line_or_none(made, place, text):
    key = made[2].fits[2].key
    place.failures.mkdir(exist_ok=True)
    (place.failures / f"{key}.json").write_text(text)
    reason = place.failure(key)
    assert reason is None or (reason.isprintable() and len(reason) <= 300)
