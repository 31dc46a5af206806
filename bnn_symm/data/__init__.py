"""Load data sets by name or from files, split and standardize them, and shift them.

In: a name, a path, a `DataConfig`, or a table or arrays in memory. Out: a `Dataset` of three splits
with its preprocessing. This layer does not depend on networks, and nothing is downloaded unless
`fetch` is called. Reading order: `config`, `registry`, `loaders`, `in_memory`, `raw`, `assemble`,
`task`, `preprocessing`, `splits`, `points`, `graph`, `dataset`, `summary`, `shifts`,
`out_of_distribution`.
"""

from bnn_symm.data.config import DataConfig
from bnn_symm.data.dataset import Dataset, Preprocessing, Provenance, Scaling, Split, Task
from bnn_symm.data.graph import Graph
from bnn_symm.data.loaders.fetch import fetch
from bnn_symm.data.out_of_distribution import OUT_OF_DISTRIBUTION, out_of_distribution_inputs
from bnn_symm.data.registry import (
    DatasetInfo,
    dataset_names,
    fold_numbers,
    list_datasets,
    load_dataset,
    load_points,
    read_inputs,
    read_inputs_and_exposure,
)
from bnn_symm.data.shifts import SHIFTS, Shift, parse_shift, shift

__all__ = [
    "OUT_OF_DISTRIBUTION",
    "SHIFTS",
    "DataConfig",
    "Dataset",
    "DatasetInfo",
    "Graph",
    "Preprocessing",
    "Provenance",
    "Scaling",
    "Shift",
    "Split",
    "Task",
    "dataset_names",
    "fetch",
    "fold_numbers",
    "list_datasets",
    "load_dataset",
    "load_points",
    "out_of_distribution_inputs",
    "parse_shift",
    "read_inputs",
    "read_inputs_and_exposure",
    "shift",
]
