"""Open a run directory: its configuration, model and posterior, whether it is complete or not."""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.advice import advise, advise_setting
from bnn_symm.architectures import build_network, fingerprint, load_fixed_buffers, short_fingerprint
from bnn_symm.architectures.config import GNNConfig, ModuleConfig
from bnn_symm.arguments import checked
from bnn_symm.data import Dataset, Graph, Preprocessing, load_dataset, read_inputs_and_exposure
from bnn_symm.diagnostics.calibration.conformal import Conformal, calibrate
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, InvalidRun, one_line, shell_words
from bnn_symm.inference import FitState, point_posterior
from bnn_symm.io.boundary import parser_errors
from bnn_symm.models import BayesianModel, Imported, PriorMean, build_likelihood
from bnn_symm.models.priors.families import build_family
from bnn_symm.posteriors import Posterior, load_posterior
from bnn_symm.runs.configuration.batch_norm import statistics_at_prior_mean
from bnn_symm.runs.configuration.config import Config, load_config
from bnn_symm.runs.directory.code_record import check_code, code_record
from bnn_symm.runs.directory.file_schemas import check_preprocessing
from bnn_symm.runs.directory.network_record import NetworkRecord
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.prediction_columns import prediction_columns
from bnn_symm.runs.stages import stages_of
from bnn_symm.threads import use_threads

if TYPE_CHECKING:
    import pandas


class DeviceWarning(UserWarning):
    """Warn that a run is opened on another device than it was fitted on.

    Results agree up to rounding.
    """


