"""Data frames and missing values: columns become features as in `Dataset.from_frame`."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.estimators import BNNClassifier, BNNRegressor

QUICK = {
    "widths": (4,),
    "num_steps": 150,
    "random_state": 0,
    "config": {"inference": {"num_draws": 10}, "data": {"unseen": "ignore"}},
}


def table(rows: int = 80) -> pd.DataFrame:
    """Return a column of every type, some values of which are missing."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": rng.normal(50, 10, rows),
            "town": rng.choice(["Ulm", "Jena", "Bonn"], rows),
            "new": rng.random(rows) > 0.5,
            "sold": pd.Timestamp("2020-01-01")
            + pd.to_timedelta(rng.integers(0, 700, rows), unit="D"),
            "kind": pd.Categorical(rng.choice(["x", "y"], rows)),
            "rooms": pd.array(rng.integers(1, 6, rows), dtype="Int64"),
            "customer_id": np.arange(rows),
        }
    )
    frame.loc[::7, "size"] = np.nan
    frame.loc[3, "town"] = None
    frame.loc[5, "rooms"] = pd.NA
    return frame


def price(frame: pd.DataFrame) -> np.ndarray:
    towns = frame["town"].map({"Ulm": 0.0, "Jena": 20.0, "Bonn": 40.0}).fillna(0.0)
    return (100 + 10 * frame["new"] + towns).to_numpy(dtype=float)


@pytest.fixture(scope="module")
def fitted() -> BNNRegressor:
    frame = table()
    return BNNRegressor(**QUICK).fit(frame, price(frame))


@pytest.mark.thorough
def test_columns_are_those_of_a_data_set_of_the_same_table(fitted):
    frame = table()
    keys = {"task": "regression", "test_fraction": 0.0, "validation_fraction": 0.0}
    expected = Dataset.from_frame(frame.assign(price=price(frame)), "price", **keys)
    own, same = fitted.preprocessing_, expected.preprocessing
    assert own.feature_names == same.feature_names
    assert [(c.name, c.kind, c.categories) for c in own.columns] == [
        (c.name, c.kind, c.categories) for c in same.columns
    ]
    np.testing.assert_allclose(own.encode(frame), same.encode(frame), rtol=1e-5, atol=1e-6)
    assert fitted.n_features_in_ == frame.shape[1]  # with the identifier, which is left out
    np.testing.assert_array_equal(fitted.feature_names_in_, frame.columns)
    assert any("customer_id" in note for note in fitted.notes_)
    assert fitted.score(frame, price(frame)) > 0.7


@pytest.mark.thorough
def test_polars_gives_the_same_numbers_and_copies_remember(fitted):
    frame = table()
    expected = fitted.predict(frame)
    np.testing.assert_array_equal(fitted.predict(pl.from_pandas(frame)), expected)
    other = clone(fitted).fit(pl.from_pandas(frame), pl.Series(price(frame)))
    np.testing.assert_array_equal(other.predict(frame), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(frame), expected)


def test_a_row_is_predicted_alike_whatever_is_beside_it(fitted):
    frame = table()
    together = fitted.predict(frame)[:5]
    alone = [fitted.predict(frame.iloc[[row]])[0] for row in range(5)]
    np.testing.assert_allclose(alone, together, rtol=1e-6)


def test_other_columns_are_errors(fitted):
    frame = table()
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame.drop(columns="town"))
    with pytest.raises(ValueError, match="same order"):
        fitted.predict(frame[frame.columns[::-1]])
    with pytest.raises(InvalidData, match="minimum of 2"):
        clone(fitted).fit(frame.iloc[:1], [1.0])
    with pytest.raises(ValueError, match="inconsistent"):
        clone(fitted).fit(frame, [1.0])
    with pytest.raises(ValueError, match="requires y"):
        clone(fitted).fit(frame, None)
    with pytest.raises(ValueError, match="NaN"):
        clone(fitted).fit(frame, np.where(np.arange(80) == 3, np.nan, 1.0))


@pytest.mark.thorough
def test_unknown_categories_and_new_gaps_are_errors_unless_they_are_ignored(fitted):
    frame, strict = table(), {**QUICK, "config": {"inference": {"num_draws": 10}}}
    news = frame.assign(kind="z", new=pd.array([None] * len(frame), dtype="boolean"))
    assert np.isfinite(fitted.predict(news)).all()
    estimator = BNNRegressor(**strict).fit(frame, price(frame))
    with pytest.raises(InvalidData, match="'z' is not a category"):
        estimator.predict(frame.assign(kind="z"))
    with pytest.raises(InvalidData, match="column 'new': missing value in row 1"):
        estimator.predict(frame.assign(new=pd.array([None] * len(frame), dtype="boolean")))


