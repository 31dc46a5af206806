"""Behavior that the checks of scikit-learn do not cover: data, randomness, processes, files."""

import copy
import pickle
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from bnn_symm.architectures import fingerprint
from bnn_symm.errors import InvalidData
from bnn_symm.estimators import BNNClassifier, BNNRegressor
from bnn_symm.inference import HMC, NUTS, DeepEnsemble
from bnn_symm.models import HeteroscedasticGaussian, Poisson

QUICK = {
    "widths": (4,),
    "num_steps": 20,
    "random_state": 0,
    "config": {"inference": {"num_draws": 10}},
}
CHAINS = {"num_chains": 2, "num_warmup": 20, "num_draws": 20}
METHODS = {
    "nuts": NUTS(max_tree_depth=2, **CHAINS),
    "hmc": HMC(max_num_steps=4, **CHAINS),
    "deep_ensemble": DeepEnsemble(num_members=2, num_steps=20),
}


def blobs(points: int = 30, classes: int = 3, features: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return well separated points, in order of the class."""
    rng = np.random.default_rng(0)
    y = np.sort(np.arange(points) % classes)
    return 5 * y[:, None] + rng.normal(size=(points, features)), y


def line(points: int = 30) -> tuple[np.ndarray, np.ndarray]:
    X = np.linspace(-1, 1, points)[:, None]
    return X, 1000 + 50 * X[:, 0]


def global_state():
    """None means the global generator of NumPy, as in scikit-learn."""
    return np.random.get_state()  # noqa: NPY002


def quick(estimator, **keywords):
    return estimator(**{**QUICK, **keywords})


# -- data


@pytest.mark.thorough
@pytest.mark.parametrize(
    "labels",
    [
        np.array(["three", "one", "two"]),
        np.array(["three", "one", "two"], dtype=object),
        np.array([-7, 3, 10]),
        np.array([2.0, 1.0, -1.0]),
        np.array(["2020-03-01", "2021-01-01", "1999-12-31"], dtype="datetime64[D]").astype(str),
    ],
)
def test_labels_of_any_type_come_back(labels):
    X, y = blobs()
    estimator = quick(BNNClassifier, num_steps=150).fit(X, labels[y])
    np.testing.assert_array_equal(estimator.classes_, np.unique(labels))
    assert estimator.classes_.dtype == labels.dtype
    np.testing.assert_array_equal(estimator.predict(X), labels[y])
    assert estimator.score(X, labels[y]) == 1.0
    probabilities = estimator.predict_proba(X)
    np.testing.assert_array_equal(estimator.classes_[probabilities.argmax(1)], labels[y])
    # The preprocessing knows them too, so that diagnostics of the posterior can be given raw
    # targets.
    encoded = estimator.preprocessing_.encode_target(labels[y])
    np.testing.assert_array_equal(estimator.classes_[encoded.numpy()], labels[y])


@pytest.mark.thorough
@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli"])
def test_two_classes_of_booleans(likelihood):
    X, y = blobs(classes=2)
    config = {**QUICK["config"], "likelihood": {"name": likelihood}}
    estimator = quick(BNNClassifier, num_steps=150, config=config).fit(X, y == 1)
    assert estimator.predict_proba(X).shape == (30, 2)
    assert estimator.score(X, y == 1) == 1.0


def test_one_class_only_is_predicted():
    X, _ = blobs()
    estimator = quick(BNNClassifier).fit(X, ["only"] * 30)
    np.testing.assert_array_equal(estimator.predict_proba(X), np.ones((30, 1)))
    assert set(estimator.predict(X)) == {"only"}


@pytest.mark.thorough
@pytest.mark.parametrize("estimator", [BNNClassifier, BNNRegressor])
def test_little_data_and_constant_columns(estimator):
    X, y = blobs(10, 2, 1)
    assert np.isfinite(quick(estimator).fit(X, y).predict(X)).all()
    constant = np.hstack([X, np.full((10, 1), 0.1), np.zeros((10, 1))])
    assert np.isfinite(quick(estimator).fit(constant, y).predict(constant + 1)).all()
    assert np.isfinite(quick(estimator).fit(np.ones((10, 2)), y).predict(constant[:, :2])).all()
    assert quick(estimator).fit(X[[0, -1]], y[[0, -1]]).predict(X).shape == (10,)
    with pytest.raises(ValueError, match="minimum of 2"):
        quick(estimator).fit(X[:1], y[:1])


@pytest.mark.thorough
def test_a_constant_target_is_predicted_in_its_own_units():
    X, _ = line()
    mean, sd = (
        quick(BNNRegressor, num_steps=300).fit(X, np.full(30, 7.0)).predict(X, return_std=True)
    )
    np.testing.assert_allclose(mean, 7.0, atol=0.5)
    assert (sd < 1).all()


@pytest.mark.thorough
def test_predictions_are_in_the_targets_own_units():
    X, y = line()
    mean, sd = quick(BNNRegressor, num_steps=400).fit(X, y).predict(X, return_std=True)
    assert mean.shape == sd.shape == (30,)
    assert mean.dtype == sd.dtype == np.float64
    assert np.abs(mean - y).max() < 30  # the target spans 950 to 1050
    assert (sd > 0).all()
    assert (sd < 30).all()


def test_the_unit_of_the_target_and_of_the_features_does_not_matter():
    X, y = line()
    one = quick(BNNRegressor).fit(X, y).predict(X)
    other = quick(BNNRegressor).fit(1e3 * X - 5, 1e-3 * y).predict(1e3 * X - 5)
    np.testing.assert_allclose(1e3 * other, one, rtol=1e-9)


@pytest.mark.thorough
def test_counts_and_a_noise_that_depends_on_the_inputs():
    X, _ = line()
    counts = np.random.default_rng(0).poisson(np.exp(1 + X[:, 0]))
    poisson = {**QUICK["config"], "likelihood": {"name": "poisson"}}
    estimator = quick(BNNRegressor, config=poisson, num_steps=200).fit(X, counts)
    assert isinstance(estimator.model_.likelihood, Poisson)
    mean, sd = estimator.predict(X, return_std=True)
    assert (mean > 0).all()
    assert (sd >= np.sqrt(mean)).all()  # a Poisson's own, and the posterior's
    with pytest.raises(InvalidData, match="counts"):
        quick(BNNRegressor, config=poisson).fit(X, counts - 0.5)
    other = {**QUICK["config"], "likelihood": {"name": "heteroscedastic_gaussian"}}
    estimator = quick(BNNRegressor, config=other).fit(X, counts)
    assert isinstance(estimator.model_.likelihood, HeteroscedasticGaussian)
    assert estimator.predict(X).shape == (30,)


@pytest.mark.thorough
def test_frames_keep_their_names_and_give_the_same_bits_as_arrays():
    X, y = blobs()
    frame = pd.DataFrame(X, columns=["height", "weight"])
    estimator = quick(BNNClassifier).fit(frame, pd.Series(y, name="kind"))
    np.testing.assert_array_equal(estimator.feature_names_in_, ["height", "weight"])
    assert estimator.preprocessing_.feature_names == ("height", "weight")
    same = quick(BNNClassifier).fit(X, y)
    assert same.preprocessing_.feature_names == ("x0", "x1")
    np.testing.assert_array_equal(same.predict_proba(X), estimator.predict_proba(frame))


def test_in_a_pipeline_with_pandas_output():
    X, y = blobs()
    frame = pd.DataFrame(X, columns=["height", "weight"])
    pipeline = make_pipeline(
        FunctionTransformer(lambda f: f.assign(product=f.height * f.weight)),
        StandardScaler(),
        quick(BNNClassifier),
    ).set_output(transform="pandas")
    pipeline.fit(frame, y)
    np.testing.assert_array_equal(pipeline[-1].feature_names_in_, ["height", "weight", "product"])
    assert pipeline.predict(frame).shape == (30,)


@pytest.mark.thorough
def test_a_float32_network_predicts_probabilities_that_add_up():
    X, y = blobs()
    estimator = quick(BNNClassifier).fit(X.astype(np.float32), y)
    assert estimator.posterior_.mean().dtype == torch.float32
    assert quick(BNNClassifier).fit(X, y).posterior_.mean().dtype == torch.float64
    log_loss(y, estimator.predict_proba(X.astype(np.float32)))  # warns of those that do not


def test_points_held_out_are_watched_and_stop_a_fit():
    X, y = blobs(60)
    estimator = quick(BNNClassifier).fit(X, y)
    assert {row["validation_nll"] for row in estimator.history_} == {None}
    config = {
        "inference": {"early_stopping": {"patience": 2}, "learning_rate": 0.5, "log_every": 1}
    }
    stopped = quick(BNNClassifier, num_steps=4000, validation_fraction=0.2, config=config).fit(X, y)
    assert stopped.n_iter_ < 4000
    assert stopped.n_iter_ == stopped.history_[-1]["step"]
    assert all(row["validation_nll"] > 0 for row in stopped.history_)


@pytest.mark.thorough
@pytest.mark.parametrize("estimator", [BNNClassifier, BNNRegressor])
def test_a_point_of_weight_w_counts_as_w_points(estimator):
    X, y = blobs()
    weight = np.arange(30) % 4
    keys = {"method": "map", "num_steps": 50, "config": None}
    repeated = quick(estimator, **keys).fit(X.repeat(weight, axis=0), y.repeat(weight))
    weighted = quick(estimator, **keys).fit(X, y, sample_weight=weight)
    plain = quick(estimator, **keys).fit(X, y)
    predict = "predict" if estimator is BNNRegressor else "predict_proba"
    wanted = getattr(repeated, predict)(X)
    np.testing.assert_allclose(getattr(weighted, predict)(X), wanted, rtol=1e-6)
    assert np.abs(getattr(plain, predict)(X) - wanted).max() > 1e-3
    with pytest.raises(ValueError, match="Negative"):
        quick(estimator).fit(X, y, sample_weight=weight - 1.0)
    with pytest.raises((ValueError, InvalidData), match="zero"):
        quick(estimator).fit(X, y, sample_weight=np.zeros(30))


@pytest.mark.thorough
def test_weights_are_routed_through_a_pipeline_and_a_grid():
    X, y = blobs()
    weight = np.where(y == 0, 5.0, 1.0)
    with config_context(enable_metadata_routing=True):
        estimator = quick(BNNClassifier, method="map", config=None)
        estimator.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, estimator)
        got = pipeline.fit(X, y, sample_weight=weight).predict_proba(X)
        grid = GridSearchCV(pipeline, {"bnnclassifier__temperature": [1.0]}, cv=2)
        assert 0 <= grid.fit(X, y, sample_weight=weight).best_score_ <= 1
    scaled = StandardScaler().fit_transform(X)
    alone = quick(BNNClassifier, method="map", config=None).fit(scaled, y, sample_weight=weight)
    np.testing.assert_allclose(got, alone.predict_proba(scaled))


def test_balanced_classes_have_one_total_weight():
    X, y = blobs()
    y = np.minimum(y, 1)  # 10 and 20 points
    keys = {"method": "map", "num_steps": 50}
    # Weights of classes do not change the standardization, those of points do.
    config = {"data": {"standardize": False, "class_weights": "balanced"}}
    got = quick(BNNClassifier, config=config, **keys).fit(X, y)
    weight = np.where(y == 0, 1.5, 0.75)
    config = {"data": {"standardize": False}}
    wanted = quick(BNNClassifier, config=config, **keys).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(got.predict_proba(X), wanted.predict_proba(X), rtol=1e-6)


# -- methods and symmetry


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("estimator", [BNNClassifier, BNNRegressor])
def test_every_method_fits_predicts_and_pickles(estimator, method):
    X, y = blobs()
    fitted = estimator(widths=(3,), method=METHODS[method], random_state=1).fit(X, y)
    expected = {"nuts": (2, 20), "hmc": (2, 20), "deep_ensemble": (2, 1)}[method]
    assert fitted.posterior_.shape[:2] == expected
    assert fitted.n_iter_ == {"nuts": 40, "hmc": 40, "deep_ensemble": 20}[method]
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "kind", ["weight_asymmetric", "sigma_asymmetric", "parameter_matched", "init_matched"]
)
def test_kinds_of_symmetry(kind):
    X, y = blobs(features=6)
    standard = quick(BNNClassifier, widths=(8, 8)).fit(X, y)
    fitted = quick(BNNClassifier, widths=(8, 8), symmetry=kind, num_steps=150).fit(X, y)
    has_fixed = kind in ("weight_asymmetric", "sigma_asymmetric")
    assert (fingerprint(fitted.model_.net) is not None) == has_fixed
    fewer = kind in ("weight_asymmetric", "parameter_matched")
    assert (fitted.model_.num_parameters < standard.model_.num_parameters) == fewer
    assert fitted.score(X, y) == 1.0
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert fingerprint(again.model_.net) == fingerprint(fitted.model_.net)


# -- randomness and state


@pytest.mark.thorough
def test_the_same_int_gives_the_same_bits_and_another_does_not():
    X, y = blobs()
    one, same, other = (
        quick(BNNClassifier, random_state=seed).fit(X, y).predict_proba(X)
        for seed in (3, np.int64(3), 4)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.thorough
def test_a_generator_gives_another_seed_each_time_and_none_is_the_global_one():
    X, y = blobs()

    def fit(state):
        return quick(BNNClassifier, random_state=state).fit(X, y).predict_proba(X)

    generator = np.random.RandomState(5)
    first, second = fit(generator), fit(generator)
    np.testing.assert_array_equal(first, fit(np.random.RandomState(5)))
    assert not np.array_equal(first, second)
    before = global_state()
    np.random.seed(5)  # noqa: NPY002
    try:
        np.testing.assert_array_equal(fit(None), first)
        np.testing.assert_array_equal(fit(None), second)
    finally:
        np.random.set_state(before)  # noqa: NPY002


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["mean_field_vi", *METHODS])
def test_global_generators_and_threads_are_left_as_they_were(method):
    X, y = blobs()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    # Python's own generator is not among them, since here beartype draws from it which items of a
    # list to check.
    states = torch.get_rng_state(), global_state()[1].copy()
    try:
        keys = (
            {"method": METHODS[method], "num_steps": None, "config": None}
            if method in METHODS
            else {}
        )
        quick(BNNClassifier, **keys).fit(X, y).predict(X)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(global_state()[1], states[1])


@pytest.mark.thorough
def test_fitting_is_quiet_and_writes_no_files(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    X, y = blobs()
    quick(BNNClassifier).fit(X, y).predict(X)
    BNNRegressor(widths=(3,), method=METHODS["nuts"], random_state=0).fit(X, y).predict(X)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_an_interruption_is_passed_on_and_leaves_no_half_fitted_estimator():
    X, y = blobs()
    estimator = quick(BNNClassifier, num_steps=10**7)
    states = torch.get_rng_state(), torch.get_num_threads()

    def interrupt(number, frame):
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(X, y)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.get_num_threads() == states[1]
    with pytest.raises(NotFittedError):
        estimator.predict(X)
    assert estimator.set_params(num_steps=20).fit(X, y).n_iter_ == 20  # nothing is locked


def test_clones_forget_and_copies_remember():
    X, y = blobs()
    fitted = quick(BNNClassifier).fit(X, y)
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)
    np.testing.assert_array_equal(clone(fitted).fit(X, y).predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(copy.deepcopy(fitted).predict_proba(X), fitted.predict_proba(X))


def test_fitting_again_forgets_the_data_before():
    X, y = blobs()
    estimator = quick(BNNClassifier).fit(X, y)
    estimator.fit(X[:, :1], y % 2)
    assert estimator.n_features_in_ == 1
    assert estimator.predict_proba(X[:, :1]).shape == (30, 2)


@pytest.mark.thorough
def test_a_grid_search_in_threads_is_as_one_after_another():
    from joblib import parallel_backend

    X, y = blobs()
    grid = {"temperature": [1.0, 0.1], "symmetry": ["standard", "sigma_asymmetric"]}
    threads = torch.get_num_threads()
    alone = GridSearchCV(quick(BNNClassifier), grid, cv=2, scoring="neg_log_loss").fit(X, y)
    with parallel_backend("threading"):
        together = GridSearchCV(
            quick(BNNClassifier), grid, cv=2, scoring="neg_log_loss", n_jobs=2
        ).fit(X, y)
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(
        together.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )


@pytest.mark.slow
def test_a_grid_search_in_processes_is_as_one_after_another():
    X, y = blobs()
    grid = {"prior_scale": [0.3, "fan_in"], "method": ["mean_field_vi", "map"]}
    estimator = quick(BNNRegressor, config=None)
    alone = GridSearchCV(estimator, grid, cv=2).fit(X, y)
    together = GridSearchCV(estimator, grid, cv=2, n_jobs=2).fit(X, y)
    # Compiled kernels may add in another order under the thread limits of joblib's workers.
    np.testing.assert_allclose(
        together.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"], rtol=1e-6
    )
    assert np.isfinite(together.best_score_)
