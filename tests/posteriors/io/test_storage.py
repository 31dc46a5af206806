import pickle
import warnings
from pathlib import Path

import arviz
import h5netcdf
import numpy as np
import pytest
import torch
from torch import nn

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Scaling
from bnn_symm.errors import IncompatiblePosteriors, InvalidRun
from bnn_symm.models import BayesianModel, Gaussian, Prior
from bnn_symm.posteriors import (
    GaussianPosterior,
    SamplePosterior,
    load_posterior,
    save_posterior,
    to_arviz,
)
from bnn_symm.posteriors.io import netcdf as storage
from bnn_symm.posteriors.io.netcdf import POSTERIOR_SCHEMA, _NetCDFReader
from tests.models.cases import CASES, normal

MODEL = CASES["gaussian-learned"].model()
LENGTH = MODEL.num_parameters
SCALING = Scaling(x_mean=np.zeros(2), x_scale=np.ones(2), y_mean=3.0, y_scale=2.0)


def gaussian(num_draws: int = 9) -> GaussianPosterior:
    loc, scale = normal(LENGTH, seed=1), normal(LENGTH, seed=2).exp()
    return GaussianPosterior(
        MODEL, SCALING, loc=loc, scale=scale, num_draws=num_draws, seed=2**60 + 7
    )


