"""Out-of-distribution inputs: data that a network was not fitted to, in the shape of its inputs.

Pairs of data sets with points of the same shape, and the AUROC of the maximum softmax probability
of a plain multilayer perceptron fitted to the first (approximate):

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
"""Data set -> its out-of-distribution sets."""

PHOTO_PATCHES = "photo_patches"

# Side of a patch and largest value, equal to those of the digits.
_SIDE, _LARGEST = 8, 16
_NUM_PATCHES = 1000
# Weights of red, green and blue in the luminance of ITU-R BT.601.
_LUMINANCE = (0.299, 0.587, 0.114)


def out_of_distribution_inputs(
    name_or_file: str | Path, preprocessing: Preprocessing, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "point *feature"]:
    """Return inputs of another origin, encoded by the given preprocessing.

    A target of these data is not read.

    Args:
        name_or_file: `photo_patches`, the name of a data set (its test split), or a file (all its
            rows).
        preprocessing: preprocessing of the data that a network was fitted to.
        dtype: floating-point type of the result.

    Raises:
        DatasetNotFound: if the name is unknown, or the data are not on this machine.
        InvalidData: if the columns or the shape differ from those of the network's inputs.
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
            f"got {str(name_or_file)!r}, which is no data set; give a name, or a path that ends in "
            f".csv, .parquet or .npz; {hint}"
        ) from None


def photo_patches() -> Int[np.ndarray, "1000 1 8 8"]:
    """Return 1000 gray patches of scikit-learn's two photos in the format of its digits.

    Patches have shape (1, 8, 8) and values 0..16. They lie on a grid without overlap. Duplicates
    (of the sky) are removed, and 1000 patches are chosen by key.
    """
    from sklearn.datasets import load_sample_images

    patches = []
    for photo in load_sample_images().images:
        gray = np.rint(photo @ np.array(_LUMINANCE) * (_LARGEST / 255)).astype(np.int64)
        rows, columns = gray.shape[0] // _SIDE, gray.shape[1] // _SIDE
        cut = gray[: rows * _SIDE, : columns * _SIDE].reshape(rows, _SIDE, columns, _SIDE)
        patches.append(cut.transpose(0, 2, 1, 3).reshape(-1, 1, _SIDE, _SIDE))
    distinct = np.unique(np.concatenate(patches), axis=0)
    return distinct[
        numpy_generator("data", PHOTO_PATCHES).permutation(len(distinct))[:_NUM_PATCHES]
    ]
