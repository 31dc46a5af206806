"""Messages advise what their reader can do: flags on the command line, arguments in Python."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bnn_symm
from bnn_symm import load_config, load_dataset, load_run, plots
from bnn_symm.advice import advise, for_command_line
from bnn_symm.cli import main
from bnn_symm.errors import BnnSymmError
from bnn_symm.studies import run_study

PACKAGE = Path(bnn_symm.__file__).parent
_FLAG = re.compile(r"(?<![\w-])--[a-z]|bnn-symm \w")
_CALL = re.compile(r"\b[a-z]\w*\(\.\.\.|\b\w+\([a-z_]+=|\b(load|fit|run|resume)_\w+\(")
# These word what the commands print and write: pages, JSON, lines to copy.
_OF_COMMANDS = ("cli", "report", "analyses")
_NOT_MESSAGES = {
    "advice.py",
    "errors.py",  # examples of the helpers
    "data/loaders/fetch.py",  # options of npm
    "inference/parallel/process_group.py",  # how torchrun starts the program
    "runs/configuration/examples.py",  # lists commands
    "runs/configuration/factories.py",  # the commands that a page repeats
    "runs/configuration/reference.py",  # `bnn-symm config`
    "runs/distributed_fit.py",  # processes that torchrun started
    "runs/run.py",  # module_flags
    "studies/task.py",  # module_flags
}


def texts(path: Path) -> Iterator[str]:
    """Yield the texts of a module that are not worded by `advise`, and no docstrings."""
    skipped = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        is_advice = isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "advise",
            "shell_words",
        )
        if is_advice or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in skipped
        ):
            yield node.value


def test_no_text_of_the_python_interface_names_flags_or_commands():
    found = [
        (str(name), text)
        for path in sorted(PACKAGE.rglob("*.py"))
        if (name := path.relative_to(PACKAGE)).parts[0] not in _OF_COMMANDS
        and name.as_posix() not in _NOT_MESSAGES
        for text in texts(path)
        if _FLAG.search(text)
    ]
    assert found == []


def test_no_text_of_the_command_line_names_calls():
    found = [
        (path.name, text)
        for path in sorted((PACKAGE / "cli").rglob("*.py"))
        for text in texts(path)
        if _CALL.search(text)
    ]
    assert found == []


def test_advice_is_for_the_command_line_within_a_command_only():
    assert advise("--set", "argument") == "argument"
    with for_command_line():
        assert advise("--set", "argument") == "--set"
    assert advise("--set", "argument") == "argument"


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text("a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(6)))
    Path("one.csv").write_text("a,y\n" + "1,2\n" * 6)
    Path("study.yaml").write_text("study: {seeds: 1}\n")


# The same mistake: the words of a command line, and the call.
MISTAKES = {
    "no target": (["fit", "--set", "data.name=table.csv"], lambda: load_dataset("table.csv")),
    "one value": (["fit", "--set", "data.name=one.csv"], lambda: load_dataset("one.csv")),
    "few rows": (
        ["fit", "--set", "data.name=table.csv", "data.target=a", "data.limit=1"],
        lambda: load_dataset("table.csv", target="a", limit=1),
    ),
    "no run": (["report", "runs/none"], lambda: load_run("runs/none")),
    "no data": (["fit", "--set", "data.name=mnist10k"], lambda: load_dataset("mnist10k")),
    "a study": (["fit", "study.yaml"], lambda: load_config("study.yaml")),
    "no such key": (["fit", "--set", "seed"], lambda: load_config(None, ["seed"])),
    "no device": (
        ["fit", "--set", "data.name=iris", "device=cuda:99"],
        lambda: bnn_symm.fit_run(load_config(None, ["data.name=iris", "device=cuda:99"])),
    ),
    "no study": (["compare", "--resume", "x"], lambda: run_study(directory="x", resume=True)),
    "jobs": (
        ["compare", "quickstart", "--jobs", "0"],
        lambda: run_study("study.yaml", jobs=0),
    ),
    "no history": (["report", "x"], lambda: plots.convergence(load_run("x"))),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_reader_is_advised_in_its_own_words(name, table, capsys, monkeypatch):
    monkeypatch.setenv("BNN_SYMM_DATA", "nowhere")
    words, call = MISTAKES[name]
    with pytest.raises((BnnSymmError, FileNotFoundError)) as caught:
        call()
    assert not _FLAG.search(str(caught.value))
    assert main(words) == 2
    assert not _CALL.search(capsys.readouterr().err)