def samples(chains: int = 2, draws: int = 5) -> SamplePosterior:
    stats = {
        "diverging": normal(chains, draws, seed=5).numpy() > 0,
        "energy": normal(chains, draws, seed=6).numpy(),
        "tree_depth": np.arange(chains * draws, dtype=np.int64).reshape(chains, draws),
    }
    return SamplePosterior.from_draws(
        MODEL, normal(chains, draws, LENGTH), SCALING, sample_stats=stats
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "posterior.nc"


@pytest.fixture
def open_with_arviz(path: Path):
    def opened():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*variational.*", category=UserWarning)
            return arviz.from_netcdf(path)

    return opened


# -- round trips


def test_samples_come_back_bit_for_bit(path) -> None:
    saved = samples()
    save_posterior(saved, path)
    loaded = load_posterior(path, MODEL, SCALING, info={"method": "hmc"}, history=[{"step": 1}])
    assert isinstance(loaded, SamplePosterior)
    assert loaded.shape == (2, 5, LENGTH)
    assert torch.equal(loaded.draws(), saved.draws())
    assert (loaded.info, loaded.history, loaded.scaling) == (
        {"method": "hmc"},
        [{"step": 1}],
        SCALING,
    )
    assert set(loaded.sample_stats) == set(saved.sample_stats)
    for name, value in saved.sample_stats.items():
        assert loaded.sample_stats[name].dtype == value.dtype
        np.testing.assert_array_equal(loaded.sample_stats[name], value)


def test_a_gaussian_comes_back_bit_for_bit_with_its_draws(path) -> None:
    saved = gaussian()
    save_posterior(saved, path)
    loaded = load_posterior(path, MODEL, SCALING)
    assert isinstance(loaded, GaussianPosterior)
    assert torch.equal(loaded.loc, saved.loc)
    assert torch.equal(loaded.scale, saved.scale)
    assert (loaded.seed, loaded.num_draws) == (2**60 + 7, 9)
    assert torch.equal(next(loaded.iter_draws()), next(saved.iter_draws()))


def test_float32_stays_float32(path) -> None:
    net = build_network(MLPConfig(widths=(3,)), input_shape=(2,), num_outputs=1)
    model = BayesianModel(net, Prior(), Gaussian(noise=1.0))
    saved = SamplePosterior.from_draws(model, normal(1, 4, model.num_parameters).float())
    save_posterior(saved, path)
    loaded = load_posterior(path, model, SCALING)
    assert loaded.draws().dtype == torch.float32
    assert torch.equal(loaded.draws(), saved.draws())


@pytest.mark.parametrize("make", [samples, gaussian])
def test_a_file_in_another_dtype_predicts_in_that_of_the_network(make, path) -> None:
    saved = make()
    save_posterior(saved, path)
    model = CASES["gaussian-learned"].model()
    model.net.float()
    loaded = load_posterior(path, model, SCALING)
    predictive = loaded.predict(normal(3, 2).float())
    assert predictive.outputs.dtype == torch.float32
    assert predictive.latents["log_noise"].dtype == torch.float32
    torch.testing.assert_close(loaded.mean().double(), saved.mean(), rtol=1e-6, atol=1e-6)


def test_a_network_whose_parameters_come_in_another_order_gets_the_draws_by_name(path) -> None:
    class TwoHeads(nn.Module):
        def __init__(self, names: list[str]):
            super().__init__()
            for name in names:
                setattr(self, name, nn.Linear(2, 1))

        def forward(self, x):
            return self.first(x) - 2 * self.second(x)

    model = BayesianModel(TwoHeads(["first", "second"]).double(), Prior(), Gaussian(noise=1.0))
    other = BayesianModel(TwoHeads(["second", "first"]).double(), Prior(), Gaussian(noise=1.0))
    saved = SamplePosterior.from_draws(model, normal(2, 3, 6))
    save_posterior(saved, path)
    x = normal(4, 2)
    torch.testing.assert_close(
        load_posterior(path, other, SCALING).predict(x).outputs, saved.predict(x).outputs
    )

    # The draws of a closed form are keyed by their place in the vector, so another order cannot be
    # served.
    save_posterior(GaussianPosterior(model, SCALING, loc=normal(6), scale=normal(6).exp()), path)
    with pytest.raises(
        IncompatiblePosteriors, match=r"order first\.weight.*network has second\.weight"
    ):
        load_posterior(path, other, SCALING)


def test_draws_are_read_when_they_are_asked_for_and_in_chunks(path, monkeypatch) -> None:
    saved = samples()
    save_posterior(saved, path)
    asked = []
    read = _NetCDFReader.read

    def spy(self, chain: int, start: int, stop: int):
        asked.append((chain, start, stop))
        return read(self, chain, start, stop)

    monkeypatch.setattr(_NetCDFReader, "read", spy)
    loaded = load_posterior(path, MODEL, SCALING)
    assert asked == []
    chunks = list(loaded.iter_draws(2))
    assert asked == [(0, 0, 2), (0, 2, 4), (0, 4, 5), (1, 0, 2), (1, 2, 4), (1, 4, 5)]
    assert torch.equal(torch.cat(chunks), saved.draws())
    asked.clear()
    assert torch.equal(loaded.draws(3, seed=1), saved.draws(3, seed=1))
    assert [stop - start for _, start, stop in asked] == [1, 1, 1]


def test_moments_and_predictions_of_a_loaded_posterior_are_those_of_the_saved_one(path) -> None:
    saved, x = samples(), normal(4, 2)
    save_posterior(saved, path)
    loaded = load_posterior(path, MODEL, SCALING)
    assert torch.equal(loaded.mean(), saved.mean())
    assert torch.equal(loaded.standard_deviation(), saved.standard_deviation())
    assert torch.equal(loaded.predict(x).quantiles([0.1]), saved.predict(x).quantiles([0.1]))


def test_a_loaded_posterior_can_be_pickled_before_and_after_reading(path) -> None:
    saved = samples()
    save_posterior(saved, path)
    loaded = load_posterior(path, MODEL, SCALING)
    for _ in range(2):
        copy = pickle.loads(pickle.dumps(loaded))
        assert torch.equal(copy.draws(), saved.draws())
        assert torch.equal(loaded.draws(), saved.draws())  # opens the file for the second round


def test_a_loaded_posterior_can_be_saved_over_its_own_file(path) -> None:
    saved = samples()
    save_posterior(saved, path)
    loaded = load_posterior(path, MODEL, SCALING)
    assert torch.equal(next(loaded.iter_draws(1)), saved.draws()[:1])
    save_posterior(loaded, path)
    assert torch.equal(load_posterior(path, MODEL, SCALING).draws(), saved.draws())


def test_writing_in_small_steps_changes_nothing(path, monkeypatch) -> None:
    monkeypatch.setattr(storage, "_NUMBERS_PER_WRITE", 2 * LENGTH, raising=True)
    saved = samples()
    save_posterior(saved, path)
    assert torch.equal(load_posterior(path, MODEL, SCALING).draws(), saved.draws())


# -- the size of a closed form


def test_max_megabytes_cuts_the_draws_of_a_closed_form_but_not_its_predictions(
    path, open_with_arviz
) -> None:
    saved, x = gaussian(num_draws=50), normal(4, 2)
    save_posterior(saved, path, max_megabytes=10.5 * LENGTH * 8 / 1e6)
    assert open_with_arviz().posterior.sizes["draw"] == 10
    loaded = load_posterior(path, MODEL, SCALING)
    assert loaded.shape == (1, 50, LENGTH)
    assert torch.equal(loaded.predict(x).outputs, saved.predict(x).outputs)
    assert torch.equal(
        loaded.predict(x).quantiles([0.05, 0.95]), saved.predict(x).quantiles([0.05, 0.95])
    )


def test_at_least_one_draw_is_kept_and_those_of_a_sampler_all_are(path, open_with_arviz) -> None:
    save_posterior(gaussian(), path, max_megabytes=0.0)
    assert open_with_arviz().posterior.sizes["draw"] == 1
    save_posterior(samples(), path, max_megabytes=0.0)
    assert open_with_arviz().posterior.sizes["draw"] == 5


# -- other software


def test_arviz_opens_samples_with_their_statistics(path) -> None:
    saved = samples()
    save_posterior(saved, path)
    data = arviz.from_netcdf(path)
    assert set(data.groups()) == {"posterior", "sample_stats"}
    values = MODEL.unflatten(saved.draws().unflatten(0, (2, 5)))
    assert set(data.posterior.data_vars) == set(values)
    for name, value in values.items():
        variable = data.posterior[name]
        assert variable.dims == (
            "chain",
            "draw",
            *(f"{name}_dim_{i}" for i in range(value.dim() - 2)),
        )
        np.testing.assert_array_equal(variable.values, value.numpy())
    assert data.posterior["chain"].values.tolist() == [0, 1]
    assert data.posterior["draw"].values.tolist() == [0, 1, 2, 3, 4]
    assert data.sample_stats["diverging"].dtype == bool
    for name, value in saved.sample_stats.items():
        assert data.sample_stats[name].dims == ("chain", "draw")
        np.testing.assert_array_equal(data.sample_stats[name].values, value)


def test_arviz_opens_a_closed_form_with_loc_and_scale(path, open_with_arviz) -> None:
    saved = gaussian()
    save_posterior(saved, path)
    data = open_with_arviz()
    values = MODEL.unflatten(next(saved.iter_draws())[None])
    for name, value in values.items():
        np.testing.assert_array_equal(data.posterior[name].values, value.numpy())
    np.testing.assert_array_equal(data.variational["loc"].values, saved.loc.numpy())
    np.testing.assert_array_equal(data.variational["scale"].values, saved.scale.numpy())


def test_to_arviz_gives_the_same_groups_without_a_file() -> None:
    saved = samples()
    data = to_arviz(saved)
    assert set(data.groups()) == {"posterior", "sample_stats"}
    values = MODEL.unflatten(saved.draws().unflatten(0, (2, 5)))
    assert set(data.posterior.data_vars) == set(MODEL.shapes)
    for name, value in values.items():
        assert data.posterior[name].shape == (2, 5, *MODEL.shapes[name])
        np.testing.assert_array_equal(data.posterior[name].values, value.numpy())
    assert data.sample_stats["diverging"].dtype == bool
    np.testing.assert_array_equal(data.sample_stats["energy"].values, saved.sample_stats["energy"])


def test_to_arviz_of_a_closed_form_holds_the_draws_that_stand_for_it() -> None:
    saved = gaussian()
    data = to_arviz(saved)
    assert data.groups() == ["posterior"]
    assert data.posterior["head.weight"].shape == (1, 9, 1, 3)
    expected = MODEL.unflatten(saved.draws(9, seed=saved.seed))["head.weight"]
    np.testing.assert_array_equal(data.posterior["head.weight"].values[0], expected.numpy())


# -- refusals


def test_a_missing_file_is_named(path) -> None:
    with pytest.raises(InvalidRun, match=r"posterior\.nc does not exist; name a run directory"):
        load_posterior(path, MODEL, SCALING)


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(kept, path) -> None:
    save_posterior(samples(2, 200), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(InvalidRun, match=r"posterior\.nc is not a complete posterior .*truncated"):
        load_posterior(path, MODEL, SCALING)


def test_a_text_file_is_refused(path) -> None:
    path.write_text("chain,draw\n0,0\n")
    with pytest.raises(InvalidRun, match="is not a complete posterior"):
        load_posterior(path, MODEL, SCALING)


def test_netcdf_of_other_software_is_refused(path) -> None:
    arviz.from_dict(posterior={"mu": np.zeros((2, 3))}).to_netcdf(path)
    with pytest.raises(InvalidRun, match=r"is not a complete posterior .*other software"):
        load_posterior(path, MODEL, SCALING)


def test_a_newer_schema_is_refused_with_both_numbers(path) -> None:
    save_posterior(samples(), path)
    with h5netcdf.File(path, "a") as file:
        file.attrs["bnn_symm_posterior_schema"] = POSTERIOR_SCHEMA + 1
    wanted = f"schema {POSTERIOR_SCHEMA + 1}, this version reads up to {POSTERIOR_SCHEMA}"
    with pytest.raises(InvalidRun, match=wanted):
        load_posterior(path, MODEL, SCALING)


@pytest.mark.parametrize("make", [samples, gaussian])
def test_the_wrong_network_is_refused_by_the_names_that_do_not_fit(make, path) -> None:
    save_posterior(make(), path)
    config = MLPConfig(widths=(4,), activation="tanh", norm="layer")
    wider = BayesianModel(
        build_network(config, input_shape=(2,), num_outputs=1).double(), Prior(), MODEL.likelihood
    )
    with pytest.raises(
        IncompatiblePosteriors, match=r"layers\.0\.weight has shape \(3, 2\), expected \(4, 2\)"
    ):
        load_posterior(path, wider, SCALING)
    with pytest.raises(IncompatiblePosteriors, match=r"likelihood\.log_noise is unknown"):
        load_posterior(path, CASES["gaussian-fixed"].model(), SCALING)
    plain = build_network(MLPConfig(widths=(3, 3)), input_shape=(2,), num_outputs=1).double()
    with pytest.raises(
        IncompatiblePosteriors, match=r"layers\.1\.weight is missing.*norms\.0\.weight is unknown"
    ):
        load_posterior(path, BayesianModel(plain, Prior(), MODEL.likelihood), SCALING)


# -- crashes


@pytest.mark.parametrize("existing", [False, True])
def test_a_crash_in_the_middle_of_saving_leaves_no_part_of_a_file(
    existing, path, monkeypatch
) -> None:
    before = samples(1, 2)
    if existing:
        save_posterior(before, path)
    content = path.read_bytes() if existing else None
    saved = samples()
    read = saved.positions.read

    def crash(chain: int, start: int, stop: int):
        if chain == 1:
            raise KeyboardInterrupt
        return read(chain, start, stop)

    monkeypatch.setattr(saved.positions, "read", crash)
    with pytest.raises(KeyboardInterrupt):
        save_posterior(saved, path)
    if existing:
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
        assert path.read_bytes() == content
    else:
        assert list(path.parent.iterdir()) == []
