"""Repeated points are counted, and features that give the target away are noted, but no others."""

import numpy as np
import pandas as pd
import pytest
import torch

from bnn_symm.data import Dataset, Split, load_dataset
from bnn_symm.data.leakage import shared_points, suspect_features

ROWS = 300


@pytest.fixture(scope="module")
def frame():
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, 3))
    return pd.DataFrame(x, columns=["a", "b", "c"]).assign(
        y=x[:, 0] + 0.05 * random.normal(size=ROWS)
    )


def suspects(frame, target="y", **keys):
    data = Dataset.from_frame(frame, target, **keys)
    return suspect_features(
        data.train, data.feature_names, is_classification=data.task == "classification"
    )


def test_shared_points_have_equal_features_and_target():
    x = torch.tensor([[0.0, 1.0], [1.0, 2.0], [0.0, 1.0], [-0.0, 1.0]])
    points = Split(x=x, y=torch.tensor([0, 1, 1, 0]))
    assert shared_points(points, points.take([0])).tolist() == [True, False, False, True]
    images = Split(x=torch.zeros(2, 1, 3, 3), y=torch.tensor([0.5, 0.7]))
    assert shared_points(images, images.take([1])).tolist() == [False, True]


def test_repeated_rows_are_noted(frame):
    assert not any("training point" in note for note in Dataset.from_frame(frame, "y").notes)
    twice = pd.concat([frame, frame[:20]], ignore_index=True)
    data = Dataset.from_frame(twice, "y")
    count = int(shared_points(data.test, data.train).sum())
    assert 0 < count <= 20
    assert any(note.startswith(f"{count} of {len(data.test)} test points") for note in data.notes)
    grouped = twice.assign(row=[*range(ROWS), *range(20)])
    assert not any(
        "training point" in n for n in Dataset.from_frame(grouped, "y", group="row").notes
    )


@pytest.mark.parametrize(
    "leak",
    [
        lambda y: 1.8 * y + 32,
        lambda y: np.exp(y),
        lambda y: y + 0.001 * np.random.default_rng(1).normal(size=ROWS),
    ],
    ids=["other units", "logarithm", "rounding"],
)
def test_a_copy_of_a_regression_target_is_a_suspect(frame, leak):
    assert suspects(frame) == []  # the correlation of `a` with the target is 0.999
    assert np.corrcoef(frame["a"], frame["y"])[0, 1] > 0.998
    copied = frame.assign(copy=leak(frame["y"]))
    assert suspects(copied) == ["copy"]
    assert any("'copy' alone" in note for note in Dataset.from_frame(copied, "y").notes)


def test_a_code_of_the_class_is_a_suspect(frame):
    kind = pd.cut(frame["y"], [-np.inf, -0.5, 0.5, np.inf], labels=["x", "y", "z"]).astype(str)
    table = frame.drop(columns="y").assign(kind=kind)
    assert suspects(table, "kind") == []
    code = kind.map({"x": 3.0, "y": 1.0, "z": 2.5})
    assert suspects(table.assign(code=code), "kind") == ["code"]


def test_small_data_and_single_features_have_no_suspects(frame):
    copied = frame.assign(copy=frame["y"])
    assert suspects(copied[:60]) == []
    assert suspects(copied[["copy", "y"]]) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine", "iris", "diabetes", "gap"])
def test_bundled_data_sets_have_no_suspects(name, seed):
    data = load_dataset(name, split_seed=seed)
    flat = Split(x=data.train.x.flatten(1), y=data.train.y)
    is_classification = data.task == "classification"
    assert suspect_features(flat, data.feature_names, is_classification=is_classification) == []


def test_a_copy_of_one_of_several_targets_is_a_suspect(frame):
    table = frame.assign(z=frame.b * frame.c, leak=2 * frame.b * frame.c)
    assert suspects(table, ["y", "z"]) == ["leak"]
