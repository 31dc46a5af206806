"""Random configurations, valid or not, raise an error of one line or can be fitted."""

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bnn_symm.errors import BnnSymmError
from bnn_symm.io.documents import dump_yaml
from bnn_symm.runs import fit_run, load_config
from tests.fuzz.damage import HOSTILE_YAML, ODD_VALUES, extend, flip, truncate

pytestmark = pytest.mark.thorough

SHORT, LONG, EVERY = 300, 2000, 25
VALUES: dict[str, list[Any]] = {
    "seed": [0, 1, 2**40, -1, "x"],
    "dtype": ["float32", "float64", "float16"],
    "threads": ["auto", 1, 0],
    "device": ["cpu", "tpu", ""],
    "data.name": ["gap", "iris", "nowhere.csv", "/dev/zero", "..", "", "a\0b"],
    "data.limit": [40, 12, 1, 0, None],
    "data.test_fraction": [0.2, 0, 0.9, 1, -1],
    "data.validation_fraction": [0.1, 0, 1],
    "data.split_seed": [0, 5],
    "data.task": ["auto", "classification", "regression", "count"],
    "architecture.widths": [[3], [], [2, 2], [0], 4, "x", [10**12]],
    "architecture.activation": ["relu", "tanh", "no"],
    "architecture.symmetry.kind": ["standard", "sigma_asymmetric", "init_matched"],
    "prior.name": ["normal", "laplace", "student_t", "scale_mixture", "x"],
    "prior.scale": [1.0, "fan_in", "evidence", 0, 1e300, -1],
    "prior.mean": [None, "nowhere", "/dev/null"],
    "likelihood.name": [
        "categorical",
        "gaussian",
        "bernoulli",
        "poisson",
        "heteroscedastic_gaussian",
    ],
    "likelihood.noise": ["learned", 0.1, 0, "x"],
    "inference.name": ["map", "mean_field_vi", "swag", "laplace", "sgld", "hmc", "x"],
    "inference.num_steps": [1, 3, 0, 1.5],
    "inference.temperature": [1.0, 0.5, 0, 1e-30],
    "inference.batch_size": [8, "full", 0],
    "inference.learning_rate": [0.01, 0, 1e10],
    "checkpoint.every": [5, "10 steps", "x", 0],
    "checkpoint.keep": [[], [1], [0], 3],
    "save.max_megabytes": [200, 1e-9, 0],
    "warm_start": [[], ["map"], [{"name": "map", "num_steps": 2}], "map", [1]],
    "initial": [None, "nowhere"],
}
# Bounds on the size of a fit, so that what is valid is quick.
_TINY = {
    "inference.num_steps": [1, 3],
    "data.limit": [40],
    "inference.name": ["map", "swag", "mean_field_vi"],
}


def random_config(dice: random.Random) -> dict[str, Any]:
    """Return nested settings, most of them valid."""
    raw: dict[str, Any] = {}
    for key in dice.sample(sorted(VALUES), dice.randrange(1, 9)):
        # The first values of a list are the valid ones.
        value = VALUES[key][0] if dice.random() < 0.6 else dice.choice(VALUES[key])
        if dice.random() < 0.05:
            value = dice.choice(ODD_VALUES)
        *path, last = key.split(".")
        section = raw
        for name in path:
            below = section.setdefault(name, {})
            section = below if isinstance(below, dict) else section
        section[last] = value
    return raw


def _written(path: Path, dice: random.Random) -> None:
    kind = dice.randrange(10)
    if kind == 0:
        path.write_text(dice.choice(HOSTILE_YAML))
        return
    path.write_text(dump_yaml(random_config(dice)))
    if kind <= 3:
        dice.choice([flip, truncate, extend])(path, dice)


def run_cases(number: int, every: int, seed: int) -> list[str]:
    """Return what was wrong; one configuration in `every` is fitted, as far as it is valid."""
    wrong = []
    with tempfile.TemporaryDirectory(prefix="f") as folder:
        for case in range(number):
            dice = random.Random(f"{seed} {case}")
            path = Path(folder) / "config.yaml"
            _written(path, dice)
            tiny = (
                [f"{key}={dice.choice(values)}" for key, values in _TINY.items()]
                if case % every == 0
                else []
            )
            try:
                config = load_config(path, tiny)
                if tiny:
                    fit_run(config, Path(folder) / f"run{case}")
            except BnnSymmError as error:
                text = str(error)
                if "\n" in text or len(text) > 1000:  # the command line cuts it to 300 characters
                    wrong.append(
                        f"case {seed} {case}: message of {len(text)} characters: {text[:200]!r}"
                    )
            except Exception as error:
                wrong.append(
                    f"case {seed} {case}: {type(error).__name__} {str(error)[:200]!r} of "
                    f"{path.read_bytes()!r}"
                )
    return wrong


@pytest.mark.filterwarnings("ignore")
def test_a_sample_of_configurations() -> None:
    assert run_cases(SHORT, 60, 0) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_configurations() -> None:
    assert run_cases(LONG, EVERY, 1) == []
