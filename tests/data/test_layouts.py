"""Layouts of arrays: axes, standardization, refusals, and points of later files."""

import numpy as np
import pytest
import torch

from bnn_symm import Dataset
from bnn_symm.data import load_dataset, load_points, read_inputs
from bnn_symm.data.layouts import with_layout
from bnn_symm.data.preprocessing.preprocessing import Preprocessing
from bnn_symm.errors import ConfigError, InvalidData

RANDOM = np.random.default_rng(0)
ROWS = 40
LABELS = np.arange(ROWS) % 2
SEQUENCES = RANDOM.normal(loc=[3.0, -1.0], scale=[2.0, 0.5], size=(ROWS, 6, 2))
TOKENS = RANDOM.integers(0, 9, size=(ROWS, 5))


@pytest.mark.parametrize(
    ("layout", "axes", "wanted", "num_notes"),
    [
        ("auto", (4,), (4, 1), 0),
        ("auto", (4, 3), (4, 3), 0),
        ("auto", (4, 3, 3), (4, 1, 3, 3), 1),
        ("auto", (4, 5, 3), (4, 5, 3), 1),
        ("auto", (4, 1, 5, 3), (4, 1, 5, 3), 0),
        ("features", (4,), (4, 1), 0),
        ("image", (4, 5, 3), (4, 1, 5, 3), 0),
        ("sequence", (4, 3, 3), (4, 3, 3), 0),
        ("sequence", (4, 3), (4, 3, 1), 0),
        ("tokens", (4, 3), (4, 3), 0),
    ],
)
def test_axes(layout, axes, wanted, num_notes):
    x, notes = with_layout(np.zeros(axes), layout, "the data")
    assert (x.shape, len(notes)) == (wanted, num_notes)


def test_bytes_are_images():
    assert with_layout(np.zeros((4, 5, 3), dtype=np.uint8), "auto", "x")[0].shape == (4, 1, 5, 3)


@pytest.mark.parametrize(
    ("layout", "axes"),
    [
        ("auto", (2,) * 5),
        ("features", (4, 3, 3)),
        ("image", (4, 3)),
        ("sequence", (4,)),
        ("tokens", (4, 3, 2)),
        ("image", (4, 28, 28, 3)),
    ],
)
def test_axes_that_do_not_fit(layout, axes):
    with pytest.raises(InvalidData, match=r"got x of shape .*expected \(point"):
        with_layout(np.zeros(axes), layout, "the data")


def test_features_of_sequences_are_standardized_over_all_times():
    data = Dataset.from_arrays(SEQUENCES, LABELS, dtype=torch.float64)
    assert data.input_shape == (6, 2)
    assert data.scaling.x_mean.shape == data.scaling.x_scale.shape == (1, 2)
    features = data.train.x.flatten(0, 1)
    assert torch.allclose(features.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(features.std(0, correction=0), torch.ones(2, dtype=torch.float64))
    again = Preprocessing.from_dict(data.preprocessing.to_dict())
    assert torch.equal(again.encode(SEQUENCES), data.preprocessing.encode(SEQUENCES))
    # A constant feature has no scale, although another one varies over time.
    clock = np.broadcast_to(np.arange(6.0), (ROWS, 6))
    other = np.stack([clock, np.full((ROWS, 6), 7.0)], axis=2)
    assert Dataset.from_arrays(other, LABELS).scaling.x_scale[0, 1] == 1.0


def test_a_file_of_tokens_stays_integers(tmp_path):
    path = tmp_path / "tokens.npz"
    np.savez(path, x=TOKENS, y=LABELS)
    data = load_dataset(path, layout="tokens")
    assert data.train.x.dtype == torch.int64
    assert data.train.to("cpu", torch.float64).x.dtype == torch.int64
    points = load_points(path, data.preprocessing)
    assert torch.equal(points.x, torch.from_numpy(TOKENS))
    assert torch.equal(read_inputs(path, data.preprocessing), points.x)
    again = Preprocessing.from_dict(data.preprocessing.to_dict())
    assert torch.equal(again.encode(TOKENS), points.x)


def test_targets_of_tokens_are_standardized():
    y = RANDOM.normal(5, 3, size=ROWS)
    data = Dataset.from_arrays(TOKENS, y, layout="tokens", dtype=torch.float64)
    assert abs(float(data.train.y.mean())) < 1e-12


@pytest.mark.parametrize("tokens", [TOKENS - 1, TOKENS + 0.5])
def test_values_that_are_no_tokens(tokens):
    with pytest.raises(InvalidData, match="expected tokens 0, 1, 2"):
        Dataset.from_arrays(tokens, LABELS, layout="tokens")


def test_data_with_a_layout_of_their_own(tmp_path):
    (tmp_path / "table.csv").write_text("a,y\n" + "1,2\n2,3\n" * 20)
    for name in ("iris", str(tmp_path / "table.csv")):
        with pytest.raises(ConfigError, match="has a layout of its own"):
            load_dataset(name, layout="sequence")
