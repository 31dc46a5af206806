"""A run whose engine, threads or versions changed is resumed only with `allow_changes`."""

import json

import pytest

from bnn_symm.cli import main
from bnn_symm.errors import InvalidRun
from bnn_symm.inference import Callback
from bnn_symm.runs import fit_run, load_config, resume_run

from .fits import GAP, overrides

pytestmark = pytest.mark.thorough


class StopAfter(Callback):
    """Stop a fit after some rows of its history."""

    def __init__(self, rows: int):
        self._left = rows

    def on_history(self, row):
        self._left -= 1

    def should_stop(self):
        return self._left <= 0


@pytest.fixture
def stopped(tmp_path):
    path = tmp_path / "run"
    assert (
        fit_run(load_config(None, overrides("map")), path, callbacks=[StopAfter(5)]).status
        == "interrupted"
    )
    return path


def _edit(path, **changes):
    record = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**record, **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "steam"}, "engine was steam, is torch"),
        ({"threads": 7}, "threads was 7, is 1"),
        ({"device": "abacus"}, "device was abacus, is cpu"),
        ({"dtype": "float16"}, "dtype was float16, is float32"),
        ({"versions": {"torch": "1.0"}}, "torch was 1.0, is "),
    ],
)
def test_what_changes_the_bits_is_refused_unless_allowed(stopped, changes, words):
    record = json.loads((stopped / "run.json").read_text())
    if "versions" in changes:
        changes = {"versions": {**record["versions"], **changes["versions"]}}
    _edit(stopped, **changes)
    with pytest.raises(
        InvalidRun, match=f"cannot be resumed bitwise identically: {words}"
    ) as error:
        resume_run(stopped)
    assert str(error.value).endswith("or accept a different result with allow_changes=True")
    assert "\n" not in str(error.value)
    assert not (stopped / "lock.json").exists()
    notes = []
    run = resume_run(stopped, allow_changes=True, on_note=notes.append)
    (line,) = notes
    assert line.startswith(f"{stopped} is resumed, but not bitwise identically: {words}")
    assert run.status == "complete"
    ((entry),) = run.record["resumed_with_changes"]
    assert entry["changes"][0].startswith(words)
    assert {key: run.record[key] for key in ("engine", "threads", "versions")} == {
        key: record[key] for key in ("engine", "threads", "versions")
    }


def test_a_run_resumed_with_changes_is_resumed_again_without(tmp_path, stopped):
    """The settings of the last resumption count; every change is recorded."""
    _edit(stopped, threads=7)
    first = resume_run(stopped, allow_changes=True, callbacks=[StopAfter(3)])
    assert first.status == "interrupted"
    assert first.record["threads"] == 1
    _edit(stopped, engine="steam")
    again = resume_run(stopped, allow_changes=True, callbacks=[StopAfter(3)])
    assert again.status == "interrupted"
    run = resume_run(stopped)
    assert run.status == "complete"
    changes = [entry["changes"] for entry in run.record["resumed_with_changes"]]
    assert changes == [["threads was 7, is 1"], ["engine was steam, is torch"]]


def test_allow_changes_has_no_effect_where_nothing_changed(stopped):
    notes = []
    assert (
        "resumed_with_changes"
        not in resume_run(stopped, allow_changes=True, on_note=notes.append).record
    )
    assert notes == []


def test_other_data_are_refused_even_so(stopped):
    record = json.loads((stopped / "run.json").read_text())
    _edit(stopped, dataset={**record["dataset"], "sha256": "0" * 64})
    with pytest.raises(InvalidRun, match="sha256 was 0000") as error:
        resume_run(stopped, allow_changes=True)
    assert "allow_changes" not in str(error.value)


def test_the_command_names_the_changes(stopped, capsys):
    _edit(stopped, threads=7)
    assert main(["fit", "--resume", str(stopped), "--quiet"]) == 2
    assert "--allow-changes" in capsys.readouterr().err
    assert main(["fit", "--resume", str(stopped), "--allow-changes", "--quiet"]) == 0
    message = f"{stopped} is resumed, but not bitwise identically: threads was 7, is 1"
    assert capsys.readouterr().err == f"bnn-symm: note: {message}\n"


def test_allow_changes_applies_to_resumed_runs(capsys):
    assert main(["fit", "--allow-changes", "--set", *GAP]) == 2
    assert "--allow-changes applies to a run that is resumed" in capsys.readouterr().err


def test_the_former_name_of_the_flag_prints_a_note(stopped, capsys):
    _edit(stopped, threads=7)
    assert main(["fit", "--resume", str(stopped), "--insist", "--quiet"]) == 0
    assert "--insist is now called --allow-changes" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert "--insist" not in capsys.readouterr().out
