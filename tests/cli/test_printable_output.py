"""Test that control characters are printed as escapes, and names are not parsed as markup."""

import io
import json
import os
import shlex
import shutil
import sys
import unicodedata

import numpy as np
import pytest
from rich.console import Console

from bnn_symm.advice import for_command_line
from bnn_symm.cli import main
from bnn_symm.errors import InvalidRun, one_line, printable, printable_name, shell_words
from bnn_symm.report import progress
from bnn_symm.runs.configuration.factories import study_commands
from bnn_symm.studies.directory import StudyDirectory

# ESC and OSC sequences, C1 controls, overrides of the direction of text, separators of lines,
# markup of rich.
NAMES = [
    "a\x1b[31mred",
    "a\x1b]0;title\x07b",
    "a\x9b31mred",
    "a\u202egnp.exe",
    "a\u2066b\u2069",
    "a\nrun: /elsewhere",
    "a\rb",
    "a\u2028b",
    "a\x85b",
    "a\x00b\x08\x7f",
    "a\ud800b",
    "[bold red]a[/]",
    "[link=http://a.example]a[/link]",
]
OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
HOSTILE = "h\x1b[31m\x9b1m\u202e\u2028[bold]x"


def assert_printable(text):
    left = {
        character
        for character in text
        if character != "\n" and unicodedata.category(character) in OBEYED
    }
    assert not left, text


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_texts_are_printable_and_names_stay_in_their_line(name):
    assert_printable(printable(name))
    for text in (one_line(name), printable_name(name)):
        assert_printable(text)
        assert "\n" not in text
    if name.startswith("["):
        assert one_line(name) == printable(name) == printable_name(name) == name


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_missing_name_is_quoted_in_one_printable_line(name, capsys):
    for arguments in (
        *(
            ["evaluate", name],
            ["report", name],
            ["fit", f"{name}.yaml"],
            ["compare", "--resume", name],
        ),
        *(
            ["fit", "--set", f"data.name={name}"],
            ["fit", "--set", f"{name}=1"],
            ["data", "fetch", name],
            [name],
        ),
        *(
            ["fit", f"--{name}"],
            ["symmetry", name],
            ["fit", "--set", f"architecture.symmetry.kind={name}"],
        ),
    ):
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = ended.code
        out, err = capsys.readouterr()
        assert (status, out, err.count("\n")) == (2, "", 1), arguments
        assert_printable(err)
        assert len(err) <= 320


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Create a run whose directory, data set, columns and labels have hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = np.random.default_rng(0).normal(size=(40, 2))
    labels = [f"l{HOSTILE}", f"=m{HOSTILE}"]
    lines = [
        f"a{HOSTILE},b,y{HOSTILE}",
        *(f"{a:.3f},{b:.3f},{labels[int(a > b)]}" for a, b in rows),
    ]
    data = folder / f"data{HOSTILE}.csv"
    data.write_text("\n".join(lines), encoding="utf-8")
    run = folder / f"run\n{HOSTILE} $x; y"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = [f"data.name={data}", f"data.target=y{HOSTILE}", "architecture.widths=[2]"]
        method = ["inference.num_steps=3", "inference.num_draws=2"]
        assert main(["fit", "--quiet", "--set", *settings, *method, "--out", str(run)]) == 0
    return run, data


@pytest.mark.thorough
@pytest.mark.parametrize(
    "command",
    [
        "evaluate RUN",
        "evaluate RUN --data DATA",
        "symmetry RUN",
        "report RUN",
        "predict RUN DATA -o OUT",
    ],
)
def test_answers_and_notes_about_hostile_names_are_printable(hostile, command, capsys, tmp_path):
    run, data = hostile
    words = {"RUN": str(run), "DATA": str(data), "OUT": str(tmp_path / f"p\n{HOSTILE}.csv")}
    for json_wanted in (False, True):
        words["OUT"] = words["OUT"].replace(".csv", f"{json_wanted}.csv")
        arguments = [words.get(word, word) for word in command.split()] + ["--json"] * json_wanted
        assert main(arguments) == 0
        out, err = capsys.readouterr()
        assert_printable(out)
        assert_printable(err)
        if json_wanted:
            content = json.loads(out)
            assert content.get("run", str(run)) == str(run)  # its reader gets the exact value
        else:
            assert "\x1b" not in out
            assert "run: /elsewhere" not in out.splitlines()


