"""The exporter: what is in every group, how axes are named, and both major versions of ArviZ."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bnn_symm.architectures import CNNConfig, MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import DataConfig, load_dataset
from bnn_symm.errors import ConfigError
from bnn_symm.models import (
    BayesianModel,
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Prior,
)
from bnn_symm.posteriors import (
    GaussianPosterior,
    Posterior,
    SamplePosterior,
    posterior,
    read_netcdf,
    save_posterior,
    to_arviz,
)
from bnn_symm.posteriors.io.arviz import to_groups
from tests.models.cases import normal

GROUPS_MODULE = Path(__file__).parents[3] / "bnn_symm" / "posteriors" / "io" / "arviz_groups.py"


def stats(chains: int = 2, draws: int = 5) -> dict[str, np.ndarray]:
    energy = np.arange(1.0 * chains * draws).reshape(chains, draws)
    return {"diverging": np.eye(chains, draws) > 0, "energy": energy}


STATS = stats()

IRIS = load_dataset(DataConfig(name="iris"), dtype=torch.float64)
DIABETES = load_dataset(DataConfig(name="diabetes", limit=40), dtype=torch.float64)


def samples(
    dataset, likelihood, widths=(4, 3), chains: int = 2, draws: int = 5, **keywords
) -> SamplePosterior:
    net = build_network(
        MLPConfig(widths=widths, **keywords),
        input_shape=dataset.input_shape,
        num_outputs=likelihood.num_net_outputs(dataset.num_outputs),
    ).double()
    model = BayesianModel(net, Prior(), likelihood)
    flat = 0.3 * normal(chains, draws, model.num_parameters)
    return SamplePosterior.from_draws(
        model, flat, dataset.scaling, sample_stats=stats(chains, draws)
    )


def iris(**keywords) -> SamplePosterior:
    return samples(IRIS, Categorical(), **keywords)


# -- groups


def test_without_data_there_are_the_parameters_and_the_statistics() -> None:
    one = iris()
    found = to_arviz(one)
    assert set(found.groups()) == {"posterior", "sample_stats"}
    for name, value in one.model.unflatten(one.draws().unflatten(0, (2, 5))).items():
        np.testing.assert_array_equal(found.posterior[name].values, value.numpy())
    np.testing.assert_array_equal(found.sample_stats["energy"].values, STATS["energy"])


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_with_classes_there_are_likelihoods_predictions_and_targets(part) -> None:
    one = iris()
    found, points = to_arviz(one, IRIS, part=part), getattr(IRIS, part)
    assert set(found.groups()) == {
        "posterior",
        "sample_stats",
        "log_likelihood",
        "posterior_predictive",
        "observed_data",
    }
    assert found.log_likelihood["y"].dims == ("chain", "draw", "point")
    predictive = one.predict(points.x)
    np.testing.assert_allclose(
        found.log_likelihood["y"].values, predictive.draw_log_prob(points.y).numpy(), rtol=1e-12
    )
    np.testing.assert_array_equal(found.observed_data["y"].values, points.y.numpy())
    assert found.observed_data["y"].dims == ("point",)
    drawn = found.posterior_predictive["y"].values
    assert drawn.shape == (2, 5, len(points))
    assert set(np.unique(drawn)) <= {0, 1, 2}


def test_with_numbers_all_are_in_the_targets_own_units() -> None:
    one = samples(DIABETES, Gaussian(noise=0.01))
    found = to_arviz(one, DIABETES)
    raw = DIABETES.scaling.y_mean + DIABETES.scaling.y_scale * DIABETES.test.y
    np.testing.assert_allclose(found.observed_data["y"].values, raw.numpy(), rtol=1e-12)
    predictive = one.predict(DIABETES.test.x)
    mean = predictive.draw_mean().numpy()
    # The noise is 0.01 standard deviations of the target, and the largest of some 1000 is within 5
    # of it.
    assert (
        np.abs(found.posterior_predictive["y"].values - mean).max()
        < 5 * 0.01 * DIABETES.scaling.y_scale
    )
    likelihoods = predictive.draw_log_prob(DIABETES.test.y).numpy()
    np.testing.assert_allclose(found.log_likelihood["y"].values, likelihoods, rtol=1e-12)


def test_loo_takes_it() -> None:
    import arviz

    wide = samples(DIABETES, Gaussian(noise=1.0), draws=50)
    # Draws near one another, so that no point's importance weights are dominated by few of them.
    one = SamplePosterior.from_draws(
        wide.model, 0.1 * wide.draws().unflatten(0, (2, 50)), DIABETES.scaling
    )
    loo = arviz.loo(to_arviz(one, DIABETES, part="train"))
    inside = float(one.predict(DIABETES.train.x).log_prob(DIABETES.train.y).sum())
    assert loo.elpd_loo < inside  # what was not left out is predicted better
    assert loo.n_data_points == len(DIABETES.train)


def test_points_are_walked_in_slices_that_change_nothing_but_the_noise(monkeypatch) -> None:
    one = iris()
    whole = to_groups(one, IRIS).groups
    monkeypatch.setattr(posterior, "_OUTPUTS_PER_PREDICTIVE", 7 * 2 * 5 * 3)
    parts = to_groups(one, IRIS).groups
    np.testing.assert_allclose(
        parts["log_likelihood"]["y"], whole["log_likelihood"]["y"], rtol=1e-12
    )
    np.testing.assert_array_equal(parts["observed_data"]["y"], whole["observed_data"]["y"])
    assert parts["posterior_predictive"]["y"].shape == whole["posterior_predictive"]["y"].shape
    again = to_groups(one, IRIS).groups["posterior_predictive"]["y"]
    np.testing.assert_array_equal(again, parts["posterior_predictive"]["y"])
    other = to_groups(one, IRIS, seed=1).groups["posterior_predictive"]["y"]
    assert not np.array_equal(other, again)


def test_every_so_many_draws_of_each_chain(monkeypatch) -> None:
    one = iris()
    monkeypatch.setattr(posterior, "_NUMBERS_PER_CHUNK", 2 * one.shape[2])  # chunks of two draws
    groups = to_groups(one, IRIS, thin=2).groups
    expected = one.model.unflatten(one.draws().unflatten(0, (2, 5))[:, ::2])
    np.testing.assert_array_equal(
        groups["posterior"]["head.weight"], expected["head.weight"].numpy()
    )
    np.testing.assert_array_equal(groups["sample_stats"]["energy"], STATS["energy"][:, ::2])
    assert groups["log_likelihood"]["y"].shape == (2, 3, len(IRIS.test))


def test_a_closed_form_is_its_draws() -> None:
    model = iris().model
    loc = normal(model.num_parameters)
    closed = GaussianPosterior(
        model, IRIS.scaling, loc=loc, scale=0.1 * loc.abs() + 0.01, num_draws=7
    )
    groups = to_groups(closed, IRIS).groups
    assert set(groups) == {"posterior", "log_likelihood", "posterior_predictive", "observed_data"}
    expected = closed.predict(IRIS.test.x).draw_log_prob(IRIS.test.y)
    np.testing.assert_allclose(groups["log_likelihood"]["y"], expected.numpy(), rtol=1e-12)


def test_an_ensemble_has_more_chains_than_draws_and_that_is_no_mistake() -> None:
    found = to_arviz(iris(chains=6, draws=1), IRIS)
    assert found.posterior.sizes["chain"] == 6
    assert found.log_likelihood["y"].shape == (6, 1, len(IRIS.test))


def test_what_would_not_fit_into_memory_is_refused_with_what_would() -> None:
    one = iris()
    with pytest.raises(
        ConfigError, match=r"2 x 5 draws of .* and 30 points would take .* thin=\d+, or raise"
    ):
        to_arviz(one, IRIS, max_gigabytes=5e-6)
    to_arviz(one, IRIS, max_gigabytes=5e-6, thin=5)
    with pytest.raises(ConfigError, match="thin: got 0"):
        to_arviz(one, thin=0)
    empty = load_dataset(DataConfig(name="iris", validation_fraction=0.0), dtype=torch.float64)
    with pytest.raises(ConfigError, match="the validation split of iris has no points"):
        to_arviz(one, empty, part="validation")


# -- axes


def test_axes_go_by_units_features_and_classes() -> None:
    found = to_arviz(iris(), IRIS)
    dims = {name: value.dims[2:] for name, value in found.posterior.data_vars.items()}
    assert dims == {
        "layers.0.weight": ("layers.0.unit", "feature"),
        "layers.0.bias": ("layers.0.unit",),
        "layers.1.weight": ("layers.1.unit", "layers.0.unit"),
        "layers.1.bias": ("layers.1.unit",),
        "head.weight": ("class", "layers.1.unit"),
        "head.bias": ("class",),
    }
    assert found.posterior["feature"].values.tolist() == list(IRIS.feature_names)
    assert found.posterior["class"].values.tolist() == [str(label) for label in IRIS.class_labels]
    unit = found.posterior.sel({"layers.0.unit": 3})
    np.testing.assert_array_equal(
        unit["layers.1.weight"].values, found.posterior["layers.1.weight"].values[..., 3]
    )


def test_without_a_data_set_they_are_numbered() -> None:
    groups = to_groups(iris())
    assert groups.dims["layers.0.weight"] == ["layers.0.unit", "feature"]
    assert groups.coords["feature"].tolist() == [0, 1, 2, 3]
    assert groups.coords["class"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("likelihood", "labels"),
    [(Gaussian(), [0]), (HeteroscedasticGaussian(), ["mean", "log_sd"])],
)
def test_outputs_that_are_no_classes(likelihood, labels) -> None:
    groups = to_groups(samples(DIABETES, likelihood), DIABETES)
    assert groups.dims["head.weight"] == ["output", "layers.1.unit"]
    assert groups.coords["output"].tolist() == labels
    if likelihood.latents:
        assert groups.dims["likelihood.log_noise"] == []


def test_free_entries_are_labeled_by_their_places() -> None:
    one = iris(widths=(6,), symmetry=SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(2, 1)))
    groups = to_groups(one, IRIS)
    assert groups.dims["layers.0.weight"] == ["layers.0.weight.free_entry"]
    mask = one.model.net.get_submodule("layers.0").mask
    labels = groups.coords["layers.0.weight.free_entry"]
    assert labels.tolist() == [f"{i},{j}" for i, j in mask.nonzero().tolist()]
    assert to_arviz(one, IRIS).posterior["layers.0.weight"].shape == (2, 5, len(labels))


def test_convolutions_and_residual_units_have_names_and_no_array_has_one_twice() -> None:
    net = build_network(CNNConfig(widths=(3, 4)), input_shape=(1, 8, 8), num_outputs=2).double()
    model = BayesianModel(net, Prior(), Categorical())
    one = SamplePosterior.from_draws(model, normal(1, 2, model.num_parameters))
    groups = to_groups(one)
    weights = [name for name, shape in model.shapes.items() if len(shape) == 4]
    assert groups.dims[weights[1]][0].endswith(".unit")
    assert groups.dims[weights[1]][1] == groups.dims[weights[0]][0]
    assert all(len(set(axes)) == len(axes) for axes in groups.dims.values())
    assert to_arviz(one).posterior[weights[1]].shape == (1, 2, *model.shapes[weights[1]])


class Opaque(nn.Module):
    """A network with an operation that no spec can be derived through."""

    input_shape = (4,)

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.second(torch.linalg.matrix_exp(torch.diag_embed(self.first(x))).sum(-1))


def test_a_network_without_a_spec_has_numbered_axes() -> None:
    model = BayesianModel(Opaque().double(), Prior(), Bernoulli())
    one: Posterior = SamplePosterior.from_draws(model, normal(1, 2, model.num_parameters))
    assert to_groups(one).dims["first.weight"] == ["first.weight_dim_0", "first.weight_dim_1"]
    assert to_arviz(one).posterior["second.bias"].dims == ("chain", "draw", "second.bias_dim_0")


# -- the other major version


def test_the_exporter_of_plain_arrays_needs_nothing_of_this_package() -> None:
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("arviz_groups", {str(GROUPS_MODULE)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert not {{"torch", "pyro", "bnn_symm"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


_IN_ARVIZ_1 = """
import importlib.util, json, sys
import numpy as np