class NoPosterior(InvalidRun):
    """Report that a fit was stopped before there was a posterior; no file is damaged."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Give access to a run on disk.

    Attributes:
        directory: the files of the run.
        config: the resolved configuration.
        record: the content of `run.json`, with the current status.
        preprocessing: the conversion from raw inputs to points, and back.
        model: prior, likelihood and network, with the stochastic parameters of the posterior.
        full_model: the same with all parameters of the network.
    """

    directory: RunDirectory
    config: Config
    record: dict[str, Any]
    preprocessing: Preprocessing
    model: BayesianModel
    full_model: BayesianModel

    @property
    def path(self) -> Path:
        """Return the path of the run directory."""
        return self.directory.path

    @property
    def status(self) -> str:
        """Return the status: running, complete, interrupted or failed."""
        return self.record["status"]

    @cached_property
    def posterior(self) -> Posterior:
        """Return the posterior, or that of the last saved state if the run is not complete.

        If the method itself has no state yet, this is the posterior of its warm start.

        Raises:
            NoPosterior: if no state was saved yet.
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
        if self.status == "complete":
            raise InvalidRun(
                f"{self.path} is complete, but has no {self.directory.posterior.name} that belongs "
                "to it; restore the file, or fit again"
            )
        reasons = []
        for stage in reversed(stages_of(self.directory, self.config)):
            model = stage.model(self.full_model)
            if model is None:
                continue  # the stage has not started
            try:
                posterior = stage.posterior(model, scaling)
            except IncompatiblePosteriors as error:
                reasons.append(error)
                continue
            if model.shapes.keys() != self.model.shapes.keys():
                posterior = point_posterior(self.model, posterior)
            posterior.info["status"] = self.status
            return posterior
        raise NoPosterior(f"{self.path} has no posterior ({reasons[-1]}); status: {self.status}")

    def checkpoints(self) -> dict[int, Posterior]:
        """Return the posterior at each step that `checkpoint.keep` selected.

        Raises:
            InvalidRun: if a file is damaged.
        """
        scaling, seed = self.preprocessing.scaling, self.config.seed
        derived = self.directory.kept_posteriors()
        if derived:
            return {
                step: load_posterior(path, self.model, scaling) for step, path in derived.items()
            }
        states = self.directory.kept_states()
        with parser_errors(self.directory.kept, "restore the original files", problem="is damaged"):
            return {
                step: self.config.inference.posterior_from_state(
                    self.model, scaling, FitState(states=chains), seed=seed
                )
                for step, chains in states.items()
            }

    def predict(
        self,
        inputs: Any,
        *,
        quantiles: Sequence[float] = (0.05, 0.5, 0.95),
        conformal: float | None = None,
        times: Sequence[float] = (),
    ) -> "pandas.DataFrame":
        """Predict for raw inputs; rows, units and labels are those of the data, nothing is scaled.

        Args:
            inputs: a table of pandas or polars with the columns of the training data in any order,
                an array (point, *feature), or the path of a file.
            quantiles: levels between 0 and 1, for numbers.
            conformal: level of intervals or sets of classes that the validation split calibrates.
            times: times at which probabilities of a later event are predicted, for times.

        Returns:
            One row for each point. Of numbers: `mean`, `sd`, `epistemic_sd`, `aleatoric_sd` and
            `quantile_<level>`, for counts at the exposure of the row, which is 1 if the column is
            absent. Of times: `median`, `quantile_<level>` and `survival_<time>`. Of classes:
            `prediction`, `probability_<label>`, `entropy`, `expected_entropy` and
            `mutual_information`. With `conformal`, also `conformal_low` and `conformal_high` of
            numbers, and `in_set_<label>` and `set_size` of classes.

        Raises:
            ConfigError: if the inputs are of another type, or a level is not between 0 and 1.
            InvalidData: if the inputs do not fit the training data, or there are too few validation
                points for the level.
        """
        import pandas as pd

        if not all(0 < level < 1 for level in quantiles):
            raise ConfigError(f"quantiles={tuple(quantiles)}: expected numbers between 0 and 1")
        if isinstance(inputs, str | Path):
            x, exposure = read_inputs_and_exposure(inputs, self.preprocessing, self.model.dtype)
        else:
            x = self.preprocessing.encode(inputs, self.model.dtype)
            exposure = self.preprocessing.exposure_of(inputs)
        index = inputs.index if isinstance(inputs, pd.DataFrame) else None
        regions = None if conformal is None else self.conformal(conformal)
        columns = self.prediction_columns(x, quantiles, regions, times=times, exposure=exposure)
        return pd.DataFrame(columns, index=index)

    def prediction_columns(
        self,
        x: Float[Tensor, "point *feature"],
        quantiles: Sequence[float],
        conformal: Conformal | None = None,
        *,
        times: Sequence[float] = (),
        exposure: Float[np.ndarray, " point"] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the columns of `predict` for encoded inputs.

        Args:
            x: encoded inputs.
            quantiles: levels between 0 and 1.
            conformal: calibrated regions.
            times: times at which probabilities of a later event are predicted.
            exposure: exposures of counts, in their own units; None for 1.
        """
        inputs = (self.posterior, self.preprocessing, x, quantiles, conformal)
        with use_threads(self.threads):
            return prediction_columns(*inputs, times=times, exposure=exposure)

    def conformal(self, level: float) -> Conformal:
        """Return intervals or sets of classes that the validation split calibrates.

        Args:
            level: probability with which the region of a new point contains its target.

        Raises:
            ConfigError: if the level is not between 0 and 1.
            InvalidData: if there are too few validation points for the level.
            InvalidRun: if the data changed since the fit.
        """
        with use_threads(self.threads):
            return calibrate(self.posterior, self.dataset().validation, level)

    @property
    def metrics(self) -> dict[str, Any] | None:
        """Return the content of `metrics.json`, or None for a run that is not complete."""
        return self.directory.read_metrics()

    @property
    def threads(self) -> int:
        """Return the number of intra-op threads of the fit, which predictions use too."""
        return int(self.record["threads"])

    def dataset(self) -> Dataset:
        """Return the data of the run; they are read and split at the first call.

        Raises:
            InvalidRun: if they are not the data of the fit.
        """
        return self._dataset

    @cached_property
    def _dataset(self) -> Dataset:
        dataset = load_dataset(self.config.data, dtype=self.model.dtype)
        fitted = self.record["dataset"]["sha256"]
        files = (self.config.data.test_file, self.config.data.validation_file)
        names = " or ".join([self.config.data.name, *filter(None, files)])
        if dataset.provenance.sha256 != fitted:
            command = f": bnn-symm {shell_words('evaluate', self.path)} --data FILE"
            raise InvalidRun(
                f"{self.path}: {names} changed since the fit (sha256 "
                f"{dataset.provenance.sha256[:12]}, was {fitted[:12]}); restore it, or evaluate "
                f"on other data{advise(command, '')}"
            )
        # None in runs of versions that did not record it.
        split = self.record["dataset"].get("split_sha256")
        if split is not None and dataset.provenance.split_sha256 != split:
            raise InvalidRun(
                f"{self.path}: the split of {self.config.data.name} changed since the fit (sha256 "
                f"of the rows {str(dataset.provenance.split_sha256)[:12]}, was {str(split)[:12]}), "
                "and its test split may contain training points; restore the files of the split, "
                "or fit again"
            )
        return dataset


_INFO = ("method", "engine", "seed", "seconds", "gradient_evaluations", "status", "versions")


