"""A run on disk, opened: its configuration, model and posterior, complete or not."""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn_symm.architectures import build_network, fingerprint, load_fixed_buffers, short_fingerprint
from bnn_symm.architectures.config import ModuleConfig
from bnn_symm.arguments import checked
from bnn_symm.data import Dataset, Preprocessing, load_dataset
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, InvalidRun, one_line, shell_words
from bnn_symm.inference import FitState
from bnn_symm.io.boundary import parser_errors
from bnn_symm.models import BayesianModel, PriorMean
from bnn_symm.posteriors import Posterior, load_posterior
from bnn_symm.runs.configuration.config import Config, load_config
from bnn_symm.runs.directory.file_schemas import check_preprocessing
from bnn_symm.runs.directory.network_record import NetworkRecord
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.stages import stages_of


class DeviceWarning(UserWarning):
    """A run is opened on another device than it was fitted on: to the same results up to
    rounding.
    """


class NoPosterior(InvalidRun):
    """A fit was stopped before there was a posterior; nothing is damaged."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run on disk.

    Attributes:
        directory: its files.
        config: resolved.
        record: `run.json`, with the true status.
        preprocessing: from raw inputs to points and back.
        model: prior x likelihood x architecture.
    """

    directory: RunDirectory
    config: Config
    record: dict[str, Any]
    preprocessing: Preprocessing
    model: BayesianModel

    @property
    def path(self) -> Path:
        """Of its directory."""
        return self.directory.path

    @property
    def status(self) -> str:
        """running, complete, interrupted or failed."""
        return self.record["status"]

    @cached_property
    def posterior(self) -> Posterior:
        """The posterior; of a run that did not complete, what was reached, if need be by its warm
        start.

        Raises:
            NoPosterior: if nothing was reached yet.
            InvalidRun: if a file is damaged or missing.
        """
        scaling = self.preprocessing.scaling
        if self.directory.has_posterior():
            history = self.directory.read_history()
            info = {key: self.record.get(key) for key in _INFO}
            info |= {
                key: getattr(self.config.inference, key) for key in ("temperature", "tempering")
            }
            return load_posterior(
                self.directory.posterior, self.model, scaling, info=info, history=history
            )
        reasons = []
        for stage in reversed(stages_of(self.directory, self.config)):
            try:
                posterior = stage.posterior(self.model, scaling)
            except IncompatiblePosteriors as error:
                reasons.append(error)
                continue
            posterior.info["status"] = self.status
            return posterior
        kind = InvalidRun if self.status == "complete" else NoPosterior
        raise kind(f"{self.path} holds no posterior ({reasons[-1]}); status: {self.status}")

    def checkpoints(self) -> dict[int, Posterior]:
        """Step -> the posterior as it was then, for the epochs that `checkpoint.keep` named.

        Raises:
            InvalidRun: if a file is damaged.
        """
        scaling, seed = self.preprocessing.scaling, self.config.seed
        states = self.directory.kept_states()
        with parser_errors(
            self.directory.kept, "put back the files as they were written", problem="is damaged"
        ):
            return {
                step: self.config.inference.posterior_from_state(
                    self.model, scaling, FitState(states=own), seed=seed
                )
                for step, own in states.items()
            }

    @property
    def metrics(self) -> dict[str, Any] | None:
        """`metrics.json`, or None for a run that did not complete."""
        return self.directory.read_metrics()

    @property
    def threads(self) -> int:
        """Intra-op threads of the fit, also right for predictions."""
        return int(self.record["threads"])

    def dataset(self) -> Dataset:
        """The data of the run, read and split again the first time.

        Raises:
            InvalidRun: if they are not those that were fitted.
        """
        return self._dataset

    @cached_property
    def _dataset(self) -> Dataset:
        dataset = load_dataset(self.config.data, dtype=self.model.dtype)
        fitted = self.record["dataset"]["sha256"]
        if dataset.provenance.sha256 != fitted:
            raise InvalidRun(
                f"{self.path}: {self.config.data.name} changed since the fit (sha256 "
                f"{dataset.provenance.sha256[:12]}, was {fitted[:12]}); put it back, or evaluate "
                "on other data: "
                f"bnn-symm {shell_words('evaluate', self.path)} --data FILE"
            )
        split = self.record["dataset"].get(
            "split_sha256"
        )  # None in runs of versions that did not record it
        if split is not None and dataset.provenance.split_sha256 != split:
            raise InvalidRun(
                f"{self.path}: {self.config.data.name} is split otherwise than in the fit (sha256 "
                "of the rows "
                f"{str(dataset.provenance.split_sha256)[:12]}, was {str(split)[:12]}): its test "
                "part may hold training "
                f"points; put the files of the split back, or fit again"
            )
        return dataset


_INFO = ("method", "engine", "seed", "seconds", "gradient_evaluations", "status", "versions")


