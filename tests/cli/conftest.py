import shutil

import pytest

from tests.runs.conftest import _short_elbo  # noqa: F401 - the ELBO may be imprecise here too


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Run the command line in an empty folder; return (status, stdout, stderr)."""
    from bnn_symm.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = int(error.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def refused(cli):
    """Run a command that must exit with status 2 and one line on stderr; return that line."""

    def run(*arguments: object) -> str:
        status, out, err = cli(*arguments)
        assert (status, out) == (2, ""), err
        assert err.startswith("bnn-symm: error: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err

    return run


IRIS = ["data.name=iris", "architecture.widths=[4]"]


@pytest.fixture(scope="session")
def stored_runs(tmp_path_factory):
    """Return the folder of fits that several tests copy, and overrides -> name."""
    return tmp_path_factory.mktemp("stored_runs"), {}


@pytest.fixture
def fit_once(cli, stored_runs, tmp_path):
    """Fit with `fit_once(name, *keys)`, or copy a fit with the same overrides."""
    folder, names = stored_runs

    def fit(name: str, *keys: str) -> str:
        uses_files = any(".csv" in key for key in keys)  # which are those of one test
        stored = tmp_path / name if uses_files else folder / names.get(keys, str(len(names)))
        if uses_files or keys not in names:
            status, _, err = cli("fit", "--quiet", "--set", *keys, "--out", stored)
            assert status == 0, err
        if not uses_files:
            names[keys] = stored.name
            shutil.copytree(stored, tmp_path / name)
        return name

    return fit


@pytest.fixture
def fitted(fit_once):
    """Fit a tiny run with `fitted(name, *keys)`."""
    return lambda name, *keys: fit_once(name, *IRIS, *keys)
