"""Store posteriors as NetCDF files.

`posterior.nc` holds a group `posterior` with one variable per parameter, (chain, draw, *shape), a
group `sample_stats`, and for a closed form a group `variational` with the arrays that describe it,
such as `loc` and `scale`, of the flat vector; for a mixture of closed forms, groups `variational_0`
and so on. A group `linearization` has the mode of a posterior that predicts by a linearized
network, or of each component. It is written chunk by chunk and renamed into place. The draws may be
stored in a log and are never all in memory. NetCDF files cannot be appended to
safely, so a running sampler adds files `draws/NNNNNN.npy` to a `DrawLog` instead; readers accept
both.
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
from bnn_symm.posteriors.mixture import MixturePosterior
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
    mode = _modes(posterior)
    posterior = posterior.of_weights
    if not isinstance(posterior, ClosedFormPosterior | SamplePosterior):
        raise ConfigError(
            f"posterior: got a {type(posterior).__name__}, which has no file format; save the "
            "posterior that it is based on, and its settings beside it"
        )
    chains, draws, parameters = posterior.shape
    normals = _closed_forms(posterior)
    num_described = sum(a.numel() for own in normals.values() for a in own.arrays().values())
    if normals:
        itemsize = posterior.model.dtype.itemsize
        draws = min(draws, max(1, int(max_megabytes * 1e6 / (chains * parameters * itemsize))))
    # Metadata of HDF5: a few kilobytes a variable. Draws and statistics: 8 bytes at most each.
    size = (
        2**16
        + 2**13 * len(posterior.model.shapes)
        + 8 * (chains * draws * (parameters + 8) + num_described + chains * parameters)
    )

    def write(temporary: Path) -> None:
        _check_room(temporary, size)
        _write(posterior, mode, temporary, chains, draws)

    write_atomically(Path(path), write)


def _modes(posterior: Posterior) -> Tensor | None:
    """Return the mode where a network is linearized, or one for each component of a mixture."""
    if isinstance(posterior, LinearizedPosterior):
        return posterior.mode
    if isinstance(posterior, MixturePosterior):
        modes = [own.mode for own in posterior.components if isinstance(own, LinearizedPosterior)]
        if 0 < len(modes) < len(posterior.components):
            raise ConfigError(
                "posterior: only some components of the mixture are linearized, which has no file "
                "format"
            )
        return torch.stack(modes) if modes else None
    return None


def _closed_forms(posterior: Posterior) -> dict[str, ClosedFormPosterior]:
    """Return the closed forms that describe a posterior, by the names of their groups."""
    if isinstance(posterior, ClosedFormPosterior):
        return {"variational": posterior}
    if isinstance(posterior, MixturePosterior) and posterior.is_closed_form:
        return {
            f"variational_{number}": component
            for number, component in enumerate(posterior.components)
            if isinstance(component, ClosedFormPosterior)
        }
    return {}


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
        normals = _closed_forms(posterior)
        # A mixture of draws is stored as its draws alone.
        file.attrs["kind"] = posterior.kind if normals else SamplePosterior.kind
        file.attrs["flat_order"] = json.dumps(list(model.shapes))
        for name, normal in normals.items():
            variational = _write_variational(file, name, normal)
            holder = file if normal is posterior else variational
            holder.attrs["kind"] = normal.kind
            holder.attrs["num_draws"] = normal.num_draws
            holder.attrs["draw_seed"] = str(normal.seed)
        if mode is not None:
            linearization = file.create_group("linearization")
            axes = ("chain", "parameter")[-mode.ndim :]
            for axis, length in zip(axes, mode.shape, strict=True):
                linearization.dimensions[axis] = length
            values = mode.detach().cpu().numpy()
            linearization.create_variable("mode", axes, values.dtype, data=values)
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


def _write_variational(file: Any, name: str, posterior: ClosedFormPosterior) -> Any:
    group = file.create_group(name)
    group.dimensions["parameter"] = len(posterior.loc)
    for name, value in posterior.arrays().items():
        array = value.detach().cpu().numpy()
        axes = [f"{name}_dim_{i}" for i in range(array.ndim - 1)]
        for axis, size in zip(axes, array.shape, strict=False):
            group.dimensions[axis] = size
        group.create_variable(name, (*axes, "parameter"), array.dtype, data=array)
    return group


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
    shapes = ((model.num_parameters,), (shape[0], model.num_parameters))
    if mode.shape not in shapes or not mode.is_floating_point():
        raise ValueError(
            f"mode has shape {tuple(mode.shape)} and type {mode.dtype}, expected "
            f"{model.num_parameters} floats"
        )
    mode = mode.to(model.device, model.dtype)
    if mode.ndim == 1:
        return LinearizedPosterior(posterior, mode)
    components = [
        LinearizedPosterior(component, own)
        for component, own in zip(_components(posterior), mode, strict=True)
    ]
    return MixturePosterior(model, scaling, components=components, info=info, history=history)


def _components(posterior: Posterior) -> Sequence[Posterior]:
    """Return the components of a mixture, or each chain of draws as a posterior."""
    if isinstance(posterior, MixturePosterior):
        return posterior.components
    return [
        SamplePosterior(
            posterior.model, posterior.scaling, positions=posterior.positions.chain(chain)
        )
        for chain in range(posterior.shape[0])
    ]


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
        return _closed_form(
            file, "variational", file, path, model, scaling, info=info, history=history
        )
    if kind == MixturePosterior.kind:
        components = [
            _closed_form(file, name, file[name], path, model, scaling)
            for name in (f"variational_{number}" for number in range(shape[0]))
        ]
        return MixturePosterior(model, scaling, components=components, info=info, history=history)
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
    file: Any,
    name: str,
    holder: Any,
    path: Path,
    model: BayesianModel,
    scaling: Scaling,
    **keywords: Any,
) -> ClosedFormPosterior:
    """Return the closed form of a group, whose kind and draws the attributes of `holder` state.

    Raises:
        KeyError: if the group or its kind is unknown.
        ValueError: if its arrays or numbers are invalid.
        IncompatiblePosteriors: if its parameters are not the model's.
    """
    kind = _CLOSED_FORMS[text_attribute(holder.attrs, "kind")]
    _check_order(file, path, model)
    size = file[name].dimensions["parameter"].size
    if size != model.num_parameters:
        raise IncompatiblePosteriors(
            f"{path} has {size} parameters, the network has {model.num_parameters}"
        )
    arrays = {}
    for key, variable in file[name].variables.items():
        array = torch.from_numpy(read_numbers(variable, key))
        arrays[key] = array.to(model.device, model.dtype) if array.is_floating_point() else array
    num_draws, seed = (
        integer_attribute(holder.attrs, "num_draws"),
        integer_attribute(holder.attrs, "draw_seed"),
    )
    if num_draws < 1 or seed < 0:
        raise ValueError(
            f"it has {num_draws} draws of seed {seed}, expected at least one and a seed of at "
            "least 0"
        )
    return kind.from_arrays(model, scaling, arrays, num_draws=num_draws, seed=seed, **keywords)


def _native(values: np.ndarray) -> np.ndarray:
    """Return numbers in the byte order of this machine, the only one that torch supports."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)
