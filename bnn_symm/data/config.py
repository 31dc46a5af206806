"""The `data` section of a configuration."""

from typing import Literal

from bnn_symm.settings import Fraction, NonNegativeInt, PositiveInt, settings


@settings
class DataConfig:
    """Which data, what is predicted from them, and how they are cut into train, validation and
    test.

    Args:
        name: a data set by name (`bnn-symm data list`), or a path that ends in .csv, .parquet or
            .npz (or in .tsv, .tab, .txt, .data or .dat, text also packed with .gz).
        target: the column (CSV, Parquet) or array (NPZ) to predict.
        task: what the target is; `auto` decides from its values.
        test_fraction: share of all points in the test part; sets with their own test part ignore
            it.
        validation_fraction: share of the remaining points in the validation part.
        split_seed: key of the shuffle behind the split.
        standardize: features (and a regression target) to mean 0 and variance 1 over the training
            part.
        limit: keep only this many points for training and validation together; the test part is
            untouched.
        gap_feature: test on the middle third of this feature and train on the outer two thirds
            (regression).
    """

    name: str = "digits"
    target: str | None = None
    task: Literal["auto", "classification", "regression", "count"] = "auto"
    test_fraction: Fraction = 0.2
    validation_fraction: Fraction = 0.1
    split_seed: NonNegativeInt = 0
    standardize: bool = True
    limit: PositiveInt | None = None
    gap_feature: str | None = None
