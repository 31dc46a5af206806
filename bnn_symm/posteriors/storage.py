"""Posteriors on disk: NetCDF at the end, a log of draws (`draw_log`) while a sampler runs.

`posterior.nc` holds a group `posterior` with one variable a parameter, (chain, draw, *shape), a group `sample_stats`,
and for a closed form a group `variational` with `loc`, `scale` and what else says it, of the flat vector. It is written
chunk by chunk and renamed into place, from a posterior whose draws may lie in a log: never are all of them in memory.
NetCDF cannot be appended to safely, so a running sampler only adds files `draws/NNNNNN.npy` to a `DrawLog`; readers
accept both.
"""

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Scaling
from bnn_symm.errors import IncompatiblePosteriors, InvalidRun
from bnn_symm.io.atomic import write_atomically
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.closed_form import ClosedFormPosterior
from bnn_symm.posteriors.draw_log import DrawChunk, LoggedArray
from bnn_symm.posteriors.gaussian import GaussianPosterior
from bnn_symm.posteriors.low_rank import LowRankGaussianPosterior
from bnn_symm.posteriors.posterior import Posterior
from bnn_symm.posteriors.samples import SamplePosterior, check_shapes

POSTERIOR_SCHEMA = 1
_CLOSED_FORMS = {cls.kind: cls for cls in (GaussianPosterior, LowRankGaussianPosterior)}
# How many numbers are written at once: 32 MB in float64.
_NUMBERS_PER_WRITE = 2**22


def save_posterior(posterior: Posterior, path: Path, *, max_megabytes: float = 200.0) -> None:
    """Writes `posterior.nc` atomically.

    Draws of a closed form, which their seed regenerates, are cut to `max_megabytes`; a sampler's draws never are.
    """
    chains, draws, parameters = posterior.shape
    described = 0
    if isinstance(posterior, ClosedFormPosterior):
        described = sum(array.numel() for array in posterior.arrays().values())
        itemsize = posterior.loc.element_size()
        draws = min(draws, max(1, int(max_megabytes * 1e6 / (parameters * itemsize))))
    # Metadata of HDF5: a few kilobytes a variable. Draws and statistics: 8 bytes at most each.
    size = 2**16 + 2**13 * len(posterior.model.shapes) + 8 * (chains * draws * (parameters + 8) + described)

    def write(temporary: Path) -> None:
        _check_room(temporary, size)
        _write(posterior, temporary, chains, draws)

    write_atomically(path, write)


