"""Define the base class of both estimators: parameters, one fit, and predictions at raw inputs."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from bnn_symm.architectures import count_flops
from bnn_symm.data import Task
from bnn_symm.data.in_memory import as_pandas
from bnn_symm.data.preprocessing.column_values import check_names
from bnn_symm.data.preprocessing.labels import Label
from bnn_symm.diagnostics.calibration.conformal import Conformal, calibrate
from bnn_symm.errors import InvalidData
from bnn_symm.estimators.parameters import default_parameters, imputes, resolve
from bnn_symm.estimators.training_data import is_table, training_data
from bnn_symm.posteriors import Predictive
from bnn_symm.randomness import numpy_generator
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.prepare import (
    gradient_flops,
    resolve_prior_mean,
    with_chosen_method,
    with_task_defaults,
)
from bnn_symm.runs.run import build_model
from bnn_symm.threads import choose_threads, use_threads

# Seeds from a generator have the same range as those of scikit-learn.
_MAX_SEED = np.iinfo(np.int32).max

# Pyro is not thread-safe, and the number of threads of torch belongs to the process: in threads of
# joblib, only one fit or prediction runs at a time.
_LOCK = threading.RLock()


class BNNEstimator(BaseEstimator):
    """Provide a Bayesian neural network with the scikit-learn interface.

    This is the base class of `BNNClassifier` and `BNNRegressor`.
    """

    # No type annotations: in scikit-learn a constructor accepts anything, and `fit` validates it.
    def __init__(
        self,
        widths=(64, 64),
        *,
        activation="relu",
        norm="none",
        symmetry="standard",
        prior_scale=1.0,
        method="mean_field_vi",
        temperature=1.0,
        num_steps=None,
        validation_fraction=0.0,
        random_state=None,
        config=None,
        likelihood=None,
    ):
        self.widths = widths
        self.activation = activation
        self.norm = norm
        self.symmetry = symmetry
        self.prior_scale = prior_scale
        self.method = method
        self.temperature = temperature
        self.num_steps = num_steps
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.config = config
        self.likelihood = likelihood

    if not TYPE_CHECKING:  # where every attribute would be known

        def __getattr__(self, name: str) -> Any:
            """Raise the error of an attribute that is missing, with the reason for `partial_fit`.

            Programs ask by `hasattr` whether an estimator has `partial_fit`, so that it is no
            method that raises an error.
            """
            if name == "partial_fit":
                raise AttributeError(
                    f"{type(self).__name__} has no partial_fit, because no method continues from "
                    "the posterior of some points to that of more; call fit with all points"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = imputes(self.config)
        return tags

    def _check_training_data(
        self, X: Any, y: Any, sample_weight: Any, *, is_regression: bool
    ) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """Return a table of pandas or an array (point, feature), the target and the weights.

        The target of a regression may have several columns, (point, column).
        """
        checks = {"y_numeric": True, "multi_output": True} if is_regression else {}
        x, target = self._check_inputs(X, y, checks)
        if target.ndim == 2 and target.shape[1] == 1:
            target = column_or_1d(target, warn=True)
        if sample_weight is None:
            return x, target, None
        options: dict[str, Any] = {"dtype": np.float64, "ensure_non_negative": True}
        return x, target, _check_sample_weight(sample_weight, target, **options)

    def _check_inputs(self, X: Any, y: Any, checks: dict[str, Any]) -> tuple[Any, np.ndarray]:
        """Return a table of pandas or an array (point, feature), and the target."""
        self._reads_tables = is_table(X)
        if self._reads_tables:
            check_names(X)
        if not self._reads_tables:
            checked: Any = validate_data(
                self, X, y, ensure_min_samples=2, **checks, **self._array_checks()
            )
            return checked
        # The target first: the other call stores the names of the columns.
        target: Any = validate_data(self, y=y, **checks)
        table = as_pandas(validate_data(self, X, reset=True, skip_check_array=True))
        check_consistent_length(table, target)
        if len(table) < 2:
            raise InvalidData("X has 1 row, expected a minimum of 2; use more data")
        return table, target

    def _array_checks(self) -> dict[str, Any]:
        """Return how scikit-learn checks arrays."""
        return {
            "dtype": [np.float64, np.float32],
            "ensure_all_finite": "allow-nan" if imputes(self.config) else True,
        }

    def _resolve(self, x: Any) -> Config:
        """Return the configuration of a fit to these inputs, with a drawn seed."""
        dtypes = [x.dtype] if isinstance(x, np.ndarray) else x.dtypes
        dtype = "float32" if all(each == np.float32 for each in dtypes) else "float64"
        seed = _seed(self.random_state)
        return resolve(
            self.get_params(deep=False), default_parameters(type(self)), dtype=dtype, seed=seed
        )

    def _fit(
        self,
        x: Any,
        y: np.ndarray,
        config: Config,
        *,
        task: Task,
        weight: np.ndarray | None,
        class_labels: tuple[Label, ...] = (),
        target_names: tuple[str, ...] = ("y",),
    ) -> None:
        """Fit checked inputs and a target of class indices or numbers, one column for each name."""
        config = with_task_defaults(config, task, len(class_labels) or len(target_names))
        names = getattr(self, "feature_names_in_", None)
        with _LOCK:
            dataset = training_data(
                x,
                y,
                config.data,
                task=task,
                class_labels=class_labels,
                target_names=target_names,
                feature_names=None if names is None else tuple(names),
                dtype=getattr(torch, config.dtype),
                seed=config.seed,
                weight=weight,
            )
            config, mean = resolve_prior_mean(config)
            model = build_model(
                config, dataset.input_shape, dataset.num_outputs, mean, dataset.train.x
            )
            chosen, reason = with_chosen_method(config, model, dataset)
            flops = gradient_flops([*chosen.warm_start, chosen.inference], model, dataset)
            with use_threads(_threads(flops, config)):
                posterior = config.inference.fit(model, dataset, seed=config.seed)
        self.config_ = chosen
        self.preprocessing_ = dataset.preprocessing
        self.notes_ = [*dataset.notes, *([reason] if reason else [])]
        self.model_ = posterior.model
        self.posterior_ = posterior
        self._validation = dataset.validation
        self.history_ = posterior.history
        self.n_iter_ = max((int(row["step"]) for row in posterior.history), default=0)

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Return samples of the predictive distribution: new targets, noise included.

        Each sample is one function of the posterior at all points, with independent noise.

        Args:
            X: (point, feature).
            n_samples: number of samples.
            random_state: an int, a NumPy RandomState, or None for NumPy's global generator.

        Returns:
            (point, sample), in the units or labels of the target; (point, target, sample) of
            several targets.
        """
        generator = numpy_generator(_seed(random_state), "samples of an estimator")
        drawn: list[Any] = []

        def summary(predictive: Predictive) -> Tensor:
            if not drawn:
                drawn.append(generator.integers(predictive.num_draws, size=n_samples))
            seed = int(generator.integers(_MAX_SEED))
            samples = predictive.select(torch.from_numpy(drawn[0])).sample(seed=seed)[0]
            return samples.movedim(0, -1)

        samples = self._predict(X, summary)
        return self._decoded(samples)

    def _decoded(self, samples: np.ndarray) -> np.ndarray:
        """Return targets as they were given to `fit`."""
        return samples

    def _predict(self, X: Any, summary: Callable[[Predictive], Tensor]) -> np.ndarray:
        """Return a summary of the predictive distribution, (point, ...), at raw inputs."""
        check_is_fitted(self, "posterior_")
        x = self._raw_inputs(X)
        net, shape = self.model_.net, self.preprocessing_.input_shape
        with _LOCK, use_threads(_threads(count_flops(net, shape, len(x)), self.config_)):
            inputs = self.preprocessing_.encode(x, self.model_.dtype)
            return torch.cat(
                [summary(part) for part in self.posterior_.iter_predict(inputs)]
            ).numpy()

    def _conformal(self, level: float) -> Conformal:
        """Return regions that the points of `validation_fraction` calibrate."""
        check_is_fitted(self, "posterior_")
        with _LOCK:
            return calibrate(self.posterior_, self._validation, level)

    def _raw_inputs(self, X: Any) -> Any:
        """Return the inputs as the kind of data, table or array, that was fitted."""
        if self._reads_tables and is_table(X):
            check_names(X)
            return as_pandas(validate_data(self, X, reset=False, skip_check_array=True))
        x: Any = validate_data(self, X, reset=False, **self._array_checks())
        if not self._reads_tables:
            return x
        import pandas as pd

        columns = [column.name for column in self.preprocessing_.columns]
        return pd.DataFrame(x, columns=getattr(self, "feature_names_in_", columns))


def _seed(random_state: Any) -> int:
    """Return the seed: an int itself, or the next number of a generator.

    None stands for the global generator of NumPy.
    """
    if isinstance(random_state, int | np.integer) and random_state >= 0:
        return int(random_state)
    return int(check_random_state(random_state).randint(_MAX_SEED))


def _threads(flops: int, config: Config) -> int:
    """Return the number of threads; `auto` never exceeds the present number."""
    threads = choose_threads(flops, config.threads)
    return min(threads, torch.get_num_threads()) if config.threads == "auto" else threads
