"""Several targets of the regressor, and ordered classes of the classifier."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.estimators import BNNClassifier, BNNRegressor
from bnn_symm.models import MultivariateGaussian, Ordinal, StudentT

QUICK = {
    "widths": (),
    "method": "map",
    "num_steps": 60,
    "random_state": 0,
    "config": {"inference": {"learning_rate": 0.1}},
}
BRIEF = {**QUICK, "num_steps": 2}
LEVELS = ["low", "medium", "high"]


def two_targets(points: int = 60) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(points, 2)), columns=["a", "b"])
    noise = rng.normal(size=(points, 2))
    small = 0.01 * (X["a"] + 0.3 * noise[:, 0])
    return X, pd.DataFrame({"small": small, "large": 500 + 40 * X["b"] + 4 * noise[:, 1]})


def answers(points: int = 90) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=points)
    levels = np.digitize(x + 0.3 * rng.logistic(size=points), [-0.6, 0.6])
    return pd.DataFrame({"x": x, "other": rng.normal(size=points)}), np.array(LEVELS)[levels]


@pytest.fixture(scope="module")
def several() -> BNNRegressor:
    return BNNRegressor(**{**QUICK, "num_steps": 150}).fit(*two_targets())


@pytest.fixture(scope="module")
def ordered() -> BNNClassifier:
    return BNNClassifier(likelihood="ordinal", levels=LEVELS, **QUICK).fit(*answers())


# -- several targets


def test_targets_are_predicted_in_their_own_units_with_their_axis_second(several):
    X, y = two_targets()
    assert several.model_.likelihood == MultivariateGaussian(num_columns=2)
    assert several.target_names_ == ("small", "large")
    assert several.posterior_.predict(several.preprocessing_.encode(X)).column_names == (
        "small",
        "large",
    )
    mean, sd, interval = several.predict(X, return_std=True, return_interval=0.8)
    assert (mean.shape, sd.shape, interval.shape) == ((60, 2), (60, 2), (60, 2, 2))
    np.testing.assert_array_equal(several.predict(X), mean)
    # A linear model with a weak prior: near least squares.
    exact = LinearRegression().fit(X, y).predict(X)
    assert np.abs((mean - exact) / y.std(axis=0).to_numpy()).max() < 0.1
    quantiles = several.predict_quantiles(X, [0.1, 0.5, 0.9])
    assert quantiles.shape == (60, 2, 3)
    np.testing.assert_allclose(quantiles[..., [0, 2]], interval)
    samples = several.sample_y(X.iloc[:5], 2000, random_state=1)
    assert samples.shape == (5, 2, 2000)
    assert np.abs((samples.mean(-1) - mean[:5]) / sd[:5]).max() < 4.5 / np.sqrt(2000)
    inside = (samples <= quantiles[:5, :, 2, None]).mean(-1)
    np.testing.assert_allclose(inside, 0.9, atol=4.5 * np.sqrt(0.09 / 2000))
    assert several.score(X, y) == pytest.approx(r2_score(y, mean))
    assert several.score(X, y) == pytest.approx(
        np.mean([r2_score(y[c], m) for c, m in zip(y, mean.T, strict=True)])
    )
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(several)).predict(X), mean)


def test_arrays_and_other_frames_give_the_same_numbers():
    X, y = two_targets()
    brief = BNNRegressor(**BRIEF)
    wanted = clone(brief).fit(X, y).predict(X)
    array = clone(brief).fit(X, y.to_numpy())
    np.testing.assert_array_equal(array.predict(X), wanted)
    assert array.target_names_ == ("y0", "y1")
    polars = clone(brief).fit(pl.from_pandas(X), pl.from_pandas(y))
    np.testing.assert_array_equal(polars.predict(X), wanted)
    assert polars.target_names_ == ("small", "large")
    one = clone(brief).fit(X, y["small"])
    assert (one.predict(X).shape, one.target_names_) == ((60,), ("small",))
    with pytest.warns(DataConversionWarning):
        column = clone(brief).fit(X, y[["small"]])
    np.testing.assert_array_equal(column.predict(X), one.predict(X))


def test_what_is_for_one_target_is_refused_with_the_reason(several):
    X, y = two_targets()
    counts = pd.DataFrame({"a": np.arange(60), "b": np.arange(60) % 3})
    with pytest.raises(ConfigError, match="MultiOutputRegressor"):
        BNNRegressor(likelihood="poisson", **QUICK).fit(X, counts)
    poisson = MultiOutputRegressor(BNNRegressor(likelihood="poisson", **BRIEF))
    assert poisson.fit(X, counts).predict(X).shape == (60, 2)
    with pytest.raises(ConfigError, match="is for one target"):
        BNNRegressor(noise=0.1, **QUICK).fit(X, y)
    with pytest.raises(ConfigError, match="student_t is not for data with 2 target columns"):
        BNNRegressor(likelihood="student_t", **QUICK).fit(X, y)
    held_out = BNNRegressor(validation_fraction=0.3, **BRIEF).fit(X, y)
    with pytest.raises(ConfigError, match="one target"):
        held_out.predict(X, return_interval=0.5, conformal=True)
    with pytest.raises(InvalidData, match="two columns named 'a'"):
        clone(several).fit(X, y.set_axis(["a", "a"], axis=1))
    with pytest.raises(ValueError, match="could not convert string"):
        clone(several).fit(X, np.where([False, True], "many", y.to_numpy()))
    with pytest.raises(ValueError, match="MultiOutputClassifier"):
        BNNClassifier(**QUICK).fit(X, counts)


def test_in_a_pipeline_with_frames_and_a_grid_with_routed_weights():
    X, y = two_targets()
    weight = np.where(np.arange(60) < 30, 4.0, 1.0)
    with config_context(enable_metadata_routing=True):
        estimator = BNNRegressor(**BRIEF).set_fit_request(sample_weight=True)
        estimator.set_score_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, estimator).set_output(transform="pandas")
        grid = GridSearchCV(pipeline, {"bnnregressor__prior_scale": [1.0]}, cv=2)
        grid.fit(X, y, sample_weight=weight)
    assert np.isfinite(grid.best_score_)
    fitted = grid.best_estimator_[-1]
    np.testing.assert_array_equal(fitted.feature_names_in_, ["a", "b"])
    scaled = StandardScaler().fit_transform(X)
    alone = clone(estimator).fit(scaled, y, sample_weight=weight)
    np.testing.assert_allclose(grid.predict(X), alone.predict(scaled))
    unweighted = clone(estimator).fit(scaled, y)
    assert np.abs(grid.predict(X) - unweighted.predict(scaled)).max() > 0.01


# -- ordered classes


def test_levels_give_the_order_and_classes_stay_sorted(ordered):
    X, y = answers()
    assert ordered.model_.likelihood == Ordinal(num_classes=3)
    assert ordered.levels_.tolist() == LEVELS
    assert ordered.preprocessing_.class_labels == tuple(LEVELS)
    # Scores of scikit-learn expect sorted labels, and columns in their order.
    assert ordered.classes_.tolist() == sorted(LEVELS)
    probabilities = ordered.predict_proba(X)
    inputs = ordered.preprocessing_.encode(X, ordered.model_.dtype)
    by_level = ordered.posterior_.predict(inputs).probabilities().numpy()
    np.testing.assert_allclose(probabilities, by_level[:, [2, 0, 1]])
    np.testing.assert_array_equal(ordered.predict(X), ordered.classes_[probabilities.argmax(1)])
    assert ordered.score(X, y) > 0.6
    extremes = ordered.predict(pd.DataFrame({"x": [-9.0, 9.0], "other": 0.0}))
    assert extremes.tolist() == ["low", "high"]
    assert cross_val_score(ordered, X, y, cv=2, scoring="neg_log_loss").mean() > -1
    samples = ordered.sample_y(X.iloc[:3], 3000, random_state=0)
    for column, label in enumerate(ordered.classes_):
        shares = (samples == label).mean(1)
        error = 4.5 * np.sqrt(0.25 / 3000)
        np.testing.assert_allclose(shares, probabilities[:3, column], atol=error)


def test_ordered_categories_and_numbers_give_the_order_and_texts_do_not(ordered):
    X, y = answers()
    wanted = ordered.predict_proba(X)
    free = clone(ordered).set_params(levels=None)
    categorical = pd.Series(pd.Categorical(y, LEVELS, ordered=True))
    for own in (categorical, categorical.array):
        np.testing.assert_array_equal(clone(free).fit(X, own).predict_proba(X), wanted)
    numbers = np.array([LEVELS.index(label) for label in y]) * 9  # 0, 9 and 18: not as texts
    by_value = clone(free).fit(X, numbers)
    np.testing.assert_allclose(by_value.predict_proba(X), wanted[:, [1, 2, 0]])
    assert by_value.levels_.tolist() == [0, 9, 18]
    unordered = categorical.cat.as_unordered()
    for own in (y, unordered, numbers.astype(str)):
        with pytest.raises(ConfigError, match="needs the order"):
            clone(free).fit(X, own)
    with pytest.raises(ConfigError, match="reorder the categories"):
        clone(free).set_params(levels=LEVELS[::-1]).fit(X, categorical)
    # Without an ordered likelihood, the categories have no effect.
    plain = BNNClassifier(**BRIEF).fit(X, categorical)
    assert plain.levels_.tolist() == plain.classes_.tolist() == sorted(LEVELS)


def test_a_level_without_points_has_a_probability_and_an_unknown_label_is_refused(ordered):
    X, y = answers()
    more = clone(ordered).set_params(num_steps=2, levels=np.array(["none", *LEVELS])).fit(X, y)
    assert more.classes_.tolist() == ["high", "low", "medium", "none"]
    assert more.predict_proba(X).shape == (90, 4)
    with pytest.raises(InvalidData, match="'high', which is not among the levels"):
        clone(ordered).set_params(levels=["low", "medium", "top"]).fit(X, y)
    with pytest.raises(ConfigError, match="low is there twice"):
        clone(ordered).set_params(levels=["low", "low", "high"]).fit(X, y)
    with pytest.raises(ConfigError, match="bernoulli"):
        BNNClassifier(likelihood="ordinal", **QUICK).fit(X, X["x"] > 0)


# -- settings


def test_the_likelihood_is_a_parameter_beside_its_settings_in_config():
    X, y = two_targets()
    brief = {**BRIEF, "likelihood": "student_t"}
    config = {"likelihood": {"degrees_of_freedom": 4.0}}
    fitted = BNNRegressor(**{**brief, "config": config}).fit(X, y["small"])
    assert fitted.model_.likelihood == StudentT(degrees_of_freedom=4.0)
    both = {"likelihood": {"name": "gaussian"}}
    with pytest.raises(ConfigError, match="are the same setting"):
        BNNRegressor(**{**brief, "config": both}).fit(X, y["small"])
    with pytest.raises(ConfigError, match="did you mean 'student_t'"):
        BNNRegressor(likelihood="student", **QUICK).fit(X, y["small"])


@pytest.mark.parametrize("estimator", [BNNClassifier, BNNRegressor])
def test_there_is_no_partial_fit_and_the_error_says_why(estimator):
    assert not hasattr(estimator, "partial_fit")
    assert not hasattr(estimator(), "partial_fit")
    with pytest.raises(AttributeError, match="has no partial_fit, because no method continues"):
        estimator().partial_fit([[0.0]], [1])
    with pytest.raises(AttributeError, match=f"'{estimator.__name__}' object has no attribute"):
        _ = estimator().partial
