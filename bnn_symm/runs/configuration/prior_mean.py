"""Read the prior mean that a configuration names: from a run, or from a file of weights."""

from collections.abc import Sequence
from pathlib import Path

from bnn_symm.architectures import frozen_layers
from bnn_symm.errors import ConfigError, one_line
from bnn_symm.models import PriorMean
from bnn_symm.posteriors.external.external_draws import CHECKPOINTS, read_checkpoint
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import code_of, load_run, stored_config


def read_prior_mean(named: str, modules: Sequence[str] = ()) -> PriorMean:
    """Read the mean of a prior.

    Args:
        named: a run directory, whose posterior mean is used, or a file with a state dict.
        modules: the code of the user that the configuration names; no other is imported.

    Returns:
        The mean of the prior.

    Raises:
        ConfigError: if it does not exist, or the run has several chains.
        InvalidRun: if it is damaged.
    """
    path = Path(named)
    if path.is_dir():
        return _mean_of_run(path, modules)
    if path.suffix not in CHECKPOINTS:
        what = "is not a file of weights" if path.exists() else "does not exist"
        raise ConfigError(
            f"prior.mean={named} {what}; name a run directory, or a state dict as FILE.safetensors"
        )
    if not path.exists():
        raise ConfigError(
            f"prior.mean={named} does not exist; name a run directory, or a file of weights"
        )
    return PriorMean(read_checkpoint(path))


def _mean_of_run(path: Path, modules: Sequence[str]) -> PriorMean:
    """Return the posterior mean of a run with one chain."""
    theirs = code_of(stored_config(RunDirectory(path)))
    for name in theirs:
        if name not in modules:
            raise ConfigError(
                f"prior.mean={path} uses {one_line(name, 80)}, which this configuration does not "
                "name; use the same architecture, likelihood and prior, or a file of weights"
            )
    run = load_run(path, module=theirs)
    chains = run.posterior.shape[0]
    if chains > 1:
        raise ConfigError(
            f"prior.mean={path} has {chains} chains, which permute their units differently, so "
            "that their mean is not a network; name a run with one chain, such as map or "
            "mean_field_vi"
        )
    values = run.model.unflatten(run.posterior.mean())
    statistics = {
        f"{layer}.{key}" if layer else key: getattr(norm, key)
        for layer, norm in frozen_layers(run.model.net).items()
        for key in norm.unit_statistics
    }
    return PriorMean({**run.model.layer_values(values), **statistics})
