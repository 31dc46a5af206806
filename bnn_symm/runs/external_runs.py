"""Read draws and checkpoints of other software as runs, so that every command works on them.

The configuration describes the data and their standardization, the network, the likelihood and the
prior, as for a fit. Its section `inference` describes the sampler that drew them, which diagnostics
use (`target_accept_prob`, `max_tree_depth`). If that section is left at its default, the method
follows from the files: NUTS for chains whose statistics contain trajectories, with the defaults
that NumPyro, PyMC, Stan and this package share; HMC for other chains; a deep ensemble for
checkpoints. `run.json` records that the method was assumed.

Weights are read as weights of inputs as this package standardizes them. If the other software did
not standardize its inputs, the configuration must have `data.standardize=false`.
"""

import atexit
import dataclasses
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnn_symm.architectures import ModuleConfig, fixed_buffers
from bnn_symm.arguments import checked
from bnn_symm.diagnostics.mixing.copies import copied_chains
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, one_line
from bnn_symm.inference import HMC, NUTS, DeepEnsemble, MeanFieldVI
from bnn_symm.io.checksums import file_sha256
from bnn_symm.posteriors import (
    SamplePosterior,
    match_names,
    read_names,
    read_netcdf,
)
from bnn_symm.posteriors.external.external_draws import is_checkpoint, join_chains
from bnn_symm.runs.configuration.config import Config, dump_config
from bnn_symm.runs.configuration.prepare import Prepared, prepare
from bnn_symm.runs.directory.metrics import measure
from bnn_symm.runs.directory.output_directory import check_free
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import Run, code_of, load_run
from bnn_symm.threads import use_threads


@dataclass(frozen=True, kw_only=True)
class ExternalRun(Run):
    """Represent external draws as a run in a temporary directory.

    Attributes:
        source: the first of the files, which messages name.
    """

    source: Path

    @property
    def path(self) -> Path:
        """Return the path of the first file."""
        return self.source

    def close(self) -> None:
        """Remove the temporary directory, after which the posterior must not be used."""
        shutil.rmtree(self.directory.path.parent, ignore_errors=True)


@checked
def external_run(
    draws: Sequence[str | Path],
    *,
    config: Config,
    module: str | None = None,
    names: str | Path | Mapping[str, Any] | None = None,
) -> ExternalRun:
    """Read draws or checkpoints of other software as a run in a temporary directory.

    Args:
        draws: files, as in `import_run`.
        config: data, architecture, likelihood and prior, as for a fit.
        module: `package.module:factory` of the network.
        names: a name mapping or its file.

    Returns:
        The run; its directory is removed by `close`, or when the process ends.

    Raises:
        BnnSymmError: if the draws do not fit the configuration.

    Example:
        >>> from bnn_symm.runs import external_run, load_config
        >>> config = load_config(None, ["data.name=gap"])
        >>> run = external_run(["chains.nc"], config=config)  # doctest: +SKIP
    """
    folder = Path(tempfile.mkdtemp(prefix="bnn_symm-"))
    # Not when the run is garbage-collected: its posterior may still be in use.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run = import_run(draws, folder / "run", config=config, module=module, names=names)
    parts = {field.name: getattr(run, field.name) for field in dataclasses.fields(Run)}
    return ExternalRun(**parts, source=Path(draws[0]))


@checked
def import_run(
    draws: Sequence[str | Path],
    out: str | Path,
    *,
    config: Config,
    module: str | None = None,
    names: str | Path | Mapping[str, Any] | None = None,
) -> Run:
    """Write draws or checkpoints of other software as a run directory.

    Args:
        draws: NetCDF files of one posterior, whose chains are concatenated; or checkpoints, one for
            each member of an ensemble.
        out: a directory that does not exist.
        config: data, architecture, likelihood and prior, as for a fit.
        module: `package.module:factory` of the network; default: the configured architecture.
        names: a name mapping or its file, where names alone do not determine the matching of arrays
            and parameters.

    Returns:
        The run. `record["derived"]` has the files with their SHA-256, the matching, the axes that
        were transposed, the arrays that were left out, and `copies`: sentences on chains that are
        copies of one another or repeat their draws.

    Raises:
        BnnSymmError: if the draws do not fit the configuration.

    Example:
        >>> from bnn_symm.runs import import_run, load_config
        >>> config = load_config(None, ["data.name=gap"])
        >>> run = import_run(["chains.nc"], "runs/imported", config=config)  # doctest: +SKIP
    """
    out = Path(out)
    check_free(out)
    paths = _checked(draws, config)
    if module is not None:
        config = _with_factory(config, module)
    prepared = prepare(config)
    entries = read_names(names) if isinstance(names, str | Path) else names
    posterior, derived = _read(paths, prepared, entries)
    chains, length, _ = posterior.shape
    prepared, assumed = _with_method(prepared, posterior, derived["kind"])
    copies = copied_chains(posterior).sentences
    derived |= {"chains": chains, "draws": length, "method_assumed": assumed, "copies": copies}
    gradients = _gradients(posterior)
    with use_threads(prepared.threads):
        metrics = measure(posterior, prepared.dataset, seed=prepared.config.seed)
    RunDirectory.create(
        out,
        config=dump_config(prepared.config),
        record={
            **prepared.record(),
            "method": "imported",
            "engine": derived["library"],
            "derived": derived,
        },
        preprocessing=prepared.dataset.preprocessing.to_dict(),
        fixed=fixed_buffers(prepared.model.net),
        prior_mean=prepared.prior_mean,
        network=prepared.network_bytes,
        fixed_parameters=prepared.fixed_parameters,
        complete=lambda run: run.write_result(posterior, metrics, gradient_evaluations=gradients),
    ).release()
    return load_run(out, module=code_of(prepared.config))


