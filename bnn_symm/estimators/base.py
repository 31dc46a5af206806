"""Define the base class of both estimators: parameters, one fit, and predictions at raw inputs."""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from bnn_symm.architectures import count_flops
from bnn_symm.data import Task
from bnn_symm.data.preprocessing.labels import Label
from bnn_symm.estimators.parameters import default_parameters, resolve
from bnn_symm.estimators.training_data import training_data
from bnn_symm.models import check_task, default_likelihood
from bnn_symm.posteriors import Predictive
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.prepare import gradient_flops, resolve_prior_mean
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

    def _resolve(self, x: np.ndarray) -> Config:
        """Return the configuration of a fit to these inputs, with a drawn seed."""
        dtype = "float32" if x.dtype == np.float32 else "float64"
        seed = _seed(self.random_state)
        return resolve(
            self.get_params(deep=False), default_parameters(type(self)), dtype=dtype, seed=seed
        )

    def _fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        config: Config,
        *,
        task: Task,
        class_labels: tuple[Label, ...] = (),
    ) -> None:
        """Fit checked inputs (point, feature) and a target (point,) of class indices or numbers."""
        likelihood = config.likelihood or default_likelihood(task)
        check_task(likelihood, task)
        config = dataclasses.replace(config, likelihood=likelihood)
        names = getattr(self, "feature_names_in_", None)
        with _LOCK:
            dataset = training_data(
                x,
                y,
                config.data,
                task=task,
                class_labels=class_labels,
                feature_names=None if names is None else tuple(names),
                dtype=getattr(torch, config.dtype),
                seed=config.seed,
            )
            config, mean = resolve_prior_mean(config)
            model = build_model(
                config, dataset.input_shape, dataset.num_outputs, mean, dataset.train.x
            )
            with use_threads(_threads(gradient_flops([config.inference], model, dataset), config)):
                posterior = config.inference.fit(model, dataset, seed=config.seed)
        self.config_ = config
        self.preprocessing_ = dataset.preprocessing
        self.model_ = posterior.model
        self.posterior_ = posterior
        self.history_ = posterior.history
        self.n_iter_ = max((int(row["step"]) for row in posterior.history), default=0)

    def _predict(self, X: Any, summary: Callable[[Predictive], Tensor]) -> np.ndarray:
        """Return a summary of the predictive distribution, (point, ...), at raw inputs."""
        check_is_fitted(self, "posterior_")
        x: Any = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        net, shape = self.model_.net, self.preprocessing_.input_shape
        with _LOCK, use_threads(_threads(count_flops(net, shape, len(x)), self.config_)):
            inputs = self.preprocessing_.encode(x, self.model_.dtype)
            return torch.cat(
                [summary(part) for part in self.posterior_.iter_predict(inputs)]
            ).numpy()


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
