"""Regression: mean and standard deviation of the posterior predictive distribution."""

from typing import Any

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from bnn_symm.estimators.base import BNNEstimator


class BNNRegressor(RegressorMixin, BNNEstimator):
    """A Bayesian neural network for regression, as a scikit-learn estimator.

    Features and target are standardized inside, on the points that are fitted; predictions are in
    the target's own units. Counts are fitted with `config={"likelihood": {"name": "poisson"}}`, a
    noise that depends on the inputs with `heteroscedastic_gaussian`. All else is as `BNNClassifier`
    says.

    Args:
        widths: hidden units, layer by layer; `()` is a linear model.
        activation: relu, gelu, tanh or silu.
        norm: none or layer.
        symmetry: what is done about the permutation symmetry of hidden units: standard,
            weight_asymmetric, sigma_asymmetric, init_matched, parameter_matched or block_fixed.
        prior_scale: scale of the prior of every weight, or `fan_in` (see `Prior`).
        noise: `learned`, or its standard deviation, as a fraction of the target's own.
        method: mean_field_vi, nuts, hmc, map or deep_ensemble; or its settings, such as
            `NUTS(num_draws=1000)`.
        temperature: T of the tempered posterior; 1 is Bayes, below 1 is colder.
        num_steps: gradient steps of a method that optimizes; None for its own default.
        validation_fraction: share of the points that are held out of the fit and watched in
            `history_`; early stopping needs some.
        random_state: an int, a NumPy RandomState, or None for NumPy's global one.
        config: every other setting, as sections of a configuration: `{"inference":
            {"learning_rate": 0.01}}`.

    Attributes:
        posterior_: the `Posterior`: draws, its own `predict`, diagnostics, `save`.
        model_: the `BayesianModel`: prior x likelihood x network.
        history_: one row a logged step.
        n_iter_: steps of the optimizer, or iterations of a chain, warm-up included.
        config_: the resolved configuration.
        preprocessing_: from raw inputs and targets to those of the network.
        n_features_in_: how many features `fit` saw.
        feature_names_in_: their names, where X had text for all of them.
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
        """Fits the posterior.

        Args:
            X: (point, feature), numbers.
            y: (point,), numbers.

        Raises:
            ConfigError: for a parameter that is not valid.
            InvalidData: for counts that are none.
            FitDiverged: if the objective became NaN or infinite.
            ValueError: for data that scikit-learn refuses.
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
        """The mean of the predictive distribution, (point,), in the target's own units.

        Args:
            X: (point, feature).
            return_std: also its standard deviation (point,): of a new target, so with the noise.
                Its epistemic and aleatoric parts are in
                `posterior_.predict(preprocessing_.encode(X))`.
        """
        if not return_std:
            return self._predict(X, lambda predictive: predictive.mean())
        both = self._predict(
            X,
            lambda predictive: torch.stack([predictive.mean(), predictive.standard_deviation()], 1),
        )
        return both[:, 0], both[:, 1]
