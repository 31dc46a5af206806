"""What `prior.mean` names in a configuration: a run, or a file of weights."""

from pathlib import Path

from bnn_symm.errors import ConfigError
from bnn_symm.models import PriorMean
from bnn_symm.posteriors.external.external_draws import CHECKPOINTS, read_checkpoint
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import load_run, module_of, stored_config


def read_prior_mean(named: str, module: str | None = None) -> PriorMean:
    """The weights that a prior is to be centerd on.

    Args:
        named: a run directory, whose posterior mean it is, or a file of a state dict.
        module: the factory of a user's own network in the configuration; no other is ever imported.

    Raises:
        ConfigError: if there is no such thing, or the run has several chains.
        InvalidRun: if it is damaged.
    """
    path = Path(named)
    if path.is_dir():
        return _of_run(path, module)
    if path.suffix not in CHECKPOINTS:
        what = "is no file of weights" if path.exists() else "does not exist"
        raise ConfigError(
            f"prior.mean={named} {what}; name a run directory, or a state dict as FILE.safetensors"
        )
    if not path.exists():
        raise ConfigError(
            f"prior.mean={named} does not exist; name a run directory, or a file of weights"
        )
    return PriorMean(read_checkpoint(path))


def _of_run(path: Path, module: str | None) -> PriorMean:
    theirs = module_of(stored_config(RunDirectory(path)))
    if theirs not in (None, module):
        raise ConfigError(
            f"prior.mean={path} has a network of another factory; give it the same architecture"
        )
    run = load_run(path, module=module if theirs else None)
    chains = run.posterior.shape[0]
    if chains > 1:
        raise ConfigError(
            f"prior.mean={path} has {chains} chains, which number their units differently, so that "
            "their mean is no "
            f"network; name a run of one chain, such as one of map or mean_field_vi"
        )
    values = run.model.unflatten(run.posterior.mean())
    return PriorMean(run.model.layer_values(values))
