"""Data sets that need no download: those of scikit-learn, and a made one with a gap."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bnn_symm.data.raw import RawData, pixel_names
from bnn_symm.randomness import numpy_generator

_LICENCE = "BSD-3-Clause (scikit-learn)"

# The gap set: two clusters of inputs with nothing between them, and the standard deviation of the
# noise.
_GAP_TRAIN, _GAP_TEST = 100, 200
_GAP_INNER, _GAP_OUTER = 1.0, 4.0
_GAP_NOISE = 0.1


def digits() -> RawData:
    """1797 images of handwritten digits, (1, 8, 8), values 0..16."""
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
    """901 images of the digits 0 to 4, to fit where 5 to 9 shall be out of distribution."""
    return _some_digits(range(5))


def digits_5_9() -> RawData:
    """896 images of the digits 5 to 9, to fit where 0 to 4 shall be out of distribution."""
    return _some_digits(range(5, 10))


def _some_digits(classes: range) -> RawData:
    every = digits()
    rows = np.isin(every.y, classes)
    return replace(
        every,
        x=np.asarray(every.x)[rows],
        y=every.y[rows],
        source=f"scikit-learn load_digits, classes {classes.start} to {classes.stop - 1}",
    )


def breast_cancer() -> RawData:
    """569 tumours, 30 measurements, malignant or benign."""
    return _table("breast_cancer", "diagnosis")


def wine() -> RawData:
    """178 wines, 13 chemical measurements, three cultivars."""
    return _table("wine", "cultivar")


def iris() -> RawData:
    """150 flowers, 4 measurements in cm, three species."""
    return _table("iris", "species")


def diabetes() -> RawData:
    """442 patients, 10 measurements in their own units, the progression of the disease after one
    year.
    """
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
    """A wiggly function of one input, seen on [-4, -1] and [1, 4] only; its test part covers [-4,
    4].

    `y = sin(2 x) + x / 4 + noise`, with noise of standard deviation 0.1.
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