def _checked(draws: Sequence[str | Path], config: Config) -> list[Path]:
    """Return the paths of the files, which must be of one kind."""
    paths = [Path(path) for path in draws]
    if not paths:
        raise ConfigError("no files; name NetCDF files of chains, or checkpoints")
    if len({is_checkpoint(path) for path in paths}) > 1:
        raise ConfigError(
            "got NetCDF files and checkpoints together; they are different posteriors: import them "
            "separately"
        )
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(
            "a file is named twice, and its chains would count as independent; name each file once"
        )
    if config.initial is not None:
        raise ConfigError(
            "initial is the start of a fit and does not apply to imported draws; leave it out"
        )
    return paths


def _with_factory(config: Config, module: str) -> Config:
    """Return the configuration with a user-defined network, with the same keywords and symmetry."""
    former = config.architecture
    if isinstance(former, ModuleConfig):
        return dataclasses.replace(config, architecture=dataclasses.replace(former, factory=module))
    return dataclasses.replace(
        config, architecture=ModuleConfig(factory=module, symmetry=former.symmetry)
    )


def _read(
    paths: Sequence[Path], prepared: Prepared, names: Mapping[str, Any] | None
) -> tuple[SamplePosterior, dict[str, Any]]:
    """Return the posterior in the files, and a record of how it was read."""
    model, scaling = prepared.model, prepared.dataset.scaling
    if is_checkpoint(paths[0]):
        posterior = SamplePosterior.from_state_dicts(model, paths, scaling, names=names)
        source = {
            "kind": "checkpoints",
            "library": "torch",
            "matched": posterior.info["matching"],
            "left_out": [],
        }
    else:
        external = join_chains([read_netcdf(path) for path in paths], paths)
        try:
            matching = match_names(external.arrays, model, names)
            flat = matching.flatten(external.arrays)
        except IncompatiblePosteriors as error:
            raise IncompatiblePosteriors(f"{one_line(paths[0].name, 40)}: {error}") from None
        posterior = SamplePosterior.from_draws(
            model, flat, scaling, sample_stats=external.sample_stats
        )
        source = {
            "kind": "draws",
            "library": external.library or "unknown",
            "matched": matching.rows(),
            "left_out": list(matching.unused),
        }
    files = [{"path": str(path.resolve()), "sha256": file_sha256(path)} for path in paths]
    return posterior, {
        "by": "import",
        "files": files,
        **source,
        "sample_stats": list(posterior.sample_stats),
    }


def _with_method(
    prepared: Prepared, posterior: SamplePosterior, kind: str
) -> tuple[Prepared, bool]:
    """Return the configuration with the method of the draws, and whether it was assumed."""
    chains, draws, _ = posterior.shape
    method = prepared.config.inference
    assumed = method == MeanFieldVI(temperature=method.temperature, tempering=method.tempering)
    if assumed:
        tempering = {"temperature": method.temperature, "tempering": method.tempering}
        trajectories = bool({"tree_depth", "n_steps"} & set(posterior.sample_stats))
        chosen = DeepEnsemble if kind == "checkpoints" else NUTS if trajectories else HMC
        method = chosen(**tempering)
    numbers = {"num_chains": chains, "num_draws": draws, "num_members": chains}
    known = {field.name for field in dataclasses.fields(method)}
    method = dataclasses.replace(
        method, **{name: number for name, number in numbers.items() if name in known}
    )
    config = dataclasses.replace(prepared.config, inference=method)
    return dataclasses.replace(prepared, config=config), assumed


def _gradients(posterior: SamplePosterior) -> int | None:
    """Return the total number of gradient evaluations, if the statistics contain it."""
    steps = posterior.sample_stats.get("n_steps")
    return None if steps is None else int(steps.sum())
