"""Read files of other software: draws in NetCDF, as ArviZ saves them, and checkpoints of networks.

Both are read as plain arrays, name -> (chain, draw, *shape); `parameter_matching` converts them to
parameters. NetCDF is read with h5netcdf, whatever version of ArviZ is installed. A checkpoint is a
state dict in safetensors, or a file of tensors only that `torch.load(weights_only=True)` accepts:
no code in a file is ever run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.errors import InvalidRun, one_line
from bnn_symm.io.arrays import read_tensors, read_torch_file
from bnn_symm.io.hdf5 import is_numeric, open_netcdf, read_numbers
from bnn_symm.io.paths import check_regular_file

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""Suffixes of checkpoints."""

# ArviZ's name -> names of the same statistic in samplers. A potential energy is minus the log
# density.
_STATISTICS = {
    "acceptance_rate": (
        "accept_prob",
        "acceptance_prob",
        "mean_tree_accept",
        "accept_stat__",
        "accept_stat",
    ),
    "diverging": ("divergent", "is_divergent", "divergent__"),
    "energy": ("energy__",),
    "lp": ("lp__", "logdensity", "log_density"),
    "n_steps": ("num_steps", "num_integration_steps", "n_leapfrog__", "n_leapfrog", "tree_size"),
    "step_size": ("stepsize__", "adapt_state.step_size"),
    "tree_depth": ("depth", "treedepth__", "num_trajectory_expansions"),
}
# Keys under which training loops store the state dict of the network.
_NESTED = ("state_dict", "model_state_dict", "model")


@dataclass(frozen=True, kw_only=True)
class ExternalDraws:
    """Hold draws as a file stores them.

    Attributes:
        arrays: name -> (chain, draw, *shape).
        sample_stats: ArviZ's name -> (chain, draw).
        library: the library that made the file, with its version; None if it is not recorded.
    """

    arrays: dict[str, np.ndarray]
    sample_stats: dict[str, np.ndarray]
    library: str | None = None


@checked
def read_netcdf(path: str | Path) -> ExternalDraws:
    """Read the groups `posterior` and `sample_stats` of a NetCDF file.

    Variables without the dimensions chain and draw, or without numbers, are left out.

    Args:
        path: of the file.

    Returns:
        Arrays and statistics by name.

    Raises:
        InvalidRun: if the file is missing, damaged, in the older NetCDF format, or has no draws.
    """
    path = Path(path)
    _check_format(path)
    with open_netcdf(path, problem="cannot be read as NetCDF") as file:
        if "posterior" not in file.groups:
            groups = one_line(", ".join(file.groups) or "none", 80)
            raise InvalidRun(
                f"{path} has no group `posterior` (its groups: {groups}); save draws with ArviZ: "
                f"arviz.from_numpyro(mcmc).to_netcdf(FILE), or from_dict, from_pymc, from_cmdstanpy"
            )
        group = file["posterior"]
        arrays = dict(_variables(group))
        stats = dict(_variables(file["sample_stats"])) if "sample_stats" in file.groups else {}
        keys = ("inference_library", "inference_library_version")
        library = one_line(
            " ".join(str(group.attrs[key]) for key in keys if key in group.attrs), 80
        )
        _check_one_shape(arrays)
    if not arrays:
        raise InvalidRun(
            f"{path} has no variables with the dimensions chain and draw; save (chain, draw, "
            "*shape) arrays with ArviZ"
        )
    stats = {
        name: value
        for name, value in stats.items()
        if value.shape[:2] == next(iter(arrays.values())).shape[:2]
    }
    return ExternalDraws(arrays=arrays, sample_stats=_statistics(stats), library=library or None)


