"""Provide a scikit-learn classifier that predicts with the posterior of a neural network."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from bnn_symm.data.preprocessing.labels import Label, label_array, plain_label
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.estimators.base import BNNEstimator
from bnn_symm.models.likelihoods import build_likelihood, is_ordered
from bnn_symm.posteriors import Predictive
from bnn_symm.runs.configuration.config import Config


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
            weight_asymmetric, sigma_asymmetric, bias_asymmetric, bias_ordered, init_matched,
            parameter_matched or block_fixed.
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
        likelihood: name of the distribution of the target given the outputs of the network, such as
            `ordinal` or `bernoulli`; None for the default. `config` has its further settings.
        levels: the labels in their order, from lowest to highest, for `likelihood="ordinal"`. All
            have a probability, even those without a point in y. Default: the numbers that y has, in
            order, or the categories of y if it is an ordered categorical of pandas; an order of
            texts is never guessed.

    Attributes:
        classes_: the labels, sorted, as scikit-learn's scores expect.
        levels_: the labels in the order of `levels`, or that of the categories of y; else sorted.
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
        levels=None,
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
            likelihood=likelihood,
        )
        self.levels = levels

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "BNNClassifier":
        """Fit the posterior.

        Args:
            X: (point, feature), a data frame or numbers; missing values are imputed.
            y: (point,), labels of any type that can be sorted; an ordered categorical of pandas has
                an order of its own.
            sample_weight: (point,); a point of weight w counts as w points. None for 1 each.

        Returns:
            The estimator itself.

        Raises:
            ConfigError: if a parameter is not valid, or ordered classes have no order.
            InvalidData: if a column of a data frame has no clear type, or y has a label that
                `levels` does not list.
            FitDiverged: if the objective became NaN or infinite.
            ValueError: if scikit-learn refuses the data.
        """
        categories = ordered_categories(y)
        _check_one_target(y)
        x, y, weight = self._check_training_data(X, y, sample_weight, is_regression=False)
        check_classification_targets(y)
        classes, indices = np.unique(y, return_inverse=True)
        config = self._resolve(x)
        found = tuple(plain_label(label) for label in classes)
        levels = _levels(found, config, categories)
        ordered, places = classes, np.arange(len(classes))
        if levels is not found:
            place_of = {label: place for place, label in enumerate(levels)}
            indices = np.array([place_of[label] for label in found])[indices]
            ordered = label_array(levels)
            ordered = ordered.astype(object) if y.dtype.kind == "O" else ordered
            classes = np.unique(ordered)
            places = np.array([place_of[label] for label in classes.tolist()])
        self._fit(x, indices, config, task="classification", weight=weight, class_labels=levels)
        self.classes_, self.levels_, self._places = classes, ordered, places
        return self

    def _by_class(self, columns: np.ndarray) -> np.ndarray:
        """Return columns (point, level) in the order of `classes_`."""
        return columns[:, self._places]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities of the posterior predictive distribution.

        Args:
            X: (point, feature).

        Returns:
            (point, class), in the order of `classes_`.
        """
        probabilities = self._by_class(
            self._predict(X, lambda predictive: predictive.probabilities())
        )
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

        return self._by_class(self._predict(X, summary))

    def _decoded(self, samples: np.ndarray) -> np.ndarray:
        return self.levels_[samples]


def ordered_categories(y: Any) -> tuple[Label, ...] | None:
    """Return the categories of an ordered categorical of pandas; None for anything else.

    Args:
        y: labels of any type; a data frame of one column is that column.
    """
    if hasattr(y, "iloc") and getattr(y, "ndim", 1) == 2 and y.shape[1] == 1:
        y = y.iloc[:, 0]
    dtype = getattr(y, "dtype", None)
    if not getattr(dtype, "ordered", False) or not hasattr(dtype, "categories"):
        return None
    return tuple(plain_label(label) for label in dtype.categories)  # pyright: ignore[reportOptionalMemberAccess]


def _check_one_target(y: Any) -> None:
    """Refuse several columns of classes.

    Raises:
        ValueError: if there are several.
    """
    shape = getattr(y, "shape", ())
    if len(shape) == 2 and shape[1] > 1:
        raise ValueError(
            f"y has {shape[1]} columns, expected the classes of one target, (point,); fit one "
            "estimator for each column: sklearn.multioutput.MultiOutputClassifier("
            "BNNClassifier(...))"
        )


def _levels(
    found: tuple[Label, ...], config: Config, categories: tuple[Label, ...] | None
) -> tuple[Label, ...]:
    """Return all labels in the order of the model.

    Args:
        found: sorted labels of the points.
        config: has the declared levels and the likelihood.
        categories: of an ordered categorical.

    Returns:
        The labels; `found` itself if no order was declared.

    Raises:
        ConfigError: if classes are ordered and their order is not known, or given twice.
        InvalidData: if a label is not among those declared.
    """
    levels = config.data.levels
    if config.likelihood is not None and is_ordered(build_likelihood(config.likelihood)):
        if levels is None:
            levels = categories
        elif categories not in (None, levels):
            raise ConfigError(
                f"levels are {_names(levels)}, but the ordered categories of y are "
                f"{_names(categories)}; leave out levels, or reorder the categories"
            )
        if levels is None and any(isinstance(label, str) for label in found):
            raise ConfigError(
                f"likelihood {config.likelihood.name} needs the order of the classes of y, and "
                f"the texts {_names(found)} have none; give levels=[LOWEST, ..., HIGHEST], or y "
                "as an ordered categorical of pandas"
            )
    if levels is None:
        return found
    unknown = [label for label in found if label not in levels]
    if unknown:
        raise InvalidData(
            f"y has the class {quoted(unknown[0])}, which is not among the levels {_names(levels)};"
            " add it at its place"
        )
    return levels


def _names(labels: Sequence[Label]) -> str:
    return short_list(map(quoted, labels), 10, 80)
