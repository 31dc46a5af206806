"""Store posteriors as NetCDF files.

`posterior.nc` holds a group `posterior` with one variable per parameter, (chain, draw, *shape), a
group `sample_stats`, and for a closed form a group `variational` with the arrays that describe it,
such as `loc` and `scale`, of the flat vector. A group `linearization` has the mode of a posterior
that predicts by a linearized network. It is written chunk by chunk and renamed into place. The
draws may be stored in a log and are never all in memory. NetCDF files cannot be appended to
safely, so a running sampler adds files `draws/NNNNNN.npy` to a `DrawLog` instead; readers accept
both.
"""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.arguments import checked
from bnn_symm.data import Scaling
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, InvalidRun, one_line
from bnn_symm.io.atomic import write_atomically
from bnn_symm.io.boundary import parser_errors
from bnn_symm.io.documents import parse_json
from bnn_symm.io.hdf5 import (
    integer_attribute,
    is_numeric,
    open_hdf5,
    open_netcdf,
    read_numbers,
    text_attribute,
)
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.gaussian import GaussianPosterior
from bnn_symm.posteriors.gaussian_family import ClosedFormPosterior
from bnn_symm.posteriors.lazy_draws import LazyDraws
from bnn_symm.posteriors.linearized import LinearizedPosterior
from bnn_symm.posteriors.low_rank import LowRankGaussianPosterior
from bnn_symm.posteriors.posterior import Posterior
from bnn_symm.posteriors.samples import SamplePosterior, check_shapes

POSTERIOR_SCHEMA = 2
# Version 2 has the mode of a linearized posterior. Other files have version 1, which versions of
# this package that cannot linearize can read.
_SCHEMA_WITHOUT_MODE = 1
_CLOSED_FORMS = {cls.kind: cls for cls in (GaussianPosterior, LowRankGaussianPosterior)}
_ADVICE = "it is damaged, or changed while it was read; load the run again"
# Values per write: 32 MB in float64.
_NUMBERS_PER_WRITE = 2**22


@checked
def save_posterior(posterior: Posterior, path: str | Path, *, max_megabytes: float = 200.0) -> None:
    """Write a posterior to a NetCDF file that `arviz.from_netcdf` opens.

    The file appears under its name once it is complete.

    Args:
        posterior: the posterior, of draws or in closed form.
        path: name of the file.
        max_megabytes: limit for the draws of a closed form, which their seed regenerates; the draws
            of a sampler are always written in full.

    Raises:
        ConfigError: if the posterior is of a kind that has no file format, such as one with
            temperature scaling.

    Example:
        >>> import os, tempfile, torch, bnn_symm
        >>> likelihood = bnn_symm.likelihoods.Gaussian(noise=0.1)
        >>> model = bnn_symm.BayesianModel(torch.nn.Linear(2, 1), bnn_symm.Prior(), likelihood)
        >>> posterior = bnn_symm.SamplePosterior.from_draws(model, torch.zeros(2, 5, 3))
        >>> path = os.path.join(tempfile.mkdtemp(), "posterior.nc")
        >>> bnn_symm.save_posterior(posterior, path)
    """
    mode = None
    if isinstance(posterior, LinearizedPosterior):
        posterior, mode = posterior.base, posterior.mode
    if not isinstance(posterior, ClosedFormPosterior | SamplePosterior):
        raise ConfigError(
            f"posterior: got a {type(posterior).__name__}, which has no file format; save the "
            "posterior that it is based on, and its settings beside it"
        )
    chains, draws, parameters = posterior.shape
    num_described = 0
    if isinstance(posterior, ClosedFormPosterior):
        num_described = sum(array.numel() for array in posterior.arrays().values())
        itemsize = posterior.loc.element_size()
        draws = min(draws, max(1, int(max_megabytes * 1e6 / (parameters * itemsize))))
    # Metadata of HDF5: a few kilobytes a variable. Draws and statistics: 8 bytes at most each.
    size = (
        2**16
        + 2**13 * len(posterior.model.shapes)
        + 8 * (chains * draws * (parameters + 8) + num_described + parameters)
    )

    def write(temporary: Path) -> None:
        _check_room(temporary, size)
        _write(posterior, mode, temporary, chains, draws)

    write_atomically(Path(path), write)