def _check_one_shape(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless all variables have the same, nonzero numbers of chains and draws."""
    shapes = {value.shape[:2] for value in arrays.values()}
    if len(shapes) > 1 or any(0 in shape for shape in shapes):
        raise ValueError(
            f"its variables have (chain, draw) {one_line(sorted(shapes), 60)}, expected one shape"
        )


def _check_format(path: Path) -> None:
    """Refuse a file that is not NetCDF4, with a message about its actual format."""
    if path.is_dir():
        advice = "a Zarr store is opened with arviz.from_zarr and saved with to_netcdf"
        raise InvalidRun(f"{path} is a directory, expected a NetCDF file; {advice}")
    try:
        check_regular_file(path, InvalidRun)
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise InvalidRun(f"no file {path}; name the NetCDF file that ArviZ saved") from None
    except OSError as error:
        raise InvalidRun(f"{path} cannot be read ({error.strerror})") from None
    if start[:3] == b"CDF":
        raise InvalidRun(
            f"{path} is in the older NetCDF3 format, which has no groups; save it as NetCDF4: "
            "install h5netcdf, then to_netcdf(FILE, engine='h5netcdf')"
        )
    if start != b"\x89HDF\r\n\x1a\n":
        raise InvalidRun(
            f"{path} is not a NetCDF file; save draws with ArviZ's to_netcdf, checkpoints as "
            ".safetensors"
        )


def _variables(group: Any, scope: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield name -> (chain, draw, ...); a slash in a name makes groups within groups."""
    for name, variable in group.variables.items():
        axes = tuple(variable.dimensions)
        if not {"chain", "draw"} <= set(axes):
            continue
        if not is_numeric(variable):
            continue
        value = read_numbers(variable, scope + name)
        rest = [axis for axis in range(len(axes)) if axes[axis] not in ("chain", "draw")]
        value = value.transpose(axes.index("chain"), axes.index("draw"), *rest)
        yield (
            scope + name,
            value.astype(bool) if str(variable.attrs.get("dtype", "")) == "bool" else value,
        )
    for name, nested in group.groups.items():
        yield from _variables(nested, f"{scope}{name}/")


def _statistics(stats: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the statistics that samplers share, by ArviZ's names."""
    renamed = {}
    for name, others in _STATISTICS.items():
        value = next(
            (stats[key] for key in (name, *others) if key in stats and stats[key].ndim == 2), None
        )
        if value is not None:
            renamed[name] = value.astype(bool) if name == "diverging" else value
    if "lp" not in renamed and "potential_energy" in stats:
        renamed["lp"] = -stats["potential_energy"]
    return dict(sorted(renamed.items()))


def join_chains(parts: Sequence[ExternalDraws], paths: Sequence[str | Path]) -> ExternalDraws:
    """Concatenate the chains of several files.

    Args:
        parts: content of the files.
        paths: their names, for messages.

    Returns:
        The chains of all files, with the statistics that all of them have.

    Raises:
        InvalidRun: if they hold different variables or numbers of draws.
    """
    first = parts[0]
    for part, path in zip(parts[1:], paths[1:], strict=True):
        mine, theirs = (
            {name: value.shape[1:] for name, value in p.arrays.items()} for p in (first, part)
        )
        for name in {**mine, **theirs}:
            if mine.get(name) != theirs.get(name):
                raise InvalidRun(
                    f"{path} has {name} as (draw, *shape) {theirs.get(name)}, {paths[0]} as "
                    f"{mine.get(name)}; chains of one posterior have the same variables and "
                    "numbers of draws: import the files separately"
                )
    shared = [
        name for name in first.sample_stats if all(name in part.sample_stats for part in parts)
    ]
    return ExternalDraws(
        arrays={
            name: np.concatenate([part.arrays[name] for part in parts]) for name in first.arrays
        },
        sample_stats={
            name: np.concatenate([part.sample_stats[name] for part in parts]) for name in shared
        },
        library=first.library,
    )


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a network from safetensors, or from a torch file of tensors only.

    Args:
        path: of the file.

    Returns:
        Name -> tensor.

    Raises:
        InvalidRun: if the file is missing or damaged, or holds more than tensors, which would run
            code when read.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".safetensors":
            return read_tensors(path)
        content = read_torch_file(path)
    except FileNotFoundError:
        raise InvalidRun(f"no file {path}; name a checkpoint: {', '.join(CHECKPOINTS)}") from None
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise InvalidRun(
            f"{path} holds no state dict; save net.state_dict(), not the network or a training "
            "state"
        )
    return {str(name): value for name, value in content.items()}


def is_checkpoint(path: str | Path) -> bool:
    """Return whether a file is a checkpoint, by its suffix.

    Args:
        path: of the file.
    """
    return Path(path).suffix.lower() in CHECKPOINTS