@pytest.mark.thorough
def test_declared_types_and_columns_left_out():
    frame = table()
    data = {"types": {"rooms": "category"}, "drop": ["sold", "size"]}
    config = {**QUICK["config"], "data": data}
    estimator = BNNRegressor(**{**QUICK, "config": config}).fit(frame, price(frame))
    kinds = {column.name: column.kind for column in estimator.preprocessing_.columns}
    assert kinds == {"town": "category", "new": "boolean", "kind": "category", "rooms": "category"}
    with pytest.raises(InvalidData, match="no column 'areas'"):
        clone(estimator).set_params(config={"data": {"drop": "areas"}}).fit(frame, price(frame))
    for data in ({"drop": "x0"}, {"types": {"x0": "category"}}):
        with pytest.raises(ConfigError, match="is for data frames"):
            BNNRegressor(config={"data": data}).fit(np.eye(5), np.arange(5.0))


@pytest.mark.thorough
def test_in_cross_validation_a_grid_and_a_column_transformer(fitted):
    frame = table()
    frame.loc[0, "town"] = "only here"
    scores = cross_val_score(fitted, frame, price(frame), cv=3, error_score="raise")
    assert np.isfinite(scores).all()
    scale = ColumnTransformer(
        [("scaled", StandardScaler(), ["size"])],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    pipeline = make_pipeline(scale, BNNClassifier(**{**QUICK, "num_steps": 100}))
    labels = np.where(frame["new"], "new", "used")
    search = GridSearchCV(
        pipeline, {"bnnclassifier__prior_scale": [0.3, 1.0]}, cv=2, error_score="raise"
    ).fit(frame, labels)
    assert search.best_score_ > 0.9
    assert set(search.predict(frame)) == {"new", "used"}


@pytest.mark.thorough
def test_missing_values_of_arrays_are_imputed_unless_they_are_refused():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    y = 3 * X[:, 0] - X[:, 2]
    X[::4, 1] = np.nan
    estimator = BNNRegressor(**{**QUICK, "config": {"inference": {"num_draws": 10}}}).fit(X, y)
    assert estimator.preprocessing_.feature_names == ("x0", "x1", "x1 (missing)", "x2")
    median = np.where(np.isnan(X), np.nanmedian(X, axis=0), X)
    encoded = estimator.preprocessing_.features(X)
    np.testing.assert_array_equal(encoded[:, [0, 1, 3]], median)
    np.testing.assert_array_equal(encoded[:, 2], np.isnan(X[:, 1]))
    with pytest.raises(InvalidData, match="column 'x0': missing value in row 2"):
        estimator.predict(np.where(np.arange(40)[:, None] == 1, np.nan, X))
    assert get_tags(estimator).input_tags.allow_nan
    refusing = BNNRegressor(config={"data": {"missing": "error"}})
    assert not get_tags(refusing).input_tags.allow_nan
    with pytest.raises(ValueError, match="contains NaN"):
        refusing.fit(X, y)


@pytest.mark.thorough
def test_a_table_of_float32_is_computed_in_float32():
    frame = pd.DataFrame(np.eye(6, dtype=np.float32), columns=list("abcdef"))
    assert BNNRegressor(**QUICK).fit(frame, np.arange(6.0)).config_.dtype == "float32"
    assert BNNRegressor(**QUICK).fit(frame.assign(g=1.0), np.arange(6.0)).config_.dtype == "float64"


# -- predictive distributions


def test_intervals_quantiles_and_samples_are_those_of_one_distribution(fitted):
    frame = table().iloc[:6]
    mean, sd = fitted.predict(frame, return_std=True)
    both = fitted.predict(frame, return_std=True, return_interval=0.8)
    np.testing.assert_array_equal(both[0], mean)
    np.testing.assert_array_equal(both[1], sd)
    np.testing.assert_array_equal(fitted.predict(frame, return_interval=0.8)[1], both[2])
    quantiles = fitted.predict_quantiles(frame, [0.1, 0.5, 0.9])
    np.testing.assert_array_equal(quantiles[:, [0, 2]], both[2])
    draws = 4000
    samples = fitted.sample_y(frame, draws, random_state=1)
    assert samples.shape == (6, draws)
    assert np.abs(samples.mean(1) - mean).max() < 4.5 * sd.max() / np.sqrt(draws)
    below = (samples[:, None] <= quantiles[:, :, None]).mean(2)
    error = np.sqrt(0.25 / draws)
    assert np.abs(below - [0.1, 0.5, 0.9]).max() < 4.5 * error
    np.testing.assert_array_equal(samples[:, :3], fitted.sample_y(frame, draws, 1)[:, :3])
    assert not np.array_equal(samples, fitted.sample_y(frame, draws, random_state=2))


@pytest.mark.thorough
def test_a_sample_is_one_function_of_the_posterior():
    X = np.linspace(-1, 1, 20)[:, None]
    config = {"inference": {"name": "deep_ensemble", "num_members": 2, "num_steps": 200}}
    estimator = BNNRegressor(widths=(4,), random_state=0, config=config).fit(X, X[:, 0])
    far = np.full((2, 1), 30.0)  # where members differ by far more than the noise
    first, second = estimator.sample_y(far, 200)
    members = estimator.posterior_.predict(estimator.preprocessing_.encode(far)).draw_mean()[:, 0]
    apart = abs(float(members[0, 0] - members[1, 0]))
    assert np.abs(first - second).max() < 0.5 * apart
    assert first.std() > 0.4 * apart


@pytest.mark.thorough
def test_samples_of_classes_have_their_labels_and_probabilities():
    X = np.repeat([[0.0], [1.0]], 20, axis=0)
    y = np.repeat(["a", "b"], 20)
    estimator = BNNClassifier(**QUICK).fit(X, y)
    samples = estimator.sample_y(X[[0, -1]], 2000, random_state=0)
    shares = (samples == "b").mean(1)
    probabilities = estimator.predict_proba(X[[0, -1]])[:, 1]
    np.testing.assert_allclose(shares, probabilities, atol=4.5 * np.sqrt(0.25 / 2000))


@pytest.mark.parametrize("level", [0, 1.0, 90, -0.1, "0.9", True, float("nan")])
def test_levels_are_between_0_and_1(fitted, level):
    frame = table().iloc[:2]
    with pytest.raises(ConfigError, match="between 0 and 1"):
        fitted.predict(frame, return_interval=level)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        fitted.predict_quantiles(frame, [level])


# -- conformal regions


@pytest.mark.thorough
def test_conformal_intervals_and_sets_are_calibrated_on_the_points_held_out(fitted):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 1))
    y = X[:, 0] + (0.5 + np.abs(X[:, 0])) * rng.standard_t(3, size=150)
    keys = {"widths": (), "num_steps": 150, "random_state": 0, "validation_fraction": 0.4}
    regressor = BNNRegressor(noise=0.1, **keys).fit(X, y)
    new = rng.normal(size=(300, 1))
    target = new[:, 0] + (0.5 + np.abs(new[:, 0])) * rng.standard_t(3, size=300)

    def coverage(**options) -> float:
        mean, interval = regressor.predict(new, return_interval=0.9, **options)
        np.testing.assert_array_equal(mean, regressor.predict(new))
        return ((interval[:, 0] <= target) & (target <= interval[:, 1])).mean()

    # Of 60 points, the coverage of 90 % has a standard deviation of 0.038, and 0.017 of 300 new.
    assert coverage() < 0.5
    assert coverage(conformal=True) > 0.9 - 4 * 0.042
    again = pickle.loads(pickle.dumps(regressor))
    one, other = (
        each.predict(new, return_std=True, return_interval=0.9, conformal=True)
        for each in (again, regressor)
    )
    np.testing.assert_array_equal(one[2], other[2])
    labels = np.where(rng.random(150) < 0.2, "a", np.where(X[:, 0] > 0, "b", "c"))
    classifier = BNNClassifier(**keys).fit(X, labels)
    sets = classifier.predict_set(X, 0.9)
    assert (sets.dtype, sets.shape) == (bool, (150, 3))
    assert sets[np.arange(150), classifier.predict_proba(X).argmax(1)].all()
    truth = np.searchsorted(classifier.classes_, labels)
    assert sets[np.arange(150), truth].mean() > 0.9 - 4 * 0.045
    with pytest.raises(InvalidData, match="at least 99 validation points, got 60"):
        classifier.predict_set(X, 0.99)
    with pytest.raises(InvalidData, match="at least 9 validation points, got 0"):
        fitted.predict(table(), return_interval=0.9, conformal=True)
    with pytest.raises(ConfigError, match="give their level"):
        regressor.predict(X, conformal=True)
