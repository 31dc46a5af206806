"""The `data` section of a configuration."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from bnn_symm.settings import Fraction, NonNegativeInt, PositiveInt, settings


def _names(value: Any) -> Any:
    """Return a single name as the list of it."""
    return (value,) if isinstance(value, str) else value


@settings
class DataConfig:
    """Data set, target and split into train, validation and test.

    Attributes:
        name: name of a data set (`bnn-symm data list`), or path of a file that ends in .csv,
            .parquet or .npz (also .tsv, .tab, .txt, .data or .dat; text files also with .gz).
        target: column (CSV, Parquet) or array (NPZ) to predict.
        drop: columns of a table in a file to leave out, such as identifiers.
        task: type of the target; `auto` infers it from the values.
        test_fraction: fraction of all points in the test split; ignored by data sets with a fixed
            test split.
        validation_fraction: fraction of the remaining points in the validation split.
        split_seed: seed of the shuffle behind the split.
        standardize: scale features (and a regression target) to mean 0 and variance 1 over the
            training split.
        limit: number of points to keep for training and validation together; the test split is
            unaffected.
        gap_feature: test on the middle third of this feature and train on the outer two thirds
            (regression).
    """

    name: str = "digits"
    target: str | None = None
    drop: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    task: Literal["auto", "classification", "regression", "count"] = "auto"
    test_fraction: Fraction = 0.2
    validation_fraction: Fraction = 0.1
    split_seed: NonNegativeInt = 0
    standardize: bool = True
    limit: PositiveInt | None = None
    gap_feature: str | None = None
