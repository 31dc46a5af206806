import json

from bnn_symm.data.registry import dataset_names


def test_list(cli):
    status, out, err = cli("data", "list")
    assert (status, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()[2:]]
    assert names == list(dataset_names())
    _, out, _ = cli("data", "list", "--json")
    listed = json.loads(out)["datasets"]
    assert [entry["name"] for entry in listed] == names
    assert all(entry["available"] for entry in listed if entry["name"] in ("digits", "iris", "gap"))


def test_unknown_names(refused):
    assert "'fashon_mnist', which cannot be downloaded; did you mean 'fashion_mnist'?" in refused(
        "data", "fetch", "fashon_mnist"
    )
    assert "'digits', which cannot be downloaded" in refused("data", "fetch", "digits")


def test_a_missing_data_set_is_reported_with_the_command(refused, cli, monkeypatch, tmp_path):
    from bnn_symm.data.loaders import data_folders as store

    monkeypatch.delenv("BNN_SYMM_DATA", raising=False)
    monkeypatch.setattr(store, "_SYSTEM", tmp_path)
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path)
    missing = [
        entry
        for entry in json.loads(cli("data", "list", "--json")[1])["datasets"]
        if not entry["available"]
    ]
    assert {entry["name"] for entry in missing} >= {"fashion_mnist", "cifar10"}
    for entry in missing:
        assert f"bnn-symm data fetch {entry['name']}" in refused(
            "fit", "--set", f"data.name={entry['name']}"
        )