@pytest.mark.thorough
def test_a_line_break_in_a_path_does_not_split_the_line_that_names_it(hostile, capsys, tmp_path):
    run, _ = hostile
    page = tmp_path / "a\nwritten: b.html"
    assert main(["report", str(run), "-o", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"written: {tmp_path}/a\\nwritten: b.html"]


@pytest.mark.thorough
@pytest.mark.parametrize("key", ["status", "started", "host", "error"])
def test_a_record_that_was_changed_prints_no_escape(hostile, key, capsys, tmp_path):
    path = shutil.copytree(hostile[0], tmp_path / "run")
    record = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**record, key: HOSTILE + "\n" + HOSTILE}))
    for command in ("evaluate", "report", "sign"):
        status = main([command, str(path)])
        out, err = capsys.readouterr()
        assert status in (0, 2)
        assert_printable(out + err)
        assert err.count("\n") <= 2


def test_progress_is_a_text_and_not_markup(capsys, monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(
        progress, "Console", lambda **_: Console(file=written, force_terminal=True, width=300)
    )
    with progress.CountBar(f"[bold]label[/] {HOSTILE}", total=2) as bar:
        assert bar is not None
    assert "[bold]label[/]" in written.getvalue()
    assert "\x9b" not in written.getvalue()
    assert "\u202e" not in written.getvalue()


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--resume", "runs/my run"],
        ["report", "a$(touch x)"],
        ["report", "a; ls", "b`ls`", "it's"],
        ["report", 'a"b', "a\\b", "*", "~", "!x", "&", "|", ">", "#", "", "-"],
        ["report", "a\nb"],
    ],
)
def test_suggested_commands_survive_shell_parsing(words):
    assert shlex.split(shell_words(*words)) == words


NASTY = ["my study", "a$(touch x)", "a; touch x", "it's `x`", "a & b | c"]


@pytest.mark.parametrize("name", NASTY)
def test_advice_of_commands_is_quoted_for_a_shell(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / name
    place.mkdir()
    (place / "study.yaml").write_text("data: {name: iris}\nstudy: {seeds: 1}\n")
    assert main(["report", name]) == 2
    err = capsys.readouterr().err
    assert shlex.split(err[err.index("bnn-symm compare") :]) == [
        "bnn-symm",
        "compare",
        "--resume",
        name,
    ]
    (place / "plan.json").write_text(json.dumps({"cells": {}, "pairs": [], "options": {}}))
    with for_command_line(), pytest.raises(InvalidRun) as damaged:
        StudyDirectory(name).read_plan()
    text = str(damaged.value)
    assert shlex.split(text[text.index("bnn-symm compare") :]) == [
        "bnn-symm",
        "compare",
        "--resume",
        name,
    ]


@pytest.mark.parametrize("name", NASTY)
def test_commands_of_a_study_are_quoted_for_a_shell(name, tmp_path):
    path = tmp_path / name
    commands = {
        what: shlex.split(text) for what, text in study_commands(path, ["own.nets:build"]).items()
    }
    assert commands == {
        "repeat": [
            "bnn-symm",
            "compare",
            str(path / "study.yaml"),
            "--out",
            "DIR",
            "--module",
            "own.nets:build",
        ],
        "resume": ["bnn-symm", "compare", "--resume", str(path), "--module", "own.nets:build"],
        "report": ["bnn-symm", "report", str(path)],
    }


@pytest.fixture
def without_reader(monkeypatch):
    """Run a command with an output stream whose reader is gone; return the exit status."""

    def run(stream, *words):
        reader, writer = os.pipe()
        os.close(reader)
        with monkeypatch.context() as patch, open(writer, "w", encoding="utf-8") as output:
            patch.setattr(sys, stream, output)
            try:
                return main(list(words))
            except SystemExit as error:
                return error.code

    return run


@pytest.mark.parametrize(
    "words",
    [
        *(["--help"], ["--version"], ["--print-completion", "bash"], ["fit", "--help"]),
        *(["examples"], ["config"], ["config", "--schema"], ["data", "list", "--json"]),
    ],
    ids=" ".join,
)
def test_a_reader_that_is_gone_is_no_error(words, without_reader, capsys):
    assert without_reader("stdout", *words) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [["report", "nowhere"], ["fit", "--nothing"]], ids=" ".join)
def test_an_error_without_a_reader_keeps_its_status(words, without_reader):
    assert without_reader("stderr", *words) == 2
