import pytest

from bnn_symm.data.loaders import data_folders as store


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Return an empty folder, and make all searched folders of data sets empty."""
    monkeypatch.setenv("BNN_SYMM_DATA", str(tmp_path / "user"))
    monkeypatch.setattr(store, "_SYSTEM", tmp_path / "system")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda project: tmp_path / "cache" / project)
    return tmp_path
