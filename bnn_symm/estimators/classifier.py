"""Classification: class probabilities of the posterior predictive distribution."""

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from bnn_symm.data.preprocessing.labels import plain_label
from bnn_symm.estimators.base import BNNEstimator


class BNNClassifier(ClassifierMixin, BNNEstimator):
    """A Bayesian neural network that classifies, as a scikit-learn estimator.

    Features are standardized inside, on the points that are fitted. Computation is in float32 for
    float32 inputs and in float64 for all others. Chains and members of an ensemble run one after
    another, unless `config` has `chain_method: parallel`; `n_jobs` of a grid search or a
    cross-validation works as for any estimator. Nothing is written to disk. `sample_weight` is not
    supported: weights of points are no part of a likelihood.

    Args:
        widths: hidden units, layer by layer; `()` is a linear model.
        activation: relu, gelu, tanh or silu.
        norm: none or layer.
        symmetry: what is done about the permutation symmetry of hidden units: standard,
            weight_asymmetric, sigma_asymmetric, init_matched, parameter_matched or block_fixed.
        prior_scale: scale of the prior of every weight, or `fan_in` (see `Prior`).
        method: mean_field_vi, nuts, hmc, map or deep_ensemble; or its settings, such as
            `NUTS(num_draws=1000)`.
        temperature: T of the tempered posterior; 1 is Bayes, below 1 is colder.
        num_steps: gradient steps of a method that optimizes; None for its own default.
        validation_fraction: share of the points that are held out of the fit and watched in
            `history_`; early stopping needs some.
        random_state: an int, with which a fit repeats to the same bits and leaves global generators
            as they were; a NumPy RandomState; or None for NumPy's global one, from which the seed
            is drawn.
        config: every other setting, as sections of a configuration: `{"inference":
            {"learning_rate": 0.01}}`.

    Attributes:
        classes_: the labels, sorted.
        posterior_: the `Posterior`: draws, its own `predict`, diagnostics, `save`.
        model_: the `BayesianModel`: prior x likelihood x network.
        history_: one row a logged step.
        n_iter_: steps of the optimizer, or iterations of a chain, warm-up included.
        config_: the resolved configuration.
        preprocessing_: from raw inputs to those of the network.
        n_features_in_: how many features `fit` saw.
        feature_names_in_: their names, where X had text for all of them.
    """

    def fit(self, X: Any, y: Any) -> "BNNClassifier":
        """Fits the posterior.

        Args:
            X: (point, feature), numbers.
            y: (point,), labels of any type that can be sorted.

        Raises:
            ConfigError: for a parameter that is not valid.
            FitDiverged: if the objective became NaN or infinite.
            ValueError: for data that scikit-learn refuses.
        """
        checked: Any = validate_data(
            self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2
        )
        x, y = checked
        check_classification_targets(y)
        classes, indices = np.unique(y, return_inverse=True)
        labels = tuple(plain_label(label) for label in classes)
        self._fit(x, indices, self._resolve(x), task="classification", class_labels=labels)
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities, averaged over the posterior: (point, class), in the order of
        `classes_`.
        """
        probabilities = self._predict(X, lambda predictive: predictive.probabilities())
        # Of a network in float32 they add up to 1 within 1e-7, which scikit-learn's log loss warns
        # of.
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each point, (point,)."""
        probabilities = self.predict_proba(
            X
        )  # which says so if nothing was fitted, and there are no classes
        return self.classes_[probabilities.argmax(axis=1)]
