"""Parameters of estimators and the configuration that they define."""

import dataclasses

import numpy as np
import pytest

from bnn_symm.errors import ConfigError
from bnn_symm.estimators import BNNClassifier, BNNRegressor
from bnn_symm.estimators.parameters import KEYS, default_parameters, resolve
from bnn_symm.inference import HMC, MAP, NUTS, MeanFieldVI
from bnn_symm.inference.method import Method
from bnn_symm.models import Gaussian
from bnn_symm.runs import Config, parse_config
from bnn_symm.settings import settings


def resolved(estimator, **keywords) -> Config:
    keywords = {"dtype": "float32", "seed": 0, **keywords}
    return resolve(estimator.get_params(), default_parameters(type(estimator)), **keywords)


def test_the_defaults_are_those_of_a_configuration_but_for_the_points_held_out():
    own = dataclasses.replace(Config().data, validation_fraction=0.0)
    assert resolved(BNNClassifier()) == dataclasses.replace(Config(), data=own)
    assert resolved(BNNRegressor()) == dataclasses.replace(Config(), data=own)


CHANGED = {
    "widths": (5, 6),
    "activation": "tanh",
    "norm": "layer",
    "symmetry": "weight_asymmetric",
    "prior_scale": "fan_in",
    "likelihood": "student_t",
    "levels": ["low", "high"],
    "noise": 0.3,
    "method": "map",
    "temperature": 0.5,
    "num_steps": 17,
    "validation_fraction": 0.25,
}


@pytest.mark.parametrize("name", KEYS)
def test_every_parameter_sets_its_key(name):
    raw = {"data": {"validation_fraction": 0.0}}
    section, *path, last = KEYS[name].split(".")
    place = raw.setdefault(section, {})
    for below in path:
        place = place.setdefault(below, {})
    place[last] = CHANGED[name]
    estimator = BNNClassifier if name == "levels" else BNNRegressor
    assert resolved(estimator(**{name: CHANGED[name]})) == parse_config(raw)


def test_a_parameter_at_its_default_leaves_its_key_to_config():
    config = {
        "architecture": {"name": "mlp", "widths": [3], "symmetry": {"kind": "sigma_asymmetric"}},
        "inference": {"name": "nuts", "num_draws": 7, "chain_method": "parallel"},
        "prior": {"name": "laplace", "scale": 0.5},
        "likelihood": {"noise": 0.2},
        "data": {"validation_fraction": 0.5, "standardize": False},
        "threads": 2,
    }
    assert resolved(BNNRegressor(config=config)) == parse_config({"dtype": "float32", **config})


def test_parameters_and_config_add_up_and_neither_is_changed():
    config = {
        "architecture": {"symmetry": {"fixed_per_row": 2}},
        "inference": {"learning_rate": 0.01},
    }
    estimator = BNNClassifier(symmetry="weight_asymmetric", num_steps=9, config=config)
    found = resolved(estimator)
    assert (found.architecture.symmetry.kind, found.architecture.symmetry.fixed_per_row) == (
        "weight_asymmetric",
        2,
    )
    assert (found.inference.learning_rate, found.inference.num_steps) == (0.01, 9)
    assert config == {
        "architecture": {"symmetry": {"fixed_per_row": 2}},
        "inference": {"learning_rate": 0.01},
    }


def test_settings_of_a_method_are_taken_as_they_are_and_chains_run_one_after_another():
    assert resolved(BNNClassifier(method=MAP(num_steps=3))).inference == MAP(num_steps=3)
    assert resolved(BNNClassifier(method=NUTS(num_draws=3))).inference == NUTS(
        num_draws=3, chain_method="sequential"
    )
    parallel = HMC(chain_method="parallel")
    assert resolved(BNNClassifier(method=parallel)).inference == parallel
    for name in ("nuts", "hmc", "deep_ensemble"):
        assert resolved(BNNClassifier(method=name)).inference.chain_method == "sequential"


