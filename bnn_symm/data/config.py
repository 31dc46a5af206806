"""The `data` section of a configuration."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from bnn_symm.data.preprocessing.labels import Label
from bnn_symm.errors import ConfigError, nearest, one_line
from bnn_symm.settings import Fraction, NonNegativeInt, PositiveInt, settings

Layout = Literal["auto", "features", "image", "sequence", "tokens", "graph"]
"""What the axes of one point of an array are; see `layouts`."""

_TYPES = ("number", "category", "boolean", "date", "text")


def _targets(value: Any) -> Any:
    """Return a list of one target as its name.

    Raises:
        ValueError: if a list is empty or has a name twice.
    """
    if not isinstance(value, list | tuple):
        return value
    if not value or len(set(value)) < len(value):
        raise ValueError("names of distinct columns, such as [a, b]")
    return value[0] if len(value) == 1 else tuple(value)


def _names(value: Any) -> Any:
    """Return a single name as the list of it."""
    return (value,) if isinstance(value, str) else value


class _ColumnTypes(dict[str, str]):
    """Declared types of columns, which make no configuration unhashable; they never change."""

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(frozenset(self.items()))


def _known_types(types: dict[str, str]) -> _ColumnTypes:
    """Return the declared types of columns, all of which exist.

    Raises:
        ValueError: naming the first other type.
    """
    for column, kind in types.items():
        if kind not in _TYPES and "%" not in kind:
            raise ValueError(
                f"{column}: got {kind!r}, expected {', '.join(_TYPES)}, or a format of dates such "
                "as '%d/%m/%Y'"
            )
    return _ColumnTypes(types)


def _fold(value: Any) -> Any:
    """Return the number of a fold; all of them are for studies."""
    if value == "all":
        raise ValueError(
            "expected one number; to fit all folds, run a study with study.vary={data.fold: all}"
        )
    return value


def _distinct(levels: tuple[Label, ...]) -> tuple[Label, ...]:
    """Return the class labels, of which there are at least two, and none twice.

    Raises:
        ValueError: naming the first that is repeated, or if there are too few.
    """
    repeated = next((str(own) for i, own in enumerate(levels) if own in levels[:i]), None)
    if repeated is not None:
        raise ValueError(f"expected every class once, and {repeated} is there twice")
    if len(levels) < 2:
        raise ValueError("expected two or more classes, such as [low, medium, high]")
    return levels


@settings
class DataConfig:
    """Data set, target and split into train, validation and test.

    Attributes:
        name: name of a data set (`bnn-symm data list`), or path of a file that ends in .csv,
            .parquet or .npz (also .tsv, .tab, .txt, .data or .dat; text files also with .gz).
        target: column (CSV, Parquet) or array (NPZ) to predict; several columns of numbers are
            predicted together: `[a, b]`.
        drop: columns of a table in a file to leave out, such as identifiers.
        features: columns of a table to use; all others but the target are left out.
        types: column -> type, where the inferred one is not meant: `number`, `category`, `boolean`,
            `date`, a format of dates such as `%d/%m/%Y`, or `text`, whose words are hashed.
        decimal: decimal mark of numbers in text; `auto` infers it for each column.
        delimiter: character between the fields of a text file; default: found from the first rows.
        missing: `impute`: a missing number or date is the median of the training split, with a
            feature that says so, and a missing category is a category; `error`: none may be
            missing.
        unseen: a category or a missing value of later data, in a column whose training data have
            none such: `error`, or `ignore`: the category is none of the known ones, and the value
            is the median.
        layout: axes of the points of an array: `features`, `image`, `sequence` (time, feature), or
            `tokens`, integers that a network embeds, which are not standardized. `graph`: the
            points are the nodes of a graph. `auto`: a graph if an NPZ file has an array `edges`;
            otherwise by the number of axes: three are gray images if height and width are equal or
            the values are bytes, and sequences otherwise.
        num_neighbors: number of nearest neighbors to which each node has an edge (`digits_graph`);
            default 5.
        weight: column (array of an NPZ file) of weights: a point of weight w counts as w points in
            the fit, in standardization and in scores. It is no feature. Weights are not normalized,
            so their sum is the number of observations that the posterior sees.
        normalize_weights: divide the weights by their mean over the training split, so that the
            posterior sees as many observations as there are training points.
        class_weights: `balanced`: in the fit, points are also weighted by their class, so that all
            classes have one total weight in the training split, whose sum is unchanged.
        event: column (array of an NPZ file) that says whether the event was seen at the time that
            is the target (1 or true), or the time is censored (0 or false): the event comes later.
            The task is `survival` then.
        exposure: column (array of an NPZ file) of exposures of counts, such as years at risk: the
            rate of a point is its exposure times what the network predicts. The task is `count`
            then.
        task: type of the target; `auto` infers it from the values.
        levels: class labels of the target from lowest to highest, such as [low, medium, high], for
            likelihood.name=ordinal; default: sorted, texts by the alphabet.
        group: column of a table (array of an NPZ file) whose groups stay together: rows of one
            group, such as one patient, never lie in two splits. It is no feature unless
            `data.features` lists it.
        time: column of a table (array of an NPZ file) by which points are split: training before
            validation before test, rows of one time together. It remains a feature, unless
            `data.drop` lists it.
        test_file: file of the test split, with the columns of the file `data.name`, by which it is
            encoded.
        validation_file: file of the validation split, likewise.
        fold: number of the fold that is the test split, from 0; for a UCI set, number of its split.
        num_folds: number of folds (default 5); a UCI set has its own.
        test_fraction: fraction of all points in the test split; ignored by data sets with a fixed
            test split.
        validation_fraction: fraction of the remaining points in the validation split; ignored by
            data with a fixed validation split.
        split_seed: seed of the shuffle behind the split.
        standardize: scale features (and a regression target) to mean 0 and variance 1 over the
            training split.
        limit: number of points to keep for training and validation together; the test split is
            unaffected.
        gap_feature: test on the middle third of this feature and train on the outer two thirds
            (regression).
    """

    name: str = "digits"
    target: Annotated[str | tuple[str, ...] | None, BeforeValidator(_targets)] = None
    drop: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    features: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = None
    types: Annotated[dict[str, str], AfterValidator(_known_types)] = _ColumnTypes()
    decimal: Literal["auto", "point", "comma"] = "auto"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    missing: Literal["impute", "error"] = "impute"
    unseen: Literal["error", "ignore"] = "error"
    layout: Layout = "auto"
    num_neighbors: PositiveInt | None = None
    weight: str | None = None
    normalize_weights: bool = False
    class_weights: Literal["balanced"] | None = None
    event: str | None = None
    exposure: str | None = None
    task: Literal["auto", "classification", "regression", "count", "survival"] = "auto"
    levels: Annotated[tuple[Label, ...], AfterValidator(_distinct)] | None = None
    group: str | None = None
    time: str | None = None
    test_file: str | None = None
    validation_file: str | None = None
    fold: Annotated[NonNegativeInt | None, BeforeValidator(_fold)] = None
    num_folds: Annotated[PositiveInt, Field(ge=2)] | None = None
    test_fraction: Fraction = 0.2
    validation_fraction: Fraction = 0.1
    split_seed: NonNegativeInt = 0
    standardize: bool = True
    limit: PositiveInt | None = None
    gap_feature: str | None = None


def data_config(source: Any, keys: dict[str, Any]) -> DataConfig:
    """Return the configuration that a name, a path or a configuration stands for.

    Args:
        source: name of a data set, path of a file, or a configuration.
        keys: further keys.

    Raises:
        ConfigError: if a key or a value is not valid.
    """
    if not isinstance(source, str | Path | DataConfig):
        raise ConfigError(
            f"got {kind_of(source)}, expected the name of a data set, the path of a file, or a "
            "DataConfig; for data in memory use Dataset.from_frame or Dataset.from_arrays"
        )
    known = [field.name for field in fields(DataConfig)]
    for key in keys:
        if key not in known:
            raise ConfigError(
                f"unknown key {one_line(repr(key), 42)} of data; {nearest(key, known)}"
            )
    try:
        if isinstance(source, DataConfig):
            return replace(source, **keys)
        return DataConfig(**{"name": str(source), **keys})
    except ConfigError as error:
        raise ConfigError(f"data.{str(error).removeprefix('DataConfig: ')}") from None


def kind_of(value: Any) -> str:
    """Return the type of a value as error messages name it.

    Args:
        value: any value.
    """
    return f"an object of type {type(value).__module__.partition('.')[0]}.{type(value).__name__}"
