"""Provide a scikit-learn regressor that predicts with the posterior of a neural network."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import RegressorMixin

from bnn_symm.diagnostics.calibration.conformal import central_levels
from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.estimators.base import BNNEstimator
from bnn_symm.estimators.training_data import is_table
from bnn_symm.models import build_likelihood
from bnn_symm.posteriors import Predictive


class BNNRegressor(RegressorMixin, BNNEstimator):
    """Regress with a Bayesian neural network, as a scikit-learn estimator.

    Features and target are standardized internally, on the points that are fitted; predictions are
    in the units of the target. Use `likelihood="poisson"` for counts, `heteroscedastic_gaussian`
    for noise that depends on the inputs, `student_t` for outliers, and `heteroscedastic_student_t`
    for both. See `BNNClassifier` for everything else.

    Several targets, the columns of y, are predicted together by `multivariate_gaussian`; `score`
    is the mean of their R2. Counts have one target: `sklearn.multioutput.MultiOutputRegressor` fits
    one estimator for each column.

    Args:
        widths: hidden units, layer by layer; `()` is a linear model.
        activation: relu, gelu, tanh or silu.
        norm: none or layer.
        symmetry: how the permutation symmetry of hidden units is treated: standard,
            weight_asymmetric, sigma_asymmetric, bias_asymmetric, bias_ordered, init_matched,
            parameter_matched or block_fixed.
        prior_scale: scale of the prior of every weight, or `fan_in` (see `Prior`).
        noise: `learned`, or its standard deviation as a fraction of that of the target; learned for
            each of several targets.
        method: mean_field_vi, nuts, hmc, map or deep_ensemble; or its settings, such as
            `NUTS(num_draws=1000)`. `auto` chooses by the size of the data, with its own defaults of
            prior and likelihood (`Automatic`).
        temperature: T of the tempered posterior; 1 is the Bayesian posterior, below 1 is colder.
        num_steps: gradient steps of a method that optimizes; None for its default.
        validation_fraction: fraction of the points that are held out of the fit and evaluated in
            `history_`; early stopping and conformal intervals need some.
        random_state: an int, a NumPy RandomState, or None for NumPy's global generator.
        config: every other setting, as sections of a configuration: `{"inference":
            {"learning_rate": 0.01}}`.
        likelihood: name of the distribution of the target given the outputs of the network, such as
            `student_t`; None for the default. `config` has its further settings.

    Attributes:
        posterior_: the `Posterior`: draws, `predict`, diagnostics.
        model_: the `BayesianModel`: prior, likelihood and network.
        history_: one row for each logged step.
        n_iter_: steps of the optimizer, or iterations of a chain, warm-up included.
        config_: the resolved configuration.
        preprocessing_: the conversion from raw inputs and targets to those of the network.
        notes_: sentences about what was decided for columns of a data frame.
        n_features_in_: the number of features in `fit`.
        feature_names_in_: their names, if all names of the columns of X were strings.
        target_names_: the names of the targets: those of the columns of a data frame, or of a
            series; else y, or y0, y1, ... if there are several.

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
        likelihood=None,
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
        self.noise = noise

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "BNNRegressor":
        """Fit the posterior.

        Args:
            X: (point, feature), a data frame or numbers; missing values are imputed.
            y: (point,), numbers; (point, target), an array or data frame of several targets.
            sample_weight: (point,); a point of weight w counts as w points. None for 1 each.

        Returns:
            The estimator itself.

        Raises:
            ConfigError: if a parameter is not valid.
            InvalidData: if counts are negative or not integers, or a column of a data frame has no
                clear type.
            FitDiverged: if the objective became NaN or infinite.
            ValueError: if scikit-learn refuses the data.
        """
        names = target_names(y)
        x, y, weight = self._check_training_data(X, y, sample_weight, is_regression=True)
        config = self._resolve(x)
        task = None if config.likelihood is None else build_likelihood(config.likelihood).task
        if config.likelihood is not None and task == "survival":
            raise ConfigError(
                f"likelihood {config.likelihood.name} is for times with a column of events, which "
                "estimators of scikit-learn do not read; use Dataset.from_frame(..., event=COLUMN)"
            )
        counts = task == "count"
        if y.ndim == 2:
            self._check_several(y, counts)
        task = "count" if counts else "regression"
        names = names or (("y",) if y.ndim == 1 else tuple(f"y{i}" for i in range(y.shape[1])))
        self._fit(x, y, config, task=task, weight=weight, target_names=names)
        self.target_names_ = names
        return self

    def _check_several(self, y: np.ndarray, counts: bool) -> None:
        """Refuse settings that are for one target.

        Raises:
            ConfigError: if the likelihood is one of counts, or the noise is fixed.
        """
        if counts:
            raise ConfigError(
                f"the likelihood is one of counts, which have one target, but y has {y.shape[1]} "
                "columns; fit one estimator for each: "
                "sklearn.multioutput.MultiOutputRegressor(BNNRegressor(...))"
            )
        if self.noise != "learned":
            raise ConfigError(
                f"noise={self.noise!r} is for one target, but y has {y.shape[1]} columns, whose "
                "noise is learned; leave it out"
            )

    def predict(
        self,
        X: Any,
        return_std: bool = False,
        return_interval: float | None = None,
        conformal: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, ...]:
        """Return the mean of the predictive distribution, in the units of the target.

        Args:
            X: (point, feature).
            return_std: whether to return also the standard deviation, of the shape of the mean, of
                a new target, noise included. `posterior_.predict(preprocessing_.encode(X))` has
                its epistemic and aleatoric parts.
            return_interval: the level of an interval to return also, such as 0.9: the lower and
                upper ends (point, 2), of several targets (point, target, 2), between which a new
                target is with this probability, and outside of which it is on both sides with the
                same.
            conformal: whether the interval is calibrated on the points of `validation_fraction`, so
                that it contains a new target with this probability even if the model is wrong.

        Returns:
            The mean, (point,) or (point, target) as y in `fit`; or a tuple of it and what else was
            asked for, in this order.

        Raises:
            ConfigError: if the level is not between 0 and 1, `conformal` has none, or it is asked
                for of several targets.
            InvalidData: if too few points were held out to calibrate intervals of this level.
        """
        if return_interval is None:
            if conformal:
                raise ConfigError(
                    "conformal=True is for intervals; give their level, such as return_interval=0.9"
                )
            if not return_std:
                return self._predict_targets(X, lambda predictive: predictive.mean())
            ends: Callable[[Predictive], Iterable[torch.Tensor]] = _no_interval
        else:
            level = check_level("return_interval", return_interval)
            ends = self._conformal(level).intervals if conformal else _central_interval(level)

        def summary(predictive: Predictive) -> torch.Tensor:
            columns = [predictive.mean(), predictive.standard_deviation(), *ends(predictive)]
            return torch.stack(columns, -1)

        found = self._predict_targets(X, summary)
        std = [found[..., 1]] if return_std else []
        interval = [] if return_interval is None else [found[..., 2:]]
        return (found[..., 0], *std, *interval)

    def _predict_targets(self, X: Any, summary: Callable[[Predictive], torch.Tensor]) -> np.ndarray:
        """Return a summary (point, ...) of one target, or (point, target, ...) of several."""

        def each(predictive: Predictive) -> torch.Tensor:
            targets = [summary(own) for own in predictive.columns]
            return targets[0] if len(targets) == 1 else torch.stack(targets, 1)

        return self._predict(X, each)

    def predict_quantiles(self, X: Any, levels: Sequence[float] = (0.05, 0.5, 0.95)) -> np.ndarray:
        """Return quantiles of the predictive distribution, in the units of the target.

        Args:
            X: (point, feature).
            levels: probabilities strictly between 0 and 1.

        Returns:
            (point, level), of several targets (point, target, level), noise included; of counts,
            integers.

        Raises:
            ConfigError: if a level is not between 0 and 1.
        """
        levels = [check_level("levels", level) for level in levels]
        return self._predict_targets(X, lambda predictive: predictive.quantiles(levels).T)


def target_names(y: Any) -> tuple[str, ...]:
    """Return the names of the columns of a data frame, or of a series; empty if there are none.

    Args:
        y: targets of any type.

    Raises:
        InvalidData: if two columns have one name.
    """
    if is_table(y):
        names = tuple(map(str, y.columns))
        repeated = [name for i, name in enumerate(names) if name in names[:i]]
        if repeated:
            raise InvalidData(f"y has two columns named {repeated[0]!r}; rename or drop one")
        return names
    name = getattr(y, "name", None)
    return (name,) if isinstance(name, str) and name else ()


def _no_interval(predictive: Predictive) -> Iterable[torch.Tensor]:
    return ()


def _central_interval(level: float) -> Callable[[Predictive], torch.Tensor]:
    """Return a function from predictions to the ends of their central intervals."""
    levels = central_levels(level)
    return lambda predictive: predictive.quantiles(levels)


def check_level(name: str, level: Any) -> float:
    """Return a level as a number.

    Args:
        name: of the argument.
        level: the level.

    Raises:
        ConfigError: if it is not between 0 and 1.
    """
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise ConfigError(f"{name}: got {level!r}, expected numbers between 0 and 1, such as 0.9")
    return float(level)
