"""The notebooks run without changes, and their stored outputs are presentable."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def outputs(notebook):
    return [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]


def test_there_are_six():
    assert len(NOTEBOOKS) == 6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_whole_and_clean(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    found = outputs(notebook)
    assert sum("image/png" in output.get("data", {}) for output in found) >= 2
    assert not [
        output
        for output in found
        if output.output_type == "error" or output.get("name") == "stderr"
    ]
    text = "\n".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in found
    )
    assert not re.search(r"/(tmp|home|root|work)/", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_only_the_public_interface_is_used(path):
    code = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
    assert not re.search(r"\._[a-z]", code)
    assert not re.search(r"from bnn_symm\.\w+\.", code)


@pytest.fixture(scope="module")
def font_cache(tmp_path_factory):
    """Return a directory with a whole list of fonts: that of the machine may lack some."""
    directory = tmp_path_factory.mktemp("matplotlib")
    subprocess.run(
        [sys.executable, "-c", "import matplotlib.font_manager"],
        env=os.environ | {"MPLCONFIGDIR": str(directory)},
        check=True,
        capture_output=True,
    )
    return directory


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")  # of the notebook client, about its own sockets
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch, font_cache):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MPLCONFIGDIR", str(font_cache))
    notebook = read(path)
    before = [cell.source for cell in notebook.cells]
    # The limit is for a notebook that hangs: the study of one takes minutes beside other tests.
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=1200, resources=resources).execute()
    assert [cell.source for cell in notebook.cells] == before
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    assert list(tmp_path.iterdir()) == []
