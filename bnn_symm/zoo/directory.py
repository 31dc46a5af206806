"""Load the directory of a zoo.

    config.yaml         the resolved configuration, with the section `zoo`
    zoo.json            status, symmetry group of the network, quantiles of the scores
    networks/*.npz      batches of networks, while the zoo is trained
    networks.npz        weights, hyper-parameters and scores of all networks

`networks.npz` has `weights` (network, parameter), the flat vectors of the model, and
`hyperparameter.<name>` and `score.<name>`, (network,).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.architectures import fingerprint, short_fingerprint
from bnn_symm.architectures.config import GNNConfig
from bnn_symm.arguments import checked
from bnn_symm.data import load_dataset
from bnn_symm.data.loaders.npz import read_npz_arrays
from bnn_symm.errors import InvalidRun, shell_words
from bnn_symm.io.atomic import write_atomically
from bnn_symm.models import BayesianModel
from bnn_symm.runs.directory.code_record import check_code, code_record
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import build_model, with_available_device, with_code
from bnn_symm.summaries import Summarized
from bnn_symm.symmetry import SymmetryGroup, symmetry_group
from bnn_symm.zoo.config import ZooPlan, load_zoo_plan
from bnn_symm.zoo.scores import BARRIER

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Zoo(Summarized):
    """A trained zoo.

    Attributes:
        path: its directory.
        model: prior, likelihood and network.
        kind: the kind of the architecture's symmetry settings.
        input_shape: shape of a point.
        weights: the flat vectors of the model.
        hyperparameters: name -> value of each network.
        scores: name -> score of each network on the test split, and its `barrier`.
    """

    path: Path
    model: BayesianModel
    kind: str
    input_shape: tuple[int, ...]
    weights: Float[Tensor, "network parameter"]
    hyperparameters: Mapping[str, Float[np.ndarray, " network"]]
    scores: Mapping[str, Float[np.ndarray, " network"]]

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        networks, parameters = self.weights.shape
        return {"networks": networks, "parameters": parameters, "kind": self.kind}

    @cached_property
    def group(self) -> SymmetryGroup:
        """Return the symmetry group of the network."""
        return symmetry_group(self.model.net, input_shape=self.input_shape)


@checked
def load_zoo(path: str | Path, *, module: str | Sequence[str] | None = None) -> Zoo:
    """Load a trained zoo.

    Args:
        path: its directory.
        module: code of the user that the configuration names, which has to be given again.

    Raises:
        InvalidRun: if it is not a complete zoo, or was changed.
    """
    path = Path(path)
    content, plan = read_zoo(path, module)
    if content["status"] != "complete":
        command = f"bnn-symm {shell_words('zoo', 'train', '--resume', path)}"
        raise InvalidRun(
            f"{path} is not complete (status: {content['status']}); train what is missing with "
            f"{advise(command, 'resume_zoo')}"
        )
    config, shape = with_available_device(plan.base), tuple(content["input_shape"])
    is_graph = isinstance(config.architecture, GNNConfig)
    graph = load_dataset(config.data).graph if is_graph else None
    model = build_model(config, shape, content["num_outputs"], graph=graph)
    check_code(path, content["run"].get("code"), code_record(config, model))
    now, trained = fingerprint(model.net), content["symmetry"]["fingerprint"]
    if now != trained:
        raise InvalidRun(
            f"{path / 'config.yaml'} has the mask fingerprint {short_fingerprint(now)}, zoo.json "
            f"has {short_fingerprint(trained)}: one of them was changed; restore it, or train again"
        )
    arrays = read_arrays(path / "networks.npz")
    if arrays["weights"].shape[1:] != (model.num_parameters,):
        raise InvalidRun(
            f"{path / 'networks.npz'} has weights of shape {arrays['weights'].shape}, expected "
            f"{model.num_parameters} for each network; restore the original file"
        )
    return Zoo(
        path=path,
        model=model,
        kind=config.architecture.symmetry.kind,
        input_shape=shape,
        weights=torch.from_numpy(arrays["weights"]).to(model.device),
        hyperparameters=_named(arrays, "hyperparameter."),
        scores=_named(arrays, "score."),
    )


def read_zoo(path: Path, module: str | Sequence[str] | None) -> tuple[dict[str, Any], ZooPlan]:
    """Return the content of `zoo.json` and the configuration of a zoo.

    Args:
        path: its directory.
        module: code of the user that the configuration names.

    Raises:
        InvalidRun: if it is not a zoo.
    """
    if not (path / "zoo.json").exists() or not (path / "config.yaml").exists():
        raise InvalidRun(
            f"{path} is not a zoo; name a directory that "
            f"{advise('`bnn-symm zoo train`', 'create_zoo')} wrote"
        )
    content = RunDirectory.read_json(path / "zoo.json")
    plan = load_zoo_plan(path / "config.yaml")
    return content, replace(plan, base=with_code(plan.base, module))


def stored_batches(path: Path) -> dict[int, Arrays]:
    """Return the networks on the disk, by the number of the first of each file.

    Args:
        path: directory of the zoo, complete or not.
    """
    batches: dict[int, Arrays] = {}
    if (path / "networks.npz").exists():
        arrays = read_arrays(path / "networks.npz")
        batches[0] = {n: own for n, own in arrays.items() if n != f"score.{BARRIER}"}
    for file in sorted((path / "networks").glob("[0-9]*.npz")):
        if int(file.stem) >= len(batches.get(0, {"weights": ()})["weights"]):
            batches[int(file.stem)] = read_arrays(file)
    return batches


def read_arrays(path: Path) -> Arrays:
    """Return the arrays of a file of networks.

    Args:
        path: of the file.

    Raises:
        InvalidRun: if it is missing, or has no networks.
    """
    try:
        arrays = read_npz_arrays(path)
    except FileNotFoundError:
        raise InvalidRun(f"{path} is missing; restore the original file") from None
    lengths = {len(own) for own in arrays.values() if own.ndim}
    if "weights" not in arrays or arrays["weights"].ndim != 2 or len(lengths) != 1:
        raise InvalidRun(f"{path} is no file of networks; restore the original file")
    return arrays


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write a file of networks.

    Args:
        path: of the file.
        arrays: name -> one row or number for each network.
    """
    write_atomically(path, partial(_save, arrays=arrays))


def _save(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


def _named(arrays: Arrays, prefix: str) -> Arrays:
    return {n.removeprefix(prefix): own for n, own in arrays.items() if n.startswith(prefix)}
