"""Data sets without a download: those of scikit-learn, and a synthetic one with a gap."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bnn_symm.data.raw import RawData, pixel_names
from bnn_symm.randomness import numpy_generator

_LICENCE = "BSD-3-Clause (scikit-learn)"

# The gap data: numbers of points, the two intervals of the training inputs, and the standard
# deviation of the noise.
_GAP_TRAIN, _GAP_TEST = 100, 200
_GAP_INNER, _GAP_OUTER = 1.0, 4.0
_GAP_NOISE = 0.1


def digits() -> RawData:
    """Load 1797 images of handwritten digits, (1, 8, 8), values 0..16."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    return RawData(
        x=data.images[:, None],
        y=data.target.astype(np.int64),
        target="digit",
        source="scikit-learn load_digits",
        licence=_LICENCE,
        task="classification",
        feature_names=pixel_names((1, 8, 8)),
    )


def digits_0_4() -> RawData:
    """Load 901 images of the digits 0 to 4; the digits 5 to 9 are out of distribution."""
    return _digits_of_classes(range(5))


def digits_5_9() -> RawData:
    """Load 896 images of the digits 5 to 9; the digits 0 to 4 are out of distribution."""
    return _digits_of_classes(range(5, 10))


def _digits_of_classes(classes: range) -> RawData:
    data = digits()
    rows = np.isin(data.y, classes)
    return replace(
        data,
        x=np.asarray(data.x)[rows],
        y=data.y[rows],
        source=f"scikit-learn load_digits, classes {classes.start} to {classes.stop - 1}",
    )


def breast_cancer() -> RawData:
    """Load 569 tumors with 30 measurements, malignant or benign."""
    return _table("breast_cancer", "diagnosis")


def wine() -> RawData:
    """Load 178 wines with 13 chemical measurements, three cultivars."""
    return _table("wine", "cultivar")


def iris() -> RawData:
    """Load 150 flowers with 4 measurements in cm, three species."""
    return _table("iris", "species")


def diabetes() -> RawData:
    """Load 442 patients with 10 measurements and the disease progression after one year."""
    from sklearn.datasets import load_diabetes

    data: Any = load_diabetes(as_frame=True, scaled=False)
    return RawData(
        x=data.data,
        y=data.target.to_numpy(np.float64),
        target="progression",
        source="scikit-learn load_diabetes(scaled=False)",
        licence=_LICENCE,
        task="regression",
    )


def gap() -> RawData:
    """Load 100 points of a function on [-4, -1] and [1, 4], and 200 test points on [-4, 4].

    The data are `y = sin(2 x) + x / 4 + noise`, with noise of standard deviation 0.1.
    """
    generator = numpy_generator("data", "gap")
    side = np.where(np.arange(_GAP_TRAIN) % 2 == 0, -1.0, 1.0)
    train = side * generator.uniform(_GAP_INNER, _GAP_OUTER, _GAP_TRAIN)
    x = np.concatenate([train, np.linspace(-_GAP_OUTER, _GAP_OUTER, _GAP_TEST)])
    y = np.sin(2 * x) + x / 4 + _GAP_NOISE * generator.standard_normal(len(x))
    return RawData(
        x=x[:, None],
        y=y,
        target="y",
        source="made by key: y = sin(2 x) + x / 4 + Normal(0, 0.1)",
        licence="MIT",
        task="regression",
        feature_names=("x",),
        train=np.arange(_GAP_TRAIN),
        test=np.arange(_GAP_TRAIN, len(x)),
    )


def _table(name: str, target: str) -> RawData:
    from sklearn import datasets

    load: Callable[..., Any] = getattr(datasets, f"load_{name}")
    data = load(as_frame=True)
    labels = tuple(map(str, data.target_names))
    return RawData(
        x=data.data,
        y=np.array(labels, dtype=object)[data.target.to_numpy()],
        target=target,
        source=f"scikit-learn load_{name}",
        licence=_LICENCE,
        task="classification",
        class_labels=labels,
    )