@checked
def load_run(path: str | Path, *, module: str | None = None) -> Run:
    """Opens a run directory, complete or not; where the device of its fit is missing, on the CPU,
    with a warning.

    Args:
        path: of the directory.
        module: `package.module:factory` of a user's own network. Loading never runs code that a
            directory names, so it has to be said again.

    Raises:
        InvalidRun: if it is not a run, damaged, or of a newer schema.
    """
    directory = RunDirectory(path)
    record = directory.read_record()
    directory.check_first_files()
    config = with_module(stored_config(directory), module)
    described = RunDirectory.read_json(directory.preprocessing)
    check_preprocessing(directory.preprocessing, described, record["num_outputs"])
    with parser_errors(
        directory.preprocessing, "put back the file as it was written", problem="is damaged"
    ):
        preprocessing = Preprocessing.from_dict(described)
    here = on_device_here(config)
    if here is not config:
        warnings.warn(
            f"{directory.path} was fitted on {config.device}, which is not available here; it is "
            "opened on the CPU",
            DeviceWarning,
            stacklevel=2,
        )
    network = read_network(directory, record)
    points = None if network is None else network.points
    net = _build_network(here, preprocessing.input_shape, record["num_outputs"], points)
    _restore_fixed(directory, record, net)
    model = _model(config, net, directory.read_prior_mean(record))
    if network is not None:
        network.restore(model, directory.path, str(module))
    return Run(
        directory=directory, config=config, record=record, preprocessing=preprocessing, model=model
    )


def _restore_fixed(directory: RunDirectory, record: Mapping[str, Any], net: nn.Module) -> None:
    """Puts the run's own masks, fixed values and matrices into the network that its configuration
    makes.

    Another version might draw them otherwise; those of the fit are what the posterior is about.
    """
    fitted = record["mask_fingerprint"]
    if fitted is not None:
        try:
            load_fixed_buffers(net, directory.read_fixed())
        except IncompatiblePosteriors as error:
            raise InvalidRun(
                f"{directory.fixed} does not fit {directory.config}: {error}"
            ) from None
    now = fingerprint(net)
    if now != fitted:
        what = directory.config if fitted is None else directory.fixed
        raise InvalidRun(
            f"{what} has the mask fingerprint {short_fingerprint(now)}, {directory.record} says "
            f"{short_fingerprint(fitted)}: one of them was changed since the fit; put it back, or "
            "fit again"
        )


def read_network(directory: RunDirectory, record: Mapping[str, Any]) -> NetworkRecord | None:
    """What a run keeps of a user's own network besides its parameters; None of the package's, and
    of older runs.

    Raises:
        InvalidRun: if it is missing or damaged.
    """
    return NetworkRecord.read(directory.network) if record.get("constants_fingerprint") else None


def build_model(
    config: Config,
    input_shape: tuple[int, ...],
    num_outputs: int,
    mean: PriorMean | None = None,
    points: Tensor | None = None,
) -> BayesianModel:
    """The model of a resolved configuration, on its device.

    Args:
        config: with a likelihood.
        input_shape: of a point.
        num_outputs: of the data.
        mean: what its prior is centerd on, if anything; what the configuration names is not read
            here.
        points: of the data, on which a network of the user's own is checked.

    Raises:
        ConfigError: if the device is not there, or the architecture or the mean does not fit.
    """
    model = _model(config, _build_network(config, input_shape, num_outputs, points), mean)
    if points is not None:
        model.check_function(points)
    return model


def _build_network(
    config: Config, input_shape: tuple[int, ...], num_outputs: int, points: Tensor | None = None
) -> nn.Module:
    likelihood = config.likelihood
    assert likelihood is not None
    device = _device(config)
    net = build_network(
        config.architecture,
        input_shape=input_shape,
        num_outputs=likelihood.num_net_outputs(num_outputs),
        seed=config.seed,
        points=points,
    )
    return net.to(device=device, dtype=getattr(torch, config.dtype))


def _device(config: Config) -> torch.device:
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {config.device!r} is not available here ({reason}); use `--set device=cpu`"
        ) from None
    return device


def on_device_here(config: Config) -> Config:
    """The configuration itself, or with the CPU in place of a device that is not available here."""
    try:
        _device(config)
    except ConfigError:
        return dataclasses.replace(config, device="cpu")
    return config


def _model(config: Config, net: nn.Module, mean: PriorMean | None) -> BayesianModel:
    assert config.likelihood is not None
    prior = dataclasses.replace(config.prior, mean=None if mean is None else mean.whole(net))
    return BayesianModel(net, prior, config.likelihood)


def stored_config(directory: RunDirectory) -> Config:
    """The resolved configuration of a run.

    Raises:
        InvalidRun: if there is none.
    """
    if not directory.config.exists():
        raise InvalidRun(f"{directory.path} is not a run of bnn_symm: it has no config.yaml")
    config = load_config(directory.config)
    if config.likelihood is None:
        raise InvalidRun(f"{directory.config} is damaged: it has no likelihood")
    return config


def module_of(config: Config) -> str | None:
    """The factory of a user's own network; None for the package's."""
    return config.architecture.factory if isinstance(config.architecture, ModuleConfig) else None


def module_flags(factories: Iterable[str | None]) -> str:
    """Return the flags that repeat factories, with a space before each, to be copied into a
    shell.
    """
    return "".join(
        f" --module {shell_words(one_line(name, 80))}" for name in factories if name is not None
    )


def with_module(config: Config, module: str | None) -> Config:
    """The configuration with the factory that the user says; the one that a directory names is
    never imported.

    Raises:
        ConfigError: if one is needed and not said, or said and not needed.
    """
    stored = module_of(config)
    if stored is None:
        if module is not None:
            raise ConfigError(
                f"--module is for networks of your own; this run's is {config.architecture.name}"
            )
        return config
    if module is None:
        raise ConfigError(
            "this run's network is made by code, and loading never runs code that a directory "
            "names; if it is yours, "
            f"repeat it:{module_flags([stored])}"
        )
    return dataclasses.replace(
        config, architecture=dataclasses.replace(config.architecture, factory=module)
    )
