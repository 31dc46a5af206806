"""Test that damaged, exchanged and outdated files of a study are refused in one line."""

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
def planned(tmp_path_factory):
    """Create a study with two of three fits, and the pair of these."""
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
    study_directory = StudyDirectory.create(folder / "out", study, plan)
    for task in (*plan.fits[:2], plan.pairs[0]):
        assert study_task.run_task(study_directory, task.key) == 0
    write_summary(study_directory, study, plan)
    return study_directory, study, plan


@pytest.fixture
def study_directory(planned, tmp_path):
    return StudyDirectory(shutil.copytree(planned[0].path, tmp_path / "out"))


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
def test_a_damaged_plan_is_refused_by_tasks(planned, study_directory, refused, text):
    study_directory.plan.write_text(text)
    refused(study_task.main, study_directory.path, planned[2].fits[2].key)


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
def test_a_plan_of_wrong_types_is_refused_with_the_command_that_rewrites_it(
    planned, study_directory, refused, change
):
    content = json.loads(study_directory.plan.read_text())
    study_directory.plan.write_text(json.dumps({**content, **change}))
    assert "compare --resume" in refused(
        study_task.main, study_directory.path, planned[2].fits[2].key
    )


def test_a_pair_of_unplanned_fits_is_refused(planned, study_directory, refused):
    content = json.loads(study_directory.plan.read_text())
    content["pairs"]["1" * 16] = {"first": "0" * 16, "second": planned[2].fits[0].key}
    study_directory.plan.write_text(json.dumps(content))
    refused(study_task.main, study_directory.path, "1" * 16)
    refused(study_task.main, study_directory.path, "2" * 16)
    refused(study_task.main, study_directory.path, "../" * 2000)


@pytest.mark.parametrize(
    "change", [{"seed": 9}, {"inference": {"name": "map", "num_steps": 4}}, {"seed": "x"}]
)
def test_a_planned_fit_that_does_not_match_its_key_is_refused(
    planned, study_directory, refused, change
):
    key = planned[2].fits[2].key
    content = json.loads(study_directory.plan.read_text())
    content["cells"][key].update(change)
    study_directory.plan.write_text(json.dumps(content))
    refused(study_task.main, study_directory.path, key)
    assert not study_directory.is_done(key)


def test_a_task_refuses_data_that_changed_after_the_study_began(
    planned, study_directory, refused, tmp_path
):
    content = yaml.safe_load(study_directory.study.read_text())
    data = tmp_path / "t.csv"
    shutil.copy(content["data"]["name"], data)
    content["data"]["name"] = str(data)
    study_directory.study.write_text(yaml.safe_dump(content))
    study = study_directory.read_study()
    plan = plan_study(study)
    assert [fit.key for fit in plan.fits] == [
        fit.key for fit in planned[2].fits
    ]  # of values, not of names
    study_directory.write_plan(study, plan)
    for change in (
        lambda: write_data(data, seed=1),
        lambda: data.write_text("a,b,y\n1,2,3\n"),
        data.unlink,
    ):
        change()
        refused(study_task.main, study_directory.path, plan.fits[2].key)
        assert not study_directory.is_done(plan.fits[2].key)


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
def test_a_damaged_configuration_is_refused(study_directory, refused, text):
    study_directory.study.write_text(text)
    refused(main, "compare", "--resume", study_directory.path, "--jobs", 1)


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_damaged_summary_is_refused_by_the_report(study_directory, refused, text):
    study_directory.summary.write_text(text)
    refused(main, "report", study_directory.path)


@pytest.mark.parametrize(
    "key", ["contexts", "settings", "comparisons", "conclusions", "counts", "headline"]
)
@pytest.mark.parametrize("value", [None, 3, "x"])
def test_a_summary_of_wrong_types_is_refused_by_the_report(study_directory, refused, key, value):
    if (key, value) == ("headline", "x"):
        return
    content = json.loads(study_directory.summary.read_text())
    study_directory.summary.write_text(json.dumps({**content, key: value}))
    refused(main, "report", study_directory.path)


@pytest.mark.parametrize("name", ["measures.json", "run.json", "config.yaml"])
def test_a_damaged_or_exchanged_fit_is_not_used_in_a_pair(planned, study_directory, refused, name):
    first, second = (fit.key for fit in planned[2].fits[:2])
    study_directory.pair_path(planned[2].pairs[0].key).unlink()
    whole = (study_directory.fit_path(first) / name).read_bytes()
    for content in (
        (study_directory.fit_path(second) / name).read_bytes(),
        b"{",
        b"",
        whole[: len(whole) // 2],
    ):
        if content == whole:  # two fits may have the same measures
            continue
        (study_directory.fit_path(first) / name).write_bytes(content)
        if name == "measures.json":
            with pytest.raises(InvalidRun):
                write_summary(study_directory, planned[1], planned[2])
        else:
            refused(study_task.main, study_directory.path, planned[2].pairs[0].key)
    assert not study_directory.is_done(planned[2].pairs[0].key)


def test_a_fit_under_another_key_is_refused(planned, study_directory, refused):
    first, second = (fit.key for fit in planned[2].fits[:2])
    study_directory.pair_path(planned[2].pairs[0].key).unlink()
    shutil.rmtree(study_directory.fit_path(first))
    shutil.copytree(study_directory.fit_path(second), study_directory.fit_path(first))
    assert "another task" in refused(study_task.main, study_directory.path, planned[2].pairs[0].key)


@pytest.mark.parametrize(
    "text", [*WRONG.values(), '{"task": "0000000000000000"}'], ids=[*WRONG, "another pair"]
)
def test_a_damaged_or_exchanged_pair_is_not_used(planned, study_directory, refused, text):
    study_directory.pair_path(planned[2].pairs[0].key).write_text(text)
    with pytest.raises(InvalidRun):
        write_summary(study_directory, planned[1], planned[2])


@pytest.mark.parametrize("text", [*WRONG.values(), '{"error": 3}', '{"error": "a\\u001b[31m\\nb"}'])
def test_the_reason_of_a_failure_is_one_printable_line_or_none(planned, study_directory, text):
    key = planned[2].fits[2].key
    study_directory.failures.mkdir(exist_ok=True)
    (study_directory.failures / f"{key}.json").write_text(text)
    reason = study_directory.failure(key)
    assert reason is None or (reason.isprintable() and len(reason) <= 300)