def _check_room(path: Path, size: int) -> None:
    """Raises OSError if the disk has no room for `size` bytes: HDF5 crashes the process when it finds out itself."""
    if hasattr(os, "posix_fallocate"):
        with path.open("wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # file systems that cannot say
                    raise


def _write(posterior: Posterior, path: Path, chains: int, draws: int) -> None:
    model = posterior.model
    dtype = np.dtype(str(model.dtype).removeprefix("torch."))
    with h5netcdf.File(path, "w") as file:
        file.attrs["bnn_symm_posterior_schema"] = POSTERIOR_SCHEMA
        file.attrs["kind"] = posterior.kind
        file.attrs["flat_order"] = json.dumps(list(model.shapes))
        if isinstance(posterior, ClosedFormPosterior):
            file.attrs["num_draws"] = posterior.num_draws
            file.attrs["draw_seed"] = str(posterior.seed)
            _write_variational(file, posterior)
        group = file.create_group("posterior")
        _chain_and_draw(group, chains, draws)
        variables = {}
        for name, shape in model.shapes.items():
            axes = [f"{name}_dim_{i}" for i in range(len(shape))]
            for axis, size in zip(axes, shape, strict=True):
                group.dimensions[axis] = size
            variables[name] = group.create_variable(name, ("chain", "draw", *axes), dtype)
        step = max(1, _NUMBERS_PER_WRITE // posterior.shape[2])
        for chain in range(chains):
            for start in range(0, draws, step):
                stop = min(draws, start + step)
                values = model.unflatten(posterior._read(chain, start, stop).detach().cpu())
                for name, value in values.items():
                    variables[name][chain, start:stop] = value.numpy()
        if isinstance(posterior, SamplePosterior) and posterior.sample_stats:
            stats = file.create_group("sample_stats")
            _chain_and_draw(stats, chains, draws)
            for name, value in posterior.sample_stats.items():
                stored = value.astype("i1") if value.dtype == bool else value
                variable = stats.create_variable(name, ("chain", "draw"), stored.dtype)
                variable[...] = stored
                if value.dtype == bool:
                    variable.attrs["dtype"] = "bool"  # xarray's own convention for booleans


def _write_variational(file: Any, posterior: ClosedFormPosterior) -> None:
    group = file.create_group("variational")
    group.dimensions["parameter"] = len(posterior.loc)
    for name, value in posterior.arrays().items():
        array = value.detach().cpu().numpy()
        axes = [f"{name}_dim_{i}" for i in range(array.ndim - 1)]
        for axis, size in zip(axes, array.shape, strict=False):
            group.dimensions[axis] = size
        group.create_variable(name, (*axes, "parameter"), array.dtype, data=array)


def _chain_and_draw(group: Any, chains: int, draws: int) -> None:
    for name, size in (("chain", chains), ("draw", draws)):
        group.dimensions[name] = size
        group.create_variable(name, (name,), "i8", data=np.arange(size))


class NetCDFPositions:
    """The draws of a `posterior.nc`, read when they are asked for."""

    def __init__(self, path: Path, model: BayesianModel, shape: tuple[int, int, int]):
        self._path = path
        self._model = model
        self._shape = shape
        self._file: Any = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter)."""
        return self._shape

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Reads draws [start, stop) of one chain from the file."""
        if self._file is None:
            self._file = h5netcdf.File(self._path, "r")
        group = self._file["posterior"]
        values = {name: torch.from_numpy(np.asarray(group[name][chain, start:stop])) for name in self._model.shapes}
        return self._model.flatten(values).to(self._model.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def load_posterior(
    path: str | Path,
    model: BayesianModel,
    scaling: Scaling,
    *,
    info: Mapping[str, Any] | None = None,
    history: list[dict[str, Any]] | None = None,
) -> Posterior:
    """Reads a `posterior.nc`; draws stay in the file until they are asked for.

    Raises:
        InvalidRun: if the file is missing, truncated, not one of ours, or of a newer schema.
        IncompatiblePosteriors: if its names or shapes are not the model's.
    """
    path = Path(path)
    try:
        with h5netcdf.File(path, "r") as file:
            return _read_open(file, path, model, scaling, info, history or [])
    except FileNotFoundError:
        raise InvalidRun(f"{path} does not exist; name a run directory that `bnn-symm fit` wrote") from None
    except (OSError, KeyError, ValueError) as error:
        raise InvalidRun(
            f"{path} is not a complete posterior ({error}); it is truncated or was made by other software"
        ) from error


def _read_open(
    file: Any,
    path: Path,
    model: BayesianModel,
    scaling: Scaling,
    info: Mapping[str, Any] | None,
    history: list[dict[str, Any]],
) -> Posterior:
    schema = int(file.attrs["bnn_symm_posterior_schema"])
    if schema > POSTERIOR_SCHEMA:
        raise InvalidRun(
            f"{path} has posterior schema {schema}, this version reads up to {POSTERIOR_SCHEMA}; upgrade bnn_symm"
        )
    group = file["posterior"]
    names = [name for name in group.variables if group[name].dimensions[:2] == ("chain", "draw")]
    check_shapes({name: tuple(group[name].shape[2:]) for name in names}, model)
    if file.attrs["kind"] in _CLOSED_FORMS:
        names_in_order = json.loads(file.attrs["flat_order"])
        if names_in_order != list(model.shapes):
            raise IncompatiblePosteriors(
                f"{path} has its parameters in the order {', '.join(names_in_order)}, the network has them in the "
                f"order {', '.join(model.shapes)}; build the network as it was when it was fitted"
            )
        variational = file["variational"].variables
        arrays = {name: torch.from_numpy(np.asarray(variable[...])) for name, variable in variational.items()}
        return _CLOSED_FORMS[file.attrs["kind"]](
            model,
            scaling,
            **{n: a.to(model.device, model.dtype) if a.is_floating_point() else a for n, a in arrays.items()},
            num_draws=int(file.attrs["num_draws"]),
            seed=int(file.attrs["draw_seed"]),
            info=info,
            history=history,
        )
    chains, draws = group.dimensions["chain"].size, group.dimensions["draw"].size
    stats = {}
    if "sample_stats" in file.groups:
        for name, variable in file["sample_stats"].variables.items():
            if name not in ("chain", "draw"):
                value = np.asarray(variable[...])
                stats[name] = value.astype(bool) if variable.attrs.get("dtype") == "bool" else value
    return SamplePosterior(
        model,
        scaling,
        positions=NetCDFPositions(path, model, (chains, draws, model.num_parameters)),
        sample_stats=stats,
        info=info,
        history=history,
    )


class StackedPositions:
    """The draws of several chains, each where it lies, in memory or in a `DrawLog`, all cut to the same number."""

    def __init__(self, chains: Sequence[np.ndarray | LoggedArray], length: int, dtype: torch.dtype):
        self._chains, self._length, self._dtype = chains, length, dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter)."""
        return len(self._chains), self._length, self._chains[0].shape[1]

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Draws [start, stop) of one chain: a view of those in memory, or read from the log."""
        return torch.from_numpy(np.asarray(self._chains[chain][start : min(stop, self._length)])).to(self._dtype)


def stack_chains(
    model: BayesianModel, scaling: Scaling, chains: Mapping[int, DrawChunk], **keywords: Any
) -> SamplePosterior:
    """A posterior from the draws of several chains; those in a `DrawLog` stay there, their statistics are read.

    Chains of unequal length (the sampler was interrupted) are cut to a rectangle: of all choices of the longest k
    chains, the one with the most draws.

    Raises:
        IncompatiblePosteriors: if there is no draw at all.
    """
    ordered = sorted(chains.values(), key=lambda chunk: (-len(chunk.positions), chunk.chain))
    if not ordered or len(ordered[0].positions) == 0:
        raise IncompatiblePosteriors("no draws were made yet")
    best = max(range(1, len(ordered) + 1), key=lambda k: k * len(ordered[k - 1].positions))
    length = len(ordered[best - 1].positions)
    kept = sorted(ordered[:best], key=lambda chunk: chunk.chain)
    positions = StackedPositions([chunk.positions for chunk in kept], length, model.dtype)
    stats = {name: np.stack([chunk.stats[name][:length] for chunk in kept]) for name in kept[0].stats}
    return SamplePosterior(model, scaling, positions=positions, sample_stats=stats, **keywords)
