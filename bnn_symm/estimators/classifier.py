"""Provide a scikit-learn classifier that predicts with the posterior of a neural network."""

from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from bnn_symm.data.preprocessing.labels import plain_label
from bnn_symm.estimators.base import BNNEstimator
from bnn_symm.posteriors import Predictive


class BNNClassifier(ClassifierMixin, BNNEstimator):
    """Classify with a Bayesian neural network, as a scikit-learn estimator.

    X is an array of numbers, or a data frame of pandas or polars, whose texts, categories,
    booleans, dates and missing values become features as in `Dataset.from_frame` (`notes_` says
    how). Features are standardized internally, on the points that are fitted. Computation is in
    float32 for float32 inputs and in float64 for all others. Chains and ensemble members run
    sequentially, unless `config` has `chain_method: parallel`; `n_jobs` of a grid search or a
    cross-validation works as for any estimator. Nothing is written to disk. With `sample_weight`, a
    point of weight w counts as w points. There is no `partial_fit`: a posterior of some points is
    no state from which any method continues to the posterior of more points.

    Args:
        widths: hidden units, layer by layer; `()` is a linear model.
        activation: relu, gelu, tanh or silu.
        norm: none or layer.
        symmetry: how the permutation symmetry of hidden units is treated: standard,
            weight_asymmetric, sigma_asymmetric, init_matched, parameter_matched or block_fixed.
        prior_scale: scale of the prior of every weight, or `fan_in` (see `Prior`).
        method: mean_field_vi, nuts, hmc, map or deep_ensemble; or its settings, such as
            `NUTS(num_draws=1000)`. `auto` chooses by the size of the data, with its own defaults of
            prior and likelihood (`Automatic`).
        temperature: T of the tempered posterior; 1 is the Bayesian posterior, below 1 is colder.
        num_steps: gradient steps of a method that optimizes; None for its default.
        validation_fraction: fraction of the points that are held out of the fit and evaluated in
            `history_`; early stopping and `predict_set` need some.
        random_state: an int, with which a fit is reproducible and does not change global
            generators; a NumPy RandomState; or None for NumPy's global generator, from which the
            seed is drawn.
        config: every other setting, as sections of a configuration: `{"inference":
            {"learning_rate": 0.01}}`.

    Attributes:
        classes_: the labels, sorted.
        posterior_: the `Posterior`: draws, `predict`, diagnostics.
        model_: the `BayesianModel`: prior, likelihood and network.
        history_: one row for each logged step.
        n_iter_: steps of the optimizer, or iterations of a chain, warm-up included.
        config_: the resolved configuration.
        preprocessing_: the conversion from raw inputs to those of the network.
        notes_: sentences about what was decided for columns of a data frame.
        n_features_in_: the number of features in `fit`.
        feature_names_in_: their names, if all names of the columns of X were strings.

    Example:
        >>> from bnn_symm import BNNClassifier
        >>> X, y = [[0.0], [0.1], [0.9], [1.0]], ["a", "a", "b", "b"]
        >>> model = BNNClassifier(widths=(4,), method="map", num_steps=5, random_state=0).fit(X, y)
        >>> model.predict_proba(X).shape
        (4, 2)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "BNNClassifier":
        """Fit the posterior.

        Args:
            X: (point, feature), a data frame or numbers; missing values are imputed.
            y: (point,), labels of any type that can be sorted.
            sample_weight: (point,); a point of weight w counts as w points. None for 1 each.

        Returns:
            The estimator itself.

        Raises:
            ConfigError: if a parameter is not valid.
            InvalidData: if a column of a data frame has no clear type.
            FitDiverged: if the objective became NaN or infinite.
            ValueError: if scikit-learn refuses the data.
        """
        x, y, weight = self._check_training_data(X, y, sample_weight)
        check_classification_targets(y)
        classes, indices = np.unique(y, return_inverse=True)
        labels = tuple(plain_label(label) for label in classes)
        config = self._resolve(x)
        self._fit(x, indices, config, task="classification", weight=weight, class_labels=labels)
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities of the posterior predictive distribution.

        Args:
            X: (point, feature).

        Returns:
            (point, class), in the order of `classes_`.
        """
        probabilities = self._predict(X, lambda predictive: predictive.probabilities())
        # In float32 they sum to 1 within 1e-7, and scikit-learn's log loss would warn.
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each point.

        Args:
            X: (point, feature).

        Returns:
            (point,), labels.
        """
        probabilities = self.predict_proba(X)  # Raises if the estimator is not fitted.
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_set(self, X: Any, level: float = 0.9) -> np.ndarray:
        """Return sets of classes that contain the true one with a probability.

        They are conformal: calibrated on the points of `validation_fraction`, so that this holds
        even if the model is wrong, on average over points.

        Args:
            X: (point, feature).
            level: the probability, between 0 and 1.

        Returns:
            (point, class), whether the class is in the set, in the order of `classes_`.

        Raises:
            ConfigError: if the level is not between 0 and 1.
            InvalidData: if too few points were held out to calibrate sets of this level.
        """
        regions = self._conformal(level)
        x = self.preprocessing_.encode(self._raw_inputs(X), self.model_.dtype)
        start = 0

        def summary(predictive: Predictive) -> torch.Tensor:
            nonlocal start
            rows = slice(start, start + predictive.outputs.shape[2])
            start = rows.stop
            return torch.from_numpy(regions.sets(predictive, x[rows]))

        return self._predict(X, summary)

    def _decoded(self, samples: np.ndarray) -> np.ndarray:
        return self.classes_[samples]
