import numpy as np
import pandas
import pytest
import torch

from bnn_symm.data import (
    OUT_OF_DISTRIBUTION,
    dataset_names,
    load_dataset,
    out_of_distribution_inputs,
    read_inputs,
)
from bnn_symm.data.loaders.bundled import digits, digits_0_4, digits_5_9
from bnn_symm.data.out_of_distribution import photo_patches
from bnn_symm.errors import DatasetNotFound, InvalidData


def test_the_two_halves_of_the_digits_make_the_digits():
    first, second, every = digits_0_4(), digits_5_9(), digits()
    assert (len(first.y), len(second.y)) == (901, 896)
    assert "901" in digits_0_4.__doc__
    assert "896" in digits_5_9.__doc__
    assert set(first.y) == {0, 1, 2, 3, 4}
    assert set(second.y) == {5, 6, 7, 8, 9}
    np.testing.assert_array_equal(first.x, every.x[every.y < 5])
    np.testing.assert_array_equal(second.x, every.x[every.y >= 5])
    data = load_dataset("digits_0_4")
    assert (data.num_outputs, data.class_labels) == (5, (0, 1, 2, 3, 4))


def test_the_other_half_is_read_without_its_unknown_labels():
    data = load_dataset("digits_0_4")
    x = out_of_distribution_inputs("digits_5_9", data.preprocessing)
    assert x.shape == (179, 1, 8, 8)
    assert torch.equal(x, read_inputs("digits_5_9", data.preprocessing))
    raw = x.double().numpy() * data.scaling.x_scale + data.scaling.x_mean
    np.testing.assert_allclose(raw, np.rint(raw), atol=1e-5)


def test_photo_patches_look_like_digits_and_are_none():
    patches = photo_patches()
    assert patches.shape == (1000, 1, 8, 8)
    assert (patches.min(), patches.max()) == (0, 16)
    assert len(np.unique(patches, axis=0)) == 1000
    np.testing.assert_array_equal(patches, photo_patches())
    data = load_dataset("digits")
    x = out_of_distribution_inputs("photo_patches", data.preprocessing, dtype=torch.float64)
    assert x.dtype == torch.float64
    np.testing.assert_allclose(
        x.numpy() * data.scaling.x_scale + data.scaling.x_mean, patches, atol=1e-9
    )


def test_any_file_of_the_right_shape(tmp_path):
    iris = load_dataset("iris")
    frame = pandas.DataFrame(np.ones((3, 4)), columns=list(iris.feature_names))
    frame.to_csv(tmp_path / "odd.csv", index=False)
    assert out_of_distribution_inputs(tmp_path / "odd.csv", iris.preprocessing).shape == (3, 4)


def test_pairs_name_what_there_is():
    known = {*dataset_names(), "photo_patches"}
    for inside, outside in OUT_OF_DISTRIBUTION.items():
        assert {inside, *outside} <= known
        assert inside not in outside


def test_what_does_not_fit_or_is_not_there():
    preprocessing = load_dataset("iris").preprocessing
    with pytest.raises(InvalidData, match="got an array of shape"):
        out_of_distribution_inputs("photo_patches", preprocessing)
    with pytest.raises(DatasetNotFound, match="did you mean 'photo_patches'"):
        out_of_distribution_inputs("photo_patchs", preprocessing)
    with pytest.raises(DatasetNotFound, match=r"'absent.csv' does not exist"):
        out_of_distribution_inputs("absent.csv", preprocessing)
