"""Inputs from elsewhere: what a network has not been fitted to, in the shape of what it has.

Pairs whose points have the same shape, for a network fitted to the first (AUROC of the largest
softmax probability of a plain multilayer perceptron, about):

    digits_0_4      digits_5_9      0.92
    digits          photo_patches   0.97
    fashion_mnist   mnist10k        0.84
    mnist10k        fashion_mnist   0.67
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.data.preprocessing.preprocessing import Preprocessing
from bnn_symm.data.registry import dataset_names, read_inputs
from bnn_symm.errors import DatasetNotFound, nearest
from bnn_symm.randomness import numpy_generator

OUT_OF_DISTRIBUTION: dict[str, tuple[str, ...]] = {
    "digits": ("photo_patches",),
    "digits_0_4": ("digits_5_9", "photo_patches"),
    "digits_5_9": ("digits_0_4", "photo_patches"),
    "fashion_mnist": ("mnist10k",),
    "mnist10k": ("fashion_mnist",),
}
"""Data set -> what may be held against it."""

PHOTO_PATCHES = "photo_patches"

# Side of a patch and largest value: those of the digits.
_SIDE, _LARGEST = 8, 16
_NUM_PATCHES = 1000
# Weights of red, green and blue in the luminance of ITU-R BT.601.
_LUMINANCE = (0.299, 0.587, 0.114)


def out_of_distribution_inputs(
    name_or_file: str | Path, preprocessing: Preprocessing, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "point *feature"]:
    """Inputs of another origin, treated as the data of `preprocessing` were; whatever target they
    have is not read.

    Args:
        name_or_file: `photo_patches`, the name of a data set (its test part), or a file (all its
            rows).
        preprocessing: of the data that a network was fitted to.
        dtype: of the result.

    Raises:
        DatasetNotFound: if the name is unknown, or the data are not on this machine.
        InvalidData: if the inputs have other columns or another shape than those of the network.
    """
    if str(name_or_file) == PHOTO_PATCHES:
        return preprocessing.encode(photo_patches(), dtype)
    try:
        return read_inputs(name_or_file, preprocessing, dtype)
    except DatasetNotFound:
        names = (*dataset_names(), PHOTO_PATCHES)
        if str(name_or_file) in names or Path(name_or_file).suffix:
            raise
        hint = nearest(str(name_or_file), names)
        raise DatasetNotFound(
            f"there is no data set {str(name_or_file)!r} to hold against the run's; {hint} For a "
            "file of your own, give a path that ends in .csv, .parquet or .npz"
        ) from None


def photo_patches() -> Int[np.ndarray, "1000 1 8 8"]:
    """1000 gray patches of scikit-learn's two photos, in the format of its digits: (1, 8, 8),
    values 0..16.

    They lie on a grid, so that none overlap; of equal ones (of the sky) one is kept; the 1000 are
    chosen by key.
    """
    from sklearn.datasets import load_sample_images

    patches = []
    for photo in load_sample_images().images:
        gray = np.rint(photo @ np.array(_LUMINANCE) * (_LARGEST / 255)).astype(np.int64)
        rows, columns = gray.shape[0] // _SIDE, gray.shape[1] // _SIDE
        cut = gray[: rows * _SIDE, : columns * _SIDE].reshape(rows, _SIDE, columns, _SIDE)
        patches.append(cut.transpose(0, 2, 1, 3).reshape(-1, 1, _SIDE, _SIDE))
    every = np.unique(np.concatenate(patches), axis=0)
    return every[numpy_generator("data", PHOTO_PATCHES).permutation(len(every))[:_NUM_PATCHES]]
