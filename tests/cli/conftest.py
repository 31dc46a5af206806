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


@pytest.fixture
def fitted(cli):
    """Fit a tiny run with `fitted(name, *keys)`."""

    def fit(name: str, *keys: str) -> str:
        status, _, err = cli("fit", "--quiet", "--set", *IRIS, *keys, "--out", name)
        assert status == 0, err
        return name

    return fit