def _check_room(path: Path, size: int) -> None:
    """Raise OSError if the disk lacks room for `size` bytes; HDF5 would crash the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                # Some file systems do not support the request.
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise


def _write(posterior: Posterior, mode: Tensor | None, path: Path, chains: int, draws: int) -> None:
    model = posterior.model
    dtype = np.dtype(str(model.dtype).removeprefix("torch."))
    with h5netcdf.File(path, "w") as file:
        file.attrs["bnn_symm_posterior_schema"] = (
            _SCHEMA_WITHOUT_MODE if mode is None else POSTERIOR_SCHEMA
        )
        file.attrs["kind"] = posterior.kind
        file.attrs["flat_order"] = json.dumps(list(model.shapes))
        if isinstance(posterior, ClosedFormPosterior):
            file.attrs["num_draws"] = posterior.num_draws
            file.attrs["draw_seed"] = str(posterior.seed)
            _write_variational(file, posterior)
        if mode is not None:
            linearization = file.create_group("linearization")
            linearization.dimensions["parameter"] = len(mode)
            values = mode.detach().cpu().numpy()
            linearization.create_variable("mode", ("parameter",), values.dtype, data=values)
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
                values = model.unflatten(posterior.read(chain, start, stop).detach().cpu())
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


class _NetCDFReader:
    """Read the draws of a `posterior.nc` on demand; the file is opened once."""

    def __init__(self, path: Path, model: BayesianModel):
        self._path, self._model = path, model
        self._file: Any = None

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Read draws [start, stop) of one chain from the file."""
        if self._file is None:
            self._file = open_hdf5(self._path, problem="is not a complete posterior")
        with parser_errors(self._path, _ADVICE):
            group = self._file["posterior"]
            values = {
                name: torch.from_numpy(_native(np.asarray(group[name][chain, start:stop])))
                for name in self._model.shapes
            }
            return self._model.flatten(values).to(self._model.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


@checked
def load_posterior(
    path: str | Path,
    model: BayesianModel,
    scaling: Scaling,
    *,
    info: Mapping[str, Any] | None = None,
    history: list[dict[str, Any]] | None = None,
) -> Posterior:
    """Read a `posterior.nc`; draws stay in the file until they are used.

    Args:
        path: name of the file.
        model: the model of the posterior.
        scaling: of the targets.
        info: provenance; default none.
        history: one row per logged step; default none.

    Returns:
        The posterior.

    Raises:
        InvalidRun: if the file is missing, truncated, of another format, or of a newer schema.
        IncompatiblePosteriors: if its names or shapes are not the model's.

    Example:
        >>> import os, tempfile, torch, bnn_symm
        >>> likelihood = bnn_symm.likelihoods.Gaussian(noise=0.1)
        >>> model = bnn_symm.BayesianModel(torch.nn.Linear(2, 1), bnn_symm.Prior(), likelihood)
        >>> posterior = bnn_symm.SamplePosterior.from_draws(model, torch.zeros(2, 5, 3))
        >>> path = os.path.join(tempfile.mkdtemp(), "posterior.nc")
        >>> bnn_symm.save_posterior(posterior, path)
        >>> bnn_symm.load_posterior(path, model, posterior.scaling).shape
        (2, 5, 3)
    """
    path = Path(path)
    try:
        with open_netcdf(path, problem="is not a complete posterior") as file:
            return _read_open(file, path, model, scaling, info, history or [])
    except FileNotFoundError:
        raise InvalidRun(
            f"{path} does not exist; name a run directory that "
            f"{advise('`bnn-symm fit`', 'fit_run')} wrote"
        ) from None


def _read_open(
    file: Any,
    path: Path,
    model: BayesianModel,
    scaling: Scaling,
    info: Mapping[str, Any] | None,
    history: list[dict[str, Any]],
) -> Posterior:
    schema = integer_attribute(file.attrs, "bnn_symm_posterior_schema")
    if schema > POSTERIOR_SCHEMA:
        raise InvalidRun(
            f"{path} has posterior schema {schema}, this version reads up to {POSTERIOR_SCHEMA}; "
            "upgrade bnn_symm"
        )
    kind, group = text_attribute(file.attrs, "kind"), file["posterior"]
    names = [name for name in group.variables if group[name].dimensions[:2] == ("chain", "draw")]
    check_shapes({name: tuple(group[name].shape[2:]) for name in names}, model)
    shape = _chains_and_draws(group, model)
    posterior = _without_mode(file, kind, path, shape, model, scaling, info, history)
    if "linearization" not in file.groups:
        return posterior
    _check_order(file, path, model)
    mode = torch.from_numpy(read_numbers(file["linearization"]["mode"], "mode"))
    if mode.shape != (model.num_parameters,) or not mode.is_floating_point():
        raise ValueError(
            f"mode has shape {tuple(mode.shape)} and type {mode.dtype}, expected "
            f"{model.num_parameters} floats"
        )
    return LinearizedPosterior(posterior, mode.to(model.device, model.dtype))


def _without_mode(
    file: Any,
    kind: str,
    path: Path,
    shape: tuple[int, int],
    model: BayesianModel,
    scaling: Scaling,
    info: Mapping[str, Any] | None,
    history: list[dict[str, Any]],
) -> Posterior:
    if kind in _CLOSED_FORMS:
        return _closed_form(file, kind, path, model, scaling, info=info, history=history)
    stats = {}
    if "sample_stats" in file.groups:
        for name, variable in file["sample_stats"].variables.items():
            if name not in ("chain", "draw"):
                stats[name] = _statistic(variable, name, shape)
    return SamplePosterior(
        model,
        scaling,
        positions=LazyDraws((*shape, model.num_parameters), _NetCDFReader(path, model).read),
        sample_stats=stats,
        info=info,
        history=history,
    )


def _chains_and_draws(group: Any, model: BayesianModel) -> tuple[int, int]:
    """Return the numbers of chains and draws, which all parameters share.

    Raises:
        ValueError: if they differ or are zero, or if a parameter is not an array of
            floating-point numbers.
    """
    shapes = {tuple(group[name].shape[:2]) for name in model.shapes}
    if len(shapes) != 1 or 0 in next(iter(shapes)):
        raise ValueError(
            f"its parameters have (chain, draw) {one_line(sorted(shapes), 60)}, expected one shape"
        )
    for name in model.shapes:
        if not is_numeric(group[name]) or group[name].dtype.kind != "f":
            raise ValueError(
                f"{one_line(name, 60)} has type {one_line(group[name].dtype, 40)}, expected floats"
            )
    return next(iter(shapes))


def _statistic(variable: Any, name: str, shape: tuple[int, int]) -> np.ndarray:
    value = read_numbers(variable, name)
    if value.shape != shape:
        raise ValueError(
            f"{one_line(name, 60)} has shape {one_line(value.shape, 60)}, expected {shape}"
        )
    return value.astype(bool) if text_attribute(variable.attrs, "dtype", "") == "bool" else value


def _check_order(file: Any, path: Path, model: BayesianModel) -> None:
    """Refuse a file with a flat vector whose parameters have another order."""
    names_in_order = list(map(str, parse_json(text_attribute(file.attrs, "flat_order"), path)))
    if names_in_order != list(model.shapes):
        raise IncompatiblePosteriors(
            f"{path} has its parameters in the order {one_line(', '.join(names_in_order), 80)}, "
            f"the network has {one_line(', '.join(model.shapes), 80)}; build the network as it "
            "was when it was fitted"
        )


def _closed_form(
    file: Any, kind: str, path: Path, model: BayesianModel, scaling: Scaling, **keywords: Any
) -> ClosedFormPosterior:
    _check_order(file, path, model)
    size = file["variational"].dimensions["parameter"].size
    if size != model.num_parameters:
        raise IncompatiblePosteriors(
            f"{path} has {size} parameters, the network has {model.num_parameters}"
        )
    arrays = {}
    for name, variable in file["variational"].variables.items():
        array = torch.from_numpy(read_numbers(variable, name))
        arrays[name] = array.to(model.device, model.dtype) if array.is_floating_point() else array
    num_draws, seed = (
        integer_attribute(file.attrs, "num_draws"),
        integer_attribute(file.attrs, "draw_seed"),
    )
    if num_draws < 1 or seed < 0:
        raise ValueError(
            f"it has {num_draws} draws of seed {seed}, expected at least one and a seed of at "
            "least 0"
        )
    return _CLOSED_FORMS[kind].from_arrays(
        model, scaling, arrays, num_draws=num_draws, seed=seed, **keywords
    )


def _native(values: np.ndarray) -> np.ndarray:
    """Return numbers in the byte order of this machine, the only one that torch supports."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)
