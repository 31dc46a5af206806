"""Data sets as the later layers use them: three splits and their preprocessing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bnn_symm.data.config import data_config
from bnn_symm.data.disk import stacked_points, stored_points
from bnn_symm.data.graph import Graph
from bnn_symm.data.in_memory import arrays_dataset, frame_dataset, graph_dataset
from bnn_symm.data.points import Provenance, Split
from bnn_symm.data.preprocessing.labels import Label
from bnn_symm.data.preprocessing.preprocessing import Preprocessing
from bnn_symm.data.preprocessing.scaling import Scaling
from bnn_symm.data.raw import Task
from bnn_symm.summaries import Summarized

__all__ = ["Dataset", "Preprocessing", "Provenance", "Scaling", "Split", "Task"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Dataset(Summarized):
    """Training, validation and test splits of one task.

    Args:
        name: name or path that was requested.
        task: type of the target.
        train: split to fit.
        validation: split for early stopping, tuning and progress; empty at `validation_fraction:
            0`.
        test: split for the final metrics only; empty at `test_fraction: 0`.
        num_outputs: number of classes, or of target columns.
        preprocessing: encoding of raw data as features.
        provenance: origin of the data.
        summary: one line with the task and its reason, rows, features and encoded columns.
        graph: the graph whose nodes are the points; None for other data. The inputs of a split
            are numbers of nodes, (point, 1).
        notes: sentences about unexpected properties of the data.
    """

    name: str
    task: Task
    train: Split
    validation: Split
    test: Split
    num_outputs: int
    preprocessing: Preprocessing
    provenance: Provenance
    graph: Graph | None = None
    summary: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        target: str | Sequence[str],
        *,
        dtype: torch.dtype = torch.float32,
        **keys: Any,
    ) -> "Dataset":
        """Return the data set of a table of pandas or polars, split and standardized.

        Args:
            frame: table with features and target.
            target: name of the target, or names of several columns of numbers.
            dtype: floating-point type of the features and of a numeric target.
            **keys: further keys of `DataConfig`, such as `drop=["id"]`, `test_fraction=0.1` and
                `group="patient"`.

        Raises:
            ConfigError: if it is no table, or a key is not valid.
            InvalidData: as `load_dataset` does.

        Example:
            >>> import pandas as pd
            >>> table = pd.DataFrame({"size": [50.0, 81.5, 120.0] * 9, "price": [1, 2, 4] * 9})
            >>> data = Dataset.from_frame(table, "price", task="regression")
            >>> len(data.train), data.feature_names
            (20, ('size',))
        """
        config = data_config("a table in memory", {"target": target, **keys})
        return frame_dataset(cls, frame, config, dtype)

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        *,
        weight: Any = None,
        event: Any = None,
        exposure: Any = None,
        group: Any = None,
        time: Any = None,
        dtype: torch.dtype = torch.float32,
        **keys: Any,
    ) -> "Dataset":
        """Return the data set of arrays or tensors, split and standardized.

        Args:
            x: numbers (point, feature), (point, channel, height, width) or (point, time, feature),
                or tokens (point, time) with `layout="tokens"`. Without `layout`, (point,) is one
                feature, and three axes are gray images if height and width are equal or the values
                are bytes, and sequences otherwise.
            y: labels or numbers (point,), or numbers (point, column) of several targets.
            weight: weights (point,): a point of weight w counts as w points; None for one each.
            event: whether the event was seen at each time of y (point,), or the time is censored.
            exposure: exposures (point,) of counts y, such as years at risk.
            group: groups (point,), such as patients, whose points stay together; None for none.
            time: numbers or times (point,) by which points are split; None for none.
            dtype: floating-point type of the features and of a numeric target.
            **keys: further keys of `DataConfig`, such as `task="count"` and `layout="sequence"`.

        Raises:
            ConfigError: if a key is not valid.
            InvalidData: if shapes, types or values do not fit.

        Example:
            >>> x = torch.linspace(0, 1, 50)
            >>> Dataset.from_arrays(x, x.sin()).task
            'regression'
        """
        config = data_config("arrays in memory", keys)
        points = {"weight": weight, "event": event, "exposure": exposure}
        return arrays_dataset(cls, x, y, config, dtype, points, {"group": group, "time": time})

    @classmethod
    def from_graph(
        cls,
        x: Any,
        y: Any,
        edges: Any,
        *,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        dtype: torch.dtype = torch.float32,
        **keys: Any,
    ) -> "Dataset":
        """Return the data set whose points are the nodes of one graph, for `architecture.name=gnn`.

        Args:
            x: features (node, feature) of all nodes.
            y: labels or numbers (node,); -1, NaN or an empty text for a node without a label.
            edges: numbers of nodes (2, edge); one direction of each edge is enough.
            train: mask (node,), or numbers of nodes, of the training split; None for random splits.
            validation: likewise of the validation split; None takes it from the training split.
            test: likewise of the test split.
            dtype: floating-point type of the features and of a numeric target.
            **keys: further keys of `DataConfig`, such as `standardize=False`.

        Raises:
            ConfigError: if a key is not valid.
            InvalidData: if shapes, types or values do not fit.

        Example:
            >>> ring = torch.stack([torch.arange(20), torch.arange(1, 21) % 20])
            >>> data = Dataset.from_graph(torch.randn(20, 3), torch.arange(20) % 2, ring)
            >>> data.graph, data.train.x.shape
            (Graph(nodes=20, edges=20, features=3), torch.Size([14, 1]))
        """
        arrays = {"x": x, "y": y, "edges": edges}
        arrays |= {"train": train, "validation": validation, "test": test}
        return graph_dataset(cls, arrays, data_config("a graph in memory", keys), dtype)

    @classmethod
    def from_torch(
        cls,
        points: Any,
        *,
        directory: str | Path | None = None,
        dtype: torch.dtype = torch.float32,
        **keys: Any,
    ) -> "Dataset":
        """Return the data set of a map-style data set or a `DataLoader` of torch, read once.

        Random augmentation in it is frozen, so that each point has one input.

        Args:
            points: `points[i]` is the input and the target of point i; or batches of such pairs.
            directory: an empty directory for data that do not fit into memory: the inputs are
                stored there, as read and standardized, and read from there as they are needed.
                Methods with minibatches then need the memory of a minibatch.
            dtype: floating-point type of the features and of a numeric target.
            **keys: as for `from_arrays`, without weights, groups and times.

        Raises:
            ConfigError: if it has no length, its points are not pairs, or the directory is not
                empty or cannot be written.
            InvalidData: if shapes, types or values do not fit.

        Example:
            >>> from torch.utils.data import TensorDataset
            >>> points = TensorDataset(torch.randn(50, 3), torch.arange(50) % 2)
            >>> len(Dataset.from_torch(points).train)
            36
        """
        where = None if directory is None else Path(directory)
        x, y = stacked_points(points) if where is None else stored_points(points, where)
        config = data_config("a data set of torch", keys)
        return arrays_dataset(cls, x, y, config, dtype, {}, {}, where)

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {
            "name": self.name,
            "task": self.task,
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
            "input_shape": self.input_shape,
            "num_outputs": self.num_outputs,
        }

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the features of one point."""
        return self.preprocessing.input_shape

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Return the names of the encoded features, flattened."""
        return self.preprocessing.feature_names

    @property
    def class_labels(self) -> tuple[Label, ...]:
        """Return the labels in the order of the class indices.

        Empty unless the task is classification.
        """
        return self.preprocessing.class_labels

    @property
    def scaling(self) -> Scaling:
        """Return the standardization of features and target."""
        return self.preprocessing.scaling

    def column(self, number: int) -> "Dataset":
        """Return the data set with one of several target columns; itself if there is one.

        Args:
            number: number of the column.
        """
        if not self.scaling.y_columns:
            return self
        column = self.preprocessing.target_columns[number]
        preprocessing = replace(
            self.preprocessing,
            target=column.name,
            target_notation=column.notation,
            target_columns=(),
            scaling=self.scaling.columns[number],
        )
        parts = {
            name: getattr(self, name).column(number) for name in ("train", "validation", "test")
        }
        return replace(self, num_outputs=1, preprocessing=preprocessing, **parts)

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Dataset":
        """Return the data set with its splits on a device and in a floating-point type.

        Args:
            device: device of the result; None keeps it.
            dtype: type of floating-point tensors; class indices stay int64.
        """
        parts = {
            name: getattr(self, name).to(device, dtype) for name in ("train", "validation", "test")
        }
        graph = None if self.graph is None else self.graph.to(device, dtype)
        return replace(self, graph=graph, **parts)