@checked
def load_run(path: str | Path, *, module: str | Sequence[str] | None = None) -> Run:
    """Open a run directory, complete or not.

    If the device of the fit is not available, the run is opened on the CPU, with a warning.

    Args:
        path: the run directory.
        module: `package.module:name` of the code of the user that the run imports: the factory of
            its network, the classes of its likelihood and its prior. Loading never runs code that a
            directory names, so the names have to be given again.

    Returns:
        The run.

    Raises:
        InvalidRun: if it is not a run, is damaged, or has a newer schema.

    Example:
        >>> from bnn_symm import load_run
        >>> run = load_run("runs/gap-mlp-map-1")  # doctest: +SKIP
        >>> run.posterior.shape  # doctest: +SKIP
    """
    directory = RunDirectory(path)
    record = directory.read_record()
    directory.check_first_files()
    config = with_code(stored_config(directory), module)
    described = RunDirectory.read_json(directory.preprocessing)
    check_preprocessing(directory.preprocessing, described, record["num_outputs"])
    with parser_errors(directory.preprocessing, "restore the original file", problem="is damaged"):
        preprocessing = Preprocessing.from_dict(described)
    here = with_available_device(config)
    if here is not config:
        warnings.warn(
            f"{directory.path} was fitted on {config.device}, which is not available here; it is "
            "opened on the CPU",
            DeviceWarning,
            stacklevel=2,
        )
    network = read_network(directory, record)
    points = None if network is None else network.points
    shape, graph = preprocessing.input_shape, _graph(config, network)
    net = _build_network(here, shape, record["num_outputs"], points, graph)
    _restore_fixed(directory, record, net)
    full_model = _model(_with_chosen_scale(config, record), net, directory.read_prior_mean(record))
    if network is not None:
        network.restore(full_model, directory.path, module_of(config) or config.data.name)
    check_code(directory.path, record.get("code"), code_record(config, full_model))
    return Run(
        directory=directory,
        config=config,
        record=record,
        preprocessing=preprocessing,
        model=_stochastic_model(directory, config, record["status"], full_model),
        full_model=full_model,
    )


def _stochastic_model(
    directory: RunDirectory, config: Config, status: str, full_model: BayesianModel
) -> BayesianModel:
    """Return the model of the last stage of a run that has started.

    Raises:
        InvalidRun: if the fixed parameters of a complete run are missing.
    """
    for stage in reversed(stages_of(directory, config)):
        model = stage.model(full_model)
        if model is not None:
            return model
        if status == "complete":
            break
    raise InvalidRun(
        f"{directory.path} has no {directory.fixed_parameters.name}, the fixed parameters of its "
        "network; copy the whole directory, or fit again"
    )


def _with_chosen_scale(config: Config, record: Mapping[str, Any]) -> Config:
    """Return the configuration with the scale of the prior that the fit has chosen, if it did."""
    scale = record.get("prior_scale")
    if scale is None or config.prior.scale != "evidence":
        return config
    return dataclasses.replace(config, prior=dataclasses.replace(config.prior, scale=scale))


def _restore_fixed(directory: RunDirectory, record: Mapping[str, Any], net: nn.Module) -> None:
    """Load the masks, fixed values and matrices of the run into its network.

    Another version might draw them differently; the posterior depends on those of the fit.
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
            f"{what} has the mask fingerprint {short_fingerprint(now)}, {directory.record} has "
            f"{short_fingerprint(fitted)}: one of them was changed since the fit; restore it, or "
            "fit again"
        )


def read_network(directory: RunDirectory, record: Mapping[str, Any]) -> NetworkRecord | None:
    """Read the record of a network with constants of its own.

    Args:
        directory: the run directory.
        record: the content of `run.json`.

    Returns:
        The record; None for most networks of this package, and for runs of former versions.

    Raises:
        InvalidRun: if the file is missing or damaged.
    """
    return NetworkRecord.read(directory.network) if record.get("constants_fingerprint") else None


def _graph(config: Config, network: NetworkRecord | None) -> Graph | None:
    """Return the graph of a run, which is read from the data if it is too large for its record.

    `NetworkRecord.restore` compares it with that of the fit.
    """
    if network is None or not isinstance(config.architecture, GNNConfig):
        return None
    return network.graph or load_dataset(config.data, dtype=getattr(torch, config.dtype)).graph


def build_model(
    config: Config,
    input_shape: tuple[int, ...],
    num_outputs: int,
    mean: PriorMean | None = None,
    points: Tensor | None = None,
    graph: Graph | None = None,
) -> BayesianModel:
    """Build the model of a resolved configuration on its device.

    Args:
        config: a configuration with a likelihood.
        input_shape: the shape of a point.
        num_outputs: the number of outputs of the data.
        mean: the mean of the prior, if it is not zero; `prior.mean` is not read here.
        points: points on which a user-defined network is checked.
        graph: the graph whose nodes are the points, of data that have one.

    Returns:
        The model.

    Raises:
        ConfigError: if the device is not available, or the architecture or the mean does not fit.
    """
    net = _build_network(config, input_shape, num_outputs, points, graph)
    model = _model(config, net, mean)
    if points is not None:
        if mean is not None:
            statistics_at_prior_mean(model, mean, points)
        model.check_function(points)
    return model


def _build_network(
    config: Config,
    input_shape: tuple[int, ...],
    num_outputs: int,
    points: Tensor | None = None,
    graph: Graph | None = None,
) -> nn.Module:
    likelihood = config.likelihood
    assert likelihood is not None
    device = _device(config)
    net = build_network(
        config.architecture,
        input_shape=input_shape,
        num_outputs=build_likelihood(likelihood).num_net_outputs(num_outputs),
        seed=config.seed_of_initial_values,
        points=points,
        graph=graph,
    )
    return net.to(device=device, dtype=getattr(torch, config.dtype))


def _device(config: Config) -> torch.device:
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {config.device!r} is not available here ({reason}); use "
            f"{advise_setting('device=cpu')}"
        ) from None
    return device


def with_available_device(config: Config) -> Config:
    """Return the configuration, with the CPU in place of a device that is not available.

    Args:
        config: the configuration.

    Returns:
        The same object if its device is available.
    """
    try:
        _device(config)
    except ConfigError:
        return dataclasses.replace(config, device="cpu")
    return config


def _model(config: Config, net: nn.Module, mean: PriorMean | None) -> BayesianModel:
    assert config.likelihood is not None
    name = config.prior.name
    prior = dataclasses.replace(
        config.prior,
        mean=None if mean is None else mean.whole(net),
        name=build_family(name, config.prior) if isinstance(name, Imported) else name,
    )
    return BayesianModel(net, prior, build_likelihood(config.likelihood))


def stored_config(directory: RunDirectory) -> Config:
    """Return the resolved configuration of a run.

    Args:
        directory: the run directory.

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
    """Return the factory of a user-defined network; None for networks of this package.

    Args:
        config: the configuration.
    """
    return config.architecture.factory if isinstance(config.architecture, ModuleConfig) else None


