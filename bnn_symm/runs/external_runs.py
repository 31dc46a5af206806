"""Draws and checkpoints of other software as runs, so that every command that reads runs works on
them.

The configuration says what a fit would be told: the data and how they are standardized, the
    network, the likelihood
and the prior. Its section `inference` is not used to fit; it says what sampler theirs was, which
diagnostics compare with (`target_accept_prob`, `max_tree_depth`). Where it is left at its default,
it follows from the files: NUTS of chains whose statistics tell of trajectories, with the defaults
that NumPyro, PyMC, Stan and this package share, HMC of other chains, a deep ensemble of
checkpoints; `run.json` says that this was assumed.

Their weights are read as weights of inputs as this package standardizes them: where theirs were not
    standardized, the
configuration must say `data.standardize=false`.
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
from bnn_symm.posteriors import SamplePosterior, match_names, read_names, read_netcdf
from bnn_symm.posteriors.external.external_draws import is_checkpoint, join_chains
from bnn_symm.runs.configuration.config import Config, dump_config
from bnn_symm.runs.configuration.prepare import Prepared, prepare
from bnn_symm.runs.directory.metrics import measure, write_metrics
from bnn_symm.runs.directory.output_directory import check_free, disk_errors
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import Run, load_run, module_of
from bnn_symm.threads import use_threads


@dataclass(frozen=True, kw_only=True)
class ForeignRun(Run):
    """A run of draws that others made, in a temporary directory that goes with `close`, or when the
    process ends.

    Attributes:
        source: the first of their files, by which messages call it.
    """

    source: Path

    @property
    def path(self) -> Path:
        """Of their file."""
        return self.source

    def close(self) -> None:
        """Removes the directory; the posterior, which is read from it, must not be used any
        more.
        """
        shutil.rmtree(self.directory.path.parent, ignore_errors=True)


@checked
def foreign_run(
    draws: Sequence[str | Path],
    *,
    config: Config,
    module: str | None = None,
    names: str | Path | Mapping[str, Any] | None = None,
) -> ForeignRun:
    """Draws or checkpoints as a run that is not kept; arguments and errors as `import_run`."""
    folder = Path(tempfile.mkdtemp(prefix="bnn_symm-"))
    # Not when the run is forgotten: its posterior may still be in use.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = import_run(draws, folder / "run", config=config, module=module, names=names)
    parts = {field.name: getattr(kept, field.name) for field in dataclasses.fields(Run)}
    return ForeignRun(**parts, source=Path(draws[0]))


@checked
def import_run(
    draws: Sequence[str | Path],
    out: str | Path,
    *,
    config: Config,
    module: str | None = None,
    names: str | Path | Mapping[str, Any] | None = None,
) -> Run:
    """Writes draws or checkpoints as a run directory.

    Args:
        draws: NetCDF files of one posterior, whose chains are put one after the other; or
            checkpoints, one a member of an ensemble.
        out: a directory that does not exist.
        config: as a fit would be told: data, architecture, likelihood, prior.
        module: `package.module:factory` of the network that they are of; default the
            configuration's architecture.
        names: map of names, or its file, where names alone do not say which array is which
            parameter.

    Returns:
        The run; `record["derived"]` has the files with their SHA-256, what was matched with what,
        what was turned and what was left out, and `copies`: sentences on chains that are copies of
        one another, or repeat their draws.

    Raises:
        BnnSymmError: with one line that says what does not fit.
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
    directory = RunDirectory.create(
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
    )
    try:
        with disk_errors(out, "make room, and import them again"), use_threads(prepared.threads):
            posterior.save(directory.posterior)
            write_metrics(
                directory, measure(posterior, prepared.dataset, seed=prepared.config.seed)
            )
            directory.finish_history([])
            directory.finish(gradient_evaluations=_gradients(posterior))
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    finally:
        directory.release()
    return load_run(out, module=module_of(prepared.config))


def _checked(draws: Sequence[str | Path], config: Config) -> list[Path]:
    """Their files, of one kind."""
    paths = [Path(path) for path in draws]
    if not paths:
        raise ConfigError("no files; name NetCDF files of chains, or checkpoints")
    if len({is_checkpoint(path) for path in paths}) > 1:
        raise ConfigError(
            "got NetCDF files and checkpoints together; they are different posteriors: import them "
            "apart"
        )
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(
            "one file is named twice; its chains would count as independent: name each once"
        )
    if config.initial is not None:
        raise ConfigError(
            "initial is where a fit starts from; what is imported has been fitted: leave it out"
        )
    return paths


def _with_factory(config: Config, module: str) -> Config:
    """The configuration with a network of the user's own, keywords and symmetry kept where it had
    one.
    """
    own = config.architecture
    if isinstance(own, ModuleConfig):
        return dataclasses.replace(config, architecture=dataclasses.replace(own, factory=module))
    return dataclasses.replace(
        config, architecture=ModuleConfig(factory=module, symmetry=own.symmetry)
    )


def _read(
    paths: Sequence[Path], prepared: Prepared, names: Mapping[str, Any] | None
) -> tuple[SamplePosterior, dict[str, Any]]:
    """Their posterior, and how it was read, as plain data."""
    model, scaling = prepared.model, prepared.dataset.scaling
    if is_checkpoint(paths[0]):
        posterior = SamplePosterior.from_state_dicts(model, paths, scaling, names=names)
        said = {
            "kind": "checkpoints",
            "library": "torch",
            "matched": posterior.info["matching"],
            "left_out": [],
        }
    else:
        found = join_chains([read_netcdf(path) for path in paths], paths)
        try:
            matching = match_names(found.arrays, model, names)
            flat = matching.flatten(found.arrays)
        except IncompatiblePosteriors as error:
            raise IncompatiblePosteriors(f"{one_line(paths[0].name, 40)}: {error}") from None
        posterior = SamplePosterior.from_draws(
            model, flat, scaling, sample_stats=found.sample_stats
        )
        said = {
            "kind": "draws",
            "library": found.library or "unknown",
            "matched": matching.rows(),
            "left_out": list(matching.unused),
        }
    files = [{"path": str(path.resolve()), "sha256": file_sha256(path)} for path in paths]
    return posterior, {
        "by": "import",
        "files": files,
        **said,
        "sample_stats": list(posterior.sample_stats),
    }


def _with_method(
    prepared: Prepared, posterior: SamplePosterior, kind: str
) -> tuple[Prepared, bool]:
    """What the configuration says of the method, with their numbers; and whether it had to be
    assumed.
    """
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
    steps = posterior.sample_stats.get("n_steps")
    return None if steps is None else int(steps.sum())