module_path, folder = sys.argv[1:]
spec = importlib.util.spec_from_file_location("arviz_groups", module_path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import arviz

labels = json.load(open(folder + "/labels.json"))
groups = {}
with np.load(folder + "/arrays.npz") as arrays:
    for key in arrays.files:
        group, name = key.split("|")
        groups.setdefault(group, {})[name] = arrays[key]
tree = module.from_groups(groups, labels["dims"], labels["coords"])
tree.to_netcdf(folder + "/tree.nc", engine="h5netcdf")
print(json.dumps({
    "version": arviz.__version__,
    "type": type(tree).__name__,
    "groups": sorted(name.strip("/") for name in tree.groups if name != "/"),
    "dims": {name: list(value.dims) for name, value in tree["posterior"].data_vars.items()},
    "observed": list(tree["observed_data"]["y"].dims),
    "likelihood": list(tree["log_likelihood"]["y"].dims),
    "features": tree["posterior"]["feature"].values.tolist(),
    "equal": all(
        np.array_equal(tree[group][name].values, value)
        for group, variables in groups.items() for name, value in variables.items()
    ),
    "loo": float(arviz.loo(tree).elpd),
    "rhat": float(arviz.rhat(tree)["head.bias"].max()),
}))
"""


@pytest.fixture(scope="module")
def arviz_1(tmp_path_factory) -> str:
    """A Python that has ArviZ 1.x: BNN_SYMM_ARVIZ1_PYTHON, or a new environment of a Python 3.12 or
    newer."""
    own = os.environ.get("BNN_SYMM_ARVIZ1_PYTHON")
    if own:
        return own
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names = ["python3.12", "python3.13", "python3.14"]
    candidates = [path for name in names if (path := shutil.which(name))]
    candidates += [
        str(path)
        for version in ("3.12", "3.13")
        for path in sorted(pyenv.glob(f"{version}.*/bin/python"))
    ]
    check = ["-c", "import sys; sys.exit(sys.version_info < (3, 12))"]
    python = next(
        (c for c in candidates if subprocess.run([c, *check], capture_output=True).returncode == 0),
        None,
    )
    if python is None:
        pytest.skip(
            "ArviZ 1.x needs Python 3.12, and there is none; name one in BNN_SYMM_ARVIZ1_PYTHON"
        )
    folder = tmp_path_factory.mktemp("arviz1")
    made = subprocess.run([python, "-m", "venv", str(folder)], capture_output=True, text=True)
    found = str(folder / "bin" / "python")
    if made.returncode == 0:
        pip = [found, "-m", "pip", "install", "--quiet", "arviz>=1", "h5netcdf", "h5py"]
        made = subprocess.run(pip, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"ArviZ 1.x cannot be installed here: {made.stderr.strip()[-200:]}")
    return found


@pytest.mark.slow
def test_arviz_1_makes_a_tree_of_the_same_arrays_and_its_files_are_read(arviz_1, tmp_path) -> None:
    one = iris(draws=50)
    groups, dims, coords = to_groups(one, IRIS)
    arrays = {
        f"{group}|{name}": value for group, own in groups.items() for name, value in own.items()
    }
    np.savez(tmp_path / "arrays.npz", **arrays)
    labels = {"dims": dims, "coords": {name: values.tolist() for name, values in coords.items()}}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    run = subprocess.run(
        [arviz_1, "-c", _IN_ARVIZ_1, str(GROUPS_MODULE), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert int(found["version"].split(".")[0]) >= 1
    assert found["type"] == "DataTree"
    assert found["groups"] == sorted(groups)
    assert found["equal"]
    assert found["dims"] == {
        name: ["chain", "draw", *axes] for name, axes in dims.items() if name != "y"
    }
    assert (found["observed"], found["likelihood"]) == (["point"], ["chain", "draw", "point"])
    assert found["features"] == list(IRIS.feature_names)
    assert np.isfinite([found["loo"], found["rhat"]]).all()
    # A file that ArviZ 1.x saved is read with whatever version is here.
    read = read_netcdf(tmp_path / "tree.nc")
    again = SamplePosterior.from_draws(
        one.model, read.arrays, IRIS.scaling, sample_stats=read.sample_stats
    )
    assert torch.equal(again.draws(), one.draws())
    assert again.sample_stats["diverging"].dtype == bool


@pytest.mark.slow
def test_arviz_1_opens_our_files(arviz_1, tmp_path) -> None:
    one = iris()
    save_posterior(one, tmp_path / "posterior.nc")
    code = (
        "import arviz, sys\n"
        "tree = arviz.from_netcdf(sys.argv[1])\n"
        "print(sorted(tree['posterior'].data_vars), tree['posterior']['head.bias'].shape)"
    )
    run = subprocess.run(
        [arviz_1, "-c", code, str(tmp_path / "posterior.nc")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == f"{sorted(one.model.shapes)} (2, 5, 3)"


def test_the_module_is_the_one_that_to_arviz_uses() -> None:
    spec = importlib.util.find_spec("bnn_symm.posteriors.io.arviz_groups")
    assert spec is not None
    assert spec.origin == str(GROUPS_MODULE)