def test_numbers_of_numpy_are_numbers():
    estimator = BNNRegressor(
        widths=np.array([4, 5]),
        noise=np.float64(0.5),
        num_steps=np.int64(3),
        prior_scale=np.float32(2),
        symmetry="standard",
    )
    found = resolved(estimator)
    assert found.architecture.widths == (4, 5)
    assert found.likelihood == Gaussian(noise=0.5)
    assert found.inference == MeanFieldVI(num_steps=3)
    assert found.prior.scale == 2.0
    assert (
        resolved(
            BNNClassifier(config={"inference": {"num_steps": np.int64(3)}})
        ).inference.num_steps
        == 3
    )


def test_the_dtype_of_the_data_is_the_default():
    assert resolved(BNNClassifier(), dtype="float64").dtype == "float64"
    assert resolved(BNNClassifier(config={"dtype": "float32"}), dtype="float64").dtype == "float32"


@settings
class Mine(Method):
    """A method that is not registered in configurations."""

    name: str = "mine"


Mine.__abstractmethods__ = frozenset()


WRONG = [
    ({"method": "nutz"}, "inference.name 'nutz'; did you mean 'nuts'"),
    ({"activation": "rely"}, "architecture.activation: got 'rely'"),
    ({"widths": 64}, "architecture.widths: got 64"),
    ({"widths": "64"}, "architecture.widths: got '64'"),
    ({"symmetry": "asymmetric"}, "architecture.symmetry.kind: got 'asymmetric'"),
    ({"symmetry": None}, "no kind|symmetry.kind"),
    ({"prior_scale": -1.0}, "prior.scale: got -1.0"),
    ({"temperature": 0}, "inference.temperature: got 0"),
    ({"temperature": float("nan")}, "inference.temperature: got nan"),
    ({"validation_fraction": 1.0}, "data.validation_fraction: got 1.0"),
    (
        {"method": "nuts", "num_steps": 10},
        "num_steps for inference.name=nuts; it belongs to mean_field_vi",
    ),
    ({"config": 3}, "config: got 3, expected sections"),
    ({"config": {"inferense": {}}}, "unknown key inferense; did you mean 'inference'"),
    (
        {"config": {"inference": {"num_step": 3}}},
        "inference.num_step for .*did you mean 'num_steps'",
    ),
    ({"config": {"inference": "nuts"}}, "type inference.name=nuts"),
    ({"config": {"seed": 3}}, "use random_state"),
    ({"config": {"initial": "runs/a"}}, "initial does not apply to an estimator"),
    ({"config": {"save": {}}}, "save_posterior"),
    ({"config": {"data": {"name": "digits"}}}, "X and y of `fit`"),
    ({"config": {"architecture": {"symmetry": {"kappa": 0}}}}, "no kind"),
    (
        {"num_steps": 5, "config": {"inference": {"num_steps": 5}}},
        "num_steps=5 and inference.num_steps of config",
    ),
    (
        {"widths": (3,), "config": {"architecture": {"widths": [64, 64]}}},
        "widths=.* and architecture.widths of config",
    ),
    ({"prior_scale": 2.0, "config": {"prior": "normal"}}, "prior is a value, not a section"),
    (
        {"method": MAP(), "temperature": 0.5},
        r"temperature is given too; pass it to MAP\(...\)",
    ),
    (
        {"method": MAP(), "config": {"inference": {"name": "map"}}},
        "section inference of config is given too",
    ),
    ({"method": Mine}, "unknown inference.name"),
    (
        {"method": Mine()},
        "method: got Mine, expected the settings of a method: MeanFieldVI, .*HMC, NUTS",
    ),
    ({"config": {"architecture": {"name": "module"}}}, "factory"),
]


@pytest.mark.parametrize(("parameters", "message"), WRONG)
def test_wrong_settings_are_errors_of_one_line_at_fit(parameters, message):
    X, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    estimator = BNNClassifier(**parameters)
    with pytest.raises(ConfigError, match=message) as caught:
        estimator.fit(X, y)
    assert "\n" not in str(caught.value)
    assert not hasattr(estimator, "posterior_")


def test_a_likelihood_of_another_task_is_refused():
    X, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    with pytest.raises(ConfigError, match="likelihood gaussian is for regression"):
        BNNClassifier(config={"likelihood": {"name": "gaussian"}}).fit(X, y)
    with pytest.raises(ConfigError, match="likelihood categorical is for classification"):
        BNNRegressor(config={"likelihood": {"name": "categorical"}}).fit(X, y)