def code_of(config: Config) -> tuple[str, ...]:
    """Return what a configuration imports of the user's code, each once.

    These are the factory of the network and the classes of likelihood and prior.

    Args:
        config: the configuration.
    """
    own = [config.likelihood, config.prior.name]
    classes = [named.name for named in own if isinstance(named, Imported)]
    factory = module_of(config)
    return tuple(dict.fromkeys([*([factory] if factory else []), *classes]))


def module_flags(names: Iterable[str]) -> str:
    """Return the flags that repeat names of code, each preceded by a space, for use in a shell.

    Args:
        names: of factories and classes.
    """
    return "".join(f" --module {shell_words(one_line(name, 80))}" for name in names)


def module_argument(names: Sequence[str]) -> str:
    """Return the argument that repeats names of code, for use in Python.

    Args:
        names: of factories and classes.
    """
    shown = [one_line(name, 80) for name in names]
    return f"module={(shown[0] if len(shown) == 1 else shown)!r}"


def with_code(config: Config, module: str | Sequence[str] | None) -> Config:
    """Return the configuration with the code that the user named.

    Nothing else that a directory names is imported. One name may replace one of the directory:
    code that was moved to another module.

    Args:
        config: the configuration of a run.
        module: `package.module:name` of factories and classes, or None.

    Raises:
        ConfigError: if a name is required and not given, or given and not required.
    """
    stored = code_of(config)
    given = [module] if isinstance(module, str) else list(module or ())
    missing = [name for name in stored if name not in given]
    further = [name for name in given if name not in stored]
    if further and len(missing) != 1:
        has = ", ".join(stored) if stored else "none"
        raise ConfigError(
            f"{advise('--module', 'module')} {one_line(further[0], 80)} is for code of the user; "
            f"this run has {one_line(has, 200)}"
        )
    if len(further) != len(missing):
        raise ConfigError(
            f"this run uses code of the user, {one_line(', '.join(missing), 200)}, and loading "
            "never runs code that a directory names; if you trust it, repeat it: "
            f"{advise(module_flags(stored).strip(), module_argument(stored))}"
        )
    return _renamed(config, dict(zip(missing, further, strict=True)))


def _renamed(config: Config, names: Mapping[str, str]) -> Config:
    """Return the configuration with other names of code."""
    architecture, likelihood, prior = config.architecture, config.likelihood, config.prior
    if isinstance(architecture, ModuleConfig):
        factory = names.get(architecture.factory, architecture.factory)
        architecture = dataclasses.replace(architecture, factory=factory)
    if isinstance(likelihood, Imported):
        name = names.get(likelihood.name, likelihood.name)
        likelihood = dataclasses.replace(likelihood, name=name)
    if isinstance(prior.name, Imported):
        name = names.get(prior.name.name, prior.name.name)
        prior = dataclasses.replace(prior, name=dataclasses.replace(prior.name, name=name))
    return dataclasses.replace(
        config, architecture=architecture, likelihood=likelihood, prior=prior
    )
