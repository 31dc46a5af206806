"""Test that code named by a directory never runs unless the user names it too."""

import json
import re
import shlex
import shutil
import sys

import numpy as np
import pytest
import yaml

from bnn_symm.cli import main
from bnn_symm.errors import InvalidRun
from bnn_symm.runs.configuration.config import parse_config
from bnn_symm.studies import task as study_task
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.plan import plan_study
from bnn_symm.studies.results.fits import open_fit
from bnn_symm.studies.results.summary import write_summary
from bnn_symm.studies.study import load_study

FACTORY = "planted_network:build"
# Both the import and the call create a file.
CODE = """
import pathlib
import torch

MARK = pathlib.Path(__file__).with_name("mark")
MARK.touch()

def build(input_shape, num_outputs):
    MARK.touch()
    layers = torch.nn.Linear(*input_shape, 2), torch.nn.Tanh(), torch.nn.Linear(2, num_outputs)
    return torch.nn.Sequential(*layers)
"""


class Planted:
    """Create a folder with a module, and a run and a study of its network."""

    def __init__(self, folder):
        self.folder, self.mark = folder, folder / "mark"
        (folder / "planted_network.py").write_text(CODE)
        rows = np.random.default_rng(0).normal(size=(40, 3))
        np.savetxt(folder / "t.csv", rows, delimiter=",", header="a,b,y", comments="", fmt="%.3f")
        self.config = folder / "own.yaml"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "data": {"name": str(folder / "t.csv"), "target": "y"},
                    "architecture": {"name": "module", "factory": FACTORY},
                    "inference": {"name": "map", "num_steps": 3},
                    "study": {"seeds": 2, "pairs": {"num_draws": 2}},
                }
            )
        )
        self.run, self.study, self.done = folder / "run", folder / "study", folder / "done"

    def forget(self):
        sys.modules.pop("planted_network", None)
        self.mark.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    made = Planted(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        raw = yaml.safe_load(made.config.read_text())
        raw.pop("study")
        (folder / "fit.yaml").write_text(yaml.safe_dump(raw))
        assert main(["fit", "fit.yaml", "--quiet", "--out", str(made.run)]) == 0
        assert made.mark.exists()  # the user's own configuration does run what it names
        study = load_study(made.config)
        plan = plan_study(study)
        for path, number in ((made.study, 1), (made.done, 2)):
            place = StudyDirectory.create(path, study, plan)
            for key in plan.to_json()["cells"] if number == 2 else [plan.fits[0].key]:
                assert study_task.run_task(place, key, [FACTORY]) == 0
        write_summary(place, study, plan)
    return made


@pytest.fixture
def unmarked(planted, monkeypatch):
    """Make the module importable; it must not be imported."""
    monkeypatch.chdir(planted.folder)
    planted.forget()
    return planted


def assert_refused(made, cli, *arguments):
    status, out, err = cli(*arguments)
    assert (status, out) == (2, ""), err
    assert err.count("\n") == 1
    assert "--module" in err
    assert not made.mark.exists()
    assert "planted_network" not in sys.modules
    return err


@pytest.fixture
def cli(capsys):
    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "command",
    [
        *(
            "evaluate {run}",
            "evaluate {run} --data {data}",
            "predict {run} {data} -o p.csv",
            "diagnose {run}",
        ),
        *(
            "diagnose {run} {run}",
            "align {run} {run} --out x",
            "barrier {run} {run}",
            "merge {run} {run} --out x",
        ),
        *("symmetry {run}", "report {run}", "fit --resume {run}", "fit {run}/config.yaml --out x"),
        *(
            "symmetry {run}/config.yaml",
            "prior {run}/config.yaml -o x",
            "sbc {run}/config.yaml -o x",
        ),
        *(
            "diagnose --draws {run}/posterior.nc --config {run}/config.yaml",
            "compare --resume {study}",
        ),
        *(
            "compare {study}/study.yaml --out x",
            "compare --resume {study} {study}/study.yaml",
            "report {study}",
        ),
        *("fit {cell}/config.yaml --out x", "evaluate {cell}", "report {cell}"),
    ],
)
def test_no_command_runs_code_that_a_directory_names(unmarked, cli, command):
    cell = next((unmarked.study / "cells").iterdir())
    names = {
        "run": unmarked.run,
        "study": unmarked.study,
        "cell": cell,
        "data": unmarked.folder / "t.csv",
    }
    assert_refused(unmarked, cli, *(word.format(**names) for word in command.split()))


def test_a_repeated_factory_runs(unmarked, cli):
    status, _, err = cli("evaluate", unmarked.run, "--module", FACTORY)
    assert status == 0, err
    assert unmarked.mark.exists()


@pytest.mark.parametrize("repeated", ["os:system", "planted_network:other"])
def test_repeating_another_factory_does_not_permit_it(unmarked, cli, repeated):
    assert_refused(unmarked, cli, "compare", "--resume", unmarked.study, "--module", repeated)


@pytest.mark.parametrize("what", ["cells", "pairs"])
def test_no_task_runs_code_that_a_plan_names(unmarked, capsys, what):
    plan = json.loads((unmarked.study / "plan.json").read_text())
    left = [key for key in plan[what] if not (unmarked.study / "cells" / key).exists()]
    for key in left:
        assert study_task.main([str(unmarked.study), key]) == 2
        assert not unmarked.mark.exists()
        out, err = capsys.readouterr()
        assert (out, err.count("\n"), "--module" in err) == ("", 1, True)
    assert left


def test_neither_a_changed_plan_nor_a_changed_run_brings_in_code(unmarked, cli, capsys, tmp_path):
    """A study of another factory, which the user repeats, in whose files the planted one is
    named."""
    place = StudyDirectory(tmp_path / "changed")
    shutil.copytree(unmarked.study, place.path)
    (unmarked.folder / "harmless_network.py").write_text(CODE.replace('"mark"', '"harmless"'))
    text = place.study.read_text()
    place.study.write_text(text.replace("planted_network", "harmless_network"))
    plan = json.loads(place.plan.read_text())
    for key in [*plan["cells"], *plan["pairs"]]:
        if not place.is_done(key):
            assert study_task.main([str(place.path), key, "--module=harmless_network:build"]) == 2
    key = next(key for key in plan["cells"] if place.is_done(key))
    raw = plan["cells"][key]
    raw["architecture"]["factory"] = "harmless_network:build"
    with pytest.raises(InvalidRun, match="planted_network"):
        open_fit(place, key, parse_config(raw))
    assert not unmarked.mark.exists()
    assert "planted_network" not in sys.modules


@pytest.mark.thorough
def test_the_page_of_a_finished_study_needs_no_code(unmarked, cli, tmp_path):
    page = tmp_path / "page.html"
    status, _, err = cli("report", unmarked.done, "-o", page)
    assert status == 0, err
    assert not unmarked.mark.exists()
    typed = re.findall(r"bnn-symm compare[^<]*", page.read_text())
    assert typed
    for command in typed:
        words = shlex.split(command)
        assert words[words.index("--module") + 1] == "PACKAGE.MODULE:FACTORY"


def test_an_unfinished_study_is_resumed_with_a_placeholder_for_its_factory(unmarked, cli):
    err = assert_refused(unmarked, cli, "report", unmarked.study)
    assert err.rstrip().endswith("--module PACKAGE.MODULE:FACTORY")
    assert "planted_network" not in err
