"""Provide a scikit-learn regressor that predicts with the posterior of a neural network."""

from typing import Any

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from bnn_symm.estimators.base import BNNEstimator


class BNNRegressor(RegressorMixin, BNNEstimator):
    """Regress with a Bayesian neural network, as a scikit-learn estimator.

    Features and target are standardized internally, on the points that are fitted; predictions are
    in the units of the target. Use `config={"likelihood": {"name": "poisson"}}` for counts, and
    `heteroscedastic_gaussian` for noise that depends on the inputs. See `BNNClassifier` for
    everything else.

    Args:
        widths: hidden units, layer by layer; `()` is a linear model.
        activation: relu, gelu, tanh or silu.
        norm: none or layer.
        symmetry: how the permutation symmetry of hidden units is treated: standard,
            weight_asymmetric, sigma_asymmetric, init_matched, parameter_matched or block_fixed.
        prior_scale: scale of the prior of every weight, or `fan_in` (see `Prior`).
        noise: `learned`, or its standard deviation as a fraction of that of the target.
        method: mean_field_vi, nuts, hmc, map or deep_ensemble; or its settings, such as
            `NUTS(num_draws=1000)`.
        temperature: T of the tempered posterior; 1 is the Bayesian posterior, below 1 is colder.
        num_steps: gradient steps of a method that optimizes; None for its default.
        validation_fraction: fraction of the points that are held out of the fit and evaluated in
            `history_`; early stopping needs some.
        random_state: an int, a NumPy RandomState, or None for NumPy's global generator.
        config: every other setting, as sections of a configuration: `{"inference":
            {"learning_rate": 0.01}}`.

    Attributes:
        posterior_: the `Posterior`: draws, `predict`, diagnostics.
        model_: the `BayesianModel`: prior, likelihood and network.
        history_: one row for each logged step.
        n_iter_: steps of the optimizer, or iterations of a chain, warm-up included.
        config_: the resolved configuration.
        preprocessing_: the conversion from raw inputs and targets to those of the network.
        n_features_in_: the number of features in `fit`.
        feature_names_in_: their names, if all names of the columns of X were strings.

    Example:
        >>> from bnn_symm import BNNRegressor
        >>> X, y = [[0.0], [0.1], [0.9], [1.0]], [0.0, 0.1, 0.8, 1.1]
        >>> model = BNNRegressor(widths=(4,), method="map", num_steps=5, random_state=0).fit(X, y)
        >>> mean, sd = model.predict(X, return_std=True)
        >>> mean.shape, sd.shape
        ((4,), (4,))
    """

    def __init__(
        self,
        widths=(64, 64),
        *,
        activation="relu",
        norm="none",
        symmetry="standard",
        prior_scale=1.0,
        noise="learned",
        method="mean_field_vi",
        temperature=1.0,
        num_steps=None,
        validation_fraction=0.0,
        random_state=None,
        config=None,
    ):
        super().__init__(
            widths,
            activation=activation,
            norm=norm,
            symmetry=symmetry,
            prior_scale=prior_scale,
            method=method,
            temperature=temperature,
            num_steps=num_steps,
            validation_fraction=validation_fraction,
            random_state=random_state,
            config=config,
        )
        self.noise = noise

    def fit(self, X: Any, y: Any) -> "BNNRegressor":
        """Fit the posterior.

        Args:
            X: (point, feature), numbers.
            y: (point,), numbers.

        Returns:
            The estimator itself.

        Raises:
            ConfigError: if a parameter is not valid.
            InvalidData: if counts are negative or not integers.
            FitDiverged: if the objective became NaN or infinite.
            ValueError: if scikit-learn refuses the data.
        """
        checked: Any = validate_data(
            self, X, y, dtype=[np.float64, np.float32], y_numeric=True, ensure_min_samples=2
        )
        x, y = checked
        config = self._resolve(x)
        counts = config.likelihood is not None and config.likelihood.task == "count"
        self._fit(x, y, config, task="count" if counts else "regression")
        return self

    def predict(
        self, X: Any, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return the mean of the predictive distribution, in the units of the target.

        Args:
            X: (point, feature).
            return_std: whether to return also the standard deviation (point,) of a new target,
                noise included. `posterior_.predict(preprocessing_.encode(X))` has its epistemic and
                aleatoric parts.

        Returns:
            The mean (point,), or mean and standard deviation.
        """
        if not return_std:
            return self._predict(X, lambda predictive: predictive.mean())
        both = self._predict(
            X,
            lambda predictive: torch.stack([predictive.mean(), predictive.standard_deviation()], 1),
        )
        return both[:, 0], both[:, 1]
