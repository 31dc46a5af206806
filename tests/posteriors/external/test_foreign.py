"""Draws of NumPyro, arrays under other names and in other orders of axes, and plain checkpoints."""

import importlib.util
import math
import pickle
from pathlib import Path

import h5netcdf
import numpy as np
import pytest
import scipy.io
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network, effective_parameters
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, InvalidRun
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import (
    SamplePosterior,
    match_names,
    read_checkpoint,
    read_names,
    read_netcdf,
)
from bnn_symm.posteriors.external.external_draws import join_chains
from tests.models.cases import normal

FIXTURES = Path(__file__).parent / "fixtures"
NUMPYRO = FIXTURES / "numpyro_mlp.nc"
SIGMA = {"likelihood.log_noise": {"name": "sigma", "transform": "log"}}


def mlp(
    widths=(5, 5), inputs: int = 2, outputs: int = 1, likelihood=None, **keywords
) -> BayesianModel:
    config = MLPConfig(widths=widths, activation="tanh", **keywords)
    net = build_network(config, input_shape=(inputs,), num_outputs=outputs).double()
    return BayesianModel(net, Prior(), likelihood or Gaussian(noise=1.0))


def arrays_of(model: BayesianModel, chains: int = 2, draws: int = 3) -> dict[str, Tensor]:
    return model.unflatten(normal(chains, draws, model.num_parameters))


def turned(name: str, value: Tensor) -> Tensor:
    return value.transpose(-1, -2) if name.endswith("weight") else value


# -- NumPyro


def check_numpyro(path: Path) -> None:
    """The network at NumPyro's draws is NumPyro's own, in outputs and in log likelihood."""
    model = mlp(likelihood=Gaussian())
    draws = read_netcdf(path)
    matching = match_names(draws.arrays, model, SIGMA)
    flat = matching.flatten(draws.arrays)
    posterior = SamplePosterior.from_draws(model, flat, sample_stats=draws.sample_stats)
    with h5netcdf.File(path) as file:
        x = torch.from_numpy(file["constant_data"]["x"][...])
        y = torch.from_numpy(file["observed_data"]["y"][...])
        log_likelihood = file["log_likelihood"]["y"][...]
    predictive = posterior.predict(x)
    np.testing.assert_allclose(
        predictive.outputs[..., 0].numpy(), draws.arrays["mu"], rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(
        predictive.draw_log_prob(y).numpy(), log_likelihood, rtol=1e-10, atol=1e-10
    )
    assert matching.unused == ("mu",)
    assert [match.parameter for match in matching.matches if "transposed" in match.changes] == [
        "layers.0.weight",
        "layers.1.weight",  # square: decided by the others
        "head.weight",
    ]
    assert matching.matches[-1].changes == ["log of a standard deviation"]
    wanted = ["acceptance_rate", "diverging", "energy", "lp", "n_steps", "step_size", "tree_depth"]
    assert list(draws.sample_stats) == wanted
    assert draws.sample_stats["diverging"].dtype == bool
    assert draws.library is not None
    assert draws.library.startswith("numpyro ")


def test_a_run_of_numpyro_computes_what_numpyro_did() -> None:
    check_numpyro(NUMPYRO)


@pytest.mark.slow
def test_a_run_that_numpyro_makes_now_does_too(tmp_path, monkeypatch) -> None:
    pytest.importorskip("numpyro", reason="NumPyro is not installed: pip install --group peers")
    spec = importlib.util.spec_from_file_location("make_numpyro", FIXTURES / "make_numpyro.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    monkeypatch.setattr(maker, "DRAWS", 10)
    maker.main(str(tmp_path / "new.nc"))
    check_numpyro(tmp_path / "new.nc")


def test_the_noise_is_never_guessed() -> None:
    arrays = read_netcdf(NUMPYRO).arrays
    with pytest.raises(
        IncompatiblePosteriors, match=r"never guessed.*\{name: sigma, transform: log\}"
    ):
        match_names(arrays, mlp(likelihood=Gaussian()))
    assert match_names(arrays, mlp()).unused == ("mu", "sigma")


@pytest.mark.parametrize(
    ("transform", "of"), [("log", 0.5), ("log_sqrt", 0.25), ("log_rsqrt", 4.0)]
)
def test_the_noise_may_be_a_standard_deviation_a_variance_or_a_precision(transform, of) -> None:
    model = mlp(likelihood=Gaussian())
    arrays = arrays_of(model)
    del arrays["likelihood.log_noise"]
    arrays["noise"] = torch.full((2, 3), of, dtype=torch.float64)
    names = {"likelihood.log_noise": {"name": "noise", "transform": transform}}
    flat = match_names(arrays, model, names).flatten(arrays)
    torch.testing.assert_close(
        flat[..., -1], torch.full((2, 3), math.log(0.5), dtype=torch.float64)
    )
    arrays["noise"][1, 2] = -of
    with pytest.raises(IncompatiblePosteriors, match=f"transform: {transform}.* but holds -{of:g}"):
        match_names(arrays, model, names).flatten(arrays)


# -- names


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (
            "layers.0.weight layers.0.bias layers.1.weight layers.1.bias head.weight head.bias",
            "same name",
        ),
        (
            "layers_0_weight layers_0_bias layers_1_weight layers_1_bias head_weight head_bias",
            "same name up to separators",
        ),
        (
            "layers/0/kernel layers/0/b layers/1/kernel layers/1/b Head.w Head.bias",
            "same name up to separators",
        ),
        (
            "nn/layers0.kernel nn/layers0.bias nn/layers1.kernel nn/layers1.bias nn/head.kernel "
            "nn/head.bias",
            "same name in a scope",
        ),
        (
            "Dense_0/kernel Dense_0/bias Dense_1/kernel Dense_1/bias Dense_2/kernel Dense_2/bias",
            "numbered in order",
        ),
        ("w1 b1 w2 b2 w3 b3", "numbered in order"),
        ("W9 B9 W10 B10 W11 B11", "numbered in order"),
    ],
)
def test_names_of_others_are_paired(names, rule) -> None:
    model = mlp()
    own = arrays_of(model)
    theirs = dict(reversed(list(zip(names.split(), own.values(), strict=True))))
    matching = match_names(theirs, model)
    assert {match.rule for match in matching.matches} == {rule}
    assert torch.equal(matching.flatten(theirs), model.flatten(own))


def test_a_number_in_a_sequential_network_is_not_that_of_a_layer() -> None:
    net = nn.Sequential(
        nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)
    ).double()
    model = BayesianModel(net, Prior(), Gaussian(noise=1.0))
    own = arrays_of(model)
    theirs = {
        f"Dense_{int(name[0]) // 2}.{name[2:]}": turned(name, value) for name, value in own.items()
    }
    matching = match_names(theirs, model)
    assert torch.equal(matching.flatten(theirs), model.flatten(own))
    assert [match.name for match in matching.matches][::2] == [
        "Dense_0.weight",
        "Dense_1.weight",
        "Dense_2.weight",
    ]


def test_a_deeper_network_is_refused() -> None:
    theirs = {name.replace(".", "_"): value for name, value in arrays_of(mlp((5, 5, 5))).items()}
    with pytest.raises(
        IncompatiblePosteriors,
        match=r"layers_2_weight is unknown.*list every parameter in a name mapping",
    ):
        match_names(theirs, mlp((5, 5)))
    everything = {name: name.replace(".", "_") for name in mlp((5, 5)).shapes}
    assert match_names(theirs, mlp((5, 5)), everything).unused == (
        "layers_2_weight",
        "layers_2_bias",
    )


def test_names_that_nothing_pairs_are_listed_on_both_sides_with_the_map_to_write(tmp_path) -> None:
    model = mlp((5, 4))
    own = arrays_of(model)
    array_names = ["w_in", "b_in", "w_mid", "b_mid", "w_out", "b_out"]
    theirs = dict(zip(array_names, own.values(), strict=True))
    with pytest.raises(IncompatiblePosteriors) as caught:
        match_names(theirs, model)
    message = str(caught.value)
    assert "layers.0.weight (5, 2)" in message
    assert "w_mid (4, 5)" in message
    written = message[message.index("such as {") + len("such as ") :]
    # Every shape of this network occurs once, so that the map in the message is the right one: it
    # can be pasted.
    (tmp_path / "map.yaml").write_text(written)
    names = read_names(tmp_path / "map.yaml")
    assert names == dict(zip(model.shapes, array_names, strict=True))
    assert torch.equal(match_names(theirs, model, names).flatten(theirs), model.flatten(own))


def test_what_two_arrays_could_be_is_left_to_the_user() -> None:
    model = mlp((5, 5))
    theirs = {f"x{i}_y{i}": value for i, value in enumerate(arrays_of(model).values())}
    with pytest.raises(
        IncompatiblePosteriors, match=r"layers\.0\.bias: FILL_IN.*layers\.1\.weight: x2_y2"
    ):
        match_names(theirs, model)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"layers.0.weigth": "w1"}, "no such parameter; did you mean 'layers.0.weight'"),
        ({"layers.0.weight": "w9"}, "unknown array 'w9'; did you mean"),
        ({"layers.0.weight": 3}, "got 3, expected a name, or"),
        ({"layers.0.weight": {"transpose": True}}, "expected a name, or"),
        (
            {"layers.0.weight": {"name": "w1", "transposed": True}},
            "unknown key transposed; did you mean 'transpose'",
        ),
        (
            {"layers.0.weight": {"name": "w1", "transpose": "yes"}},
            "got 'yes', expected true or false",
        ),
        (
            {"layers.0.weight": {"name": "w1", "transform": "log"}},
            "transform is for latent variables",
        ),
        (
            {"layers.0.weight": {"name": "w1", "flatten": "c"}},
            "expected channels_first or channels_last",
        ),
        (
            {"layers.0.weight": {"name": "w1", "flatten": "channels_last"}},
            "flatten is for dense weights that read",
        ),
        (
            {"likelihood.log_noise": {"name": "sigma", "transform": "exp"}},
            r"known: log \(of a standard deviation\)",
        ),
        (
            {"likelihood.log_noise": {"name": "sigma", "transpose": True}},
            "transpose is for weights",
        ),
        ({"layers.0.weight": "w1", "layers.1.weight": "w1"}, "w1 is listed for two parameters"),
    ],
)
def test_a_map_that_says_nothing_that_can_be_done_is_refused(names, message) -> None:
    with pytest.raises(ConfigError, match=message):
        match_names(read_netcdf(NUMPYRO).arrays, mlp(likelihood=Gaussian()), {**SIGMA, **names})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no name mapping"),
        ("[1", "is not valid YAML"),
        ("- a", "holds no name mapping"),
        ("", "holds no name mapping"),
    ],
)
def test_a_file_that_is_no_map_is_refused(text, message, tmp_path) -> None:
    if text is not None:
        (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_names(tmp_path / "map.yaml")


# -- shapes


def test_a_square_weight_follows_the_others() -> None:
    model = mlp((3, 3), inputs=2)
    own = arrays_of(model)
    for turn in (lambda name, value: value, turned):
        theirs = {name.replace(".", "_"): turn(name, value) for name, value in own.items()}
        assert torch.equal(match_names(theirs, model).flatten(theirs), model.flatten(own))


def test_square_weights_alone_have_to_be_told() -> None:
    model = mlp((3,), inputs=3, outputs=3)
    own = arrays_of(model)
    theirs = {name.replace(".", "_"): turned(name, value) for name, value in own.items()}
    with pytest.raises(
        IncompatiblePosteriors, match=r"no other weight decides.*layers_0_weight, transpose: true"
    ):
        match_names(theirs, model)
    names = {
        name: {"name": name.replace(".", "_"), "transpose": True}
        for name in own
        if "weight" in name
    }
    assert torch.equal(match_names(theirs, model, names).flatten(theirs), model.flatten(own))
    same = {
        name: {"name": name.replace(".", "_"), "transpose": False}
        for name in own
        if "weight" in name
    }
    assert not torch.equal(match_names(theirs, model, same).flatten(theirs), model.flatten(own))
    # torch's own names, and nothing that speaks against torch's shapes.
    assert torch.equal(match_names(own, model).flatten(own), model.flatten(own))


def test_weights_that_disagree_leave_a_square_one_undecided() -> None:
    model = mlp((3, 3), inputs=2)
    theirs = arrays_of(model)
    theirs["head.weight"] = theirs["head.weight"].transpose(-1, -2)
    with pytest.raises(IncompatiblePosteriors, match="other weights disagree"):
        match_names(theirs, model)
    names = {"layers.1.weight": {"name": "layers.1.weight", "transpose": False}}
    assert [
        match.parameter for match in match_names(theirs, model, names).matches if match.changes
    ] == ["head.weight"]


def test_a_shape_that_fits_in_no_way_is_named_with_the_one_that_was_wanted() -> None:
    model = mlp((5, 5), inputs=3)
    with pytest.raises(
        IncompatiblePosteriors,
        match=r"layers\.0\.weight, here w1, has shape \(2, 5\), expected \(5, 3\)",
    ):
        match_names(read_netcdf(NUMPYRO).arrays, model, {"layers.0.weight": "w1"})
    with pytest.raises(
        IncompatiblePosteriors, match=r"shape \(2, 5\), which is not \(5, 2\) with transpose: false"
    ):
        match_names(
            read_netcdf(NUMPYRO).arrays,
            mlp(),
            {"layers.0.weight": {"name": "w1", "transpose": False}},
        )


class Matrix(nn.Module):
    """A square matrix that no layer of torch owns."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.matrix = nn.Parameter(torch.zeros(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x)) @ self.matrix


def test_a_matrix_without_a_convention_is_asked_for_where_others_are_turned() -> None:
    model = BayesianModel(Matrix().double(), Prior(), Categorical())
    own = arrays_of(model)
    assert torch.equal(match_names(own, model).flatten(own), model.flatten(own))
    theirs = {name: turned(name, value) for name, value in own.items()}
    with pytest.raises(
        IncompatiblePosteriors, match=r"\{matrix: \{name: matrix, transpose: true\}\}"
    ):
        match_names(theirs, model)
    names = {"matrix": {"name": "matrix", "transpose": False}}
    assert torch.equal(match_names(theirs, model, names).flatten(theirs), model.flatten(own))


class Convolution(nn.Module):
    input_shape = (2, 4, 5)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.head = nn.Linear(3 * 4 * 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.conv(x)).flatten(1))


def test_kernels_and_flattened_maps_of_a_library_that_keeps_channels_last() -> None:
    model = BayesianModel(Convolution().double(), Prior(), Categorical())
    own, x = arrays_of(model, 1, 2), normal(6, 2, 4, 5)
    # What a network computes that has its axes as JAX has them, written down from its definition.
    kernel = own["conv.weight"].permute(0, 1, 4, 5, 3, 2)  # (position, position, in, out)
    dense = normal(1, 2, 4 * 5 * 3, 2, seed=7)  # reads (position, position, channel)
    theirs = {"Conv_0.kernel": kernel, "Conv_0.bias": own["conv.bias"], "Dense_0.kernel": dense}
    theirs["Dense_0.bias"] = own["head.bias"]
    names = {
        "conv.weight": "Conv_0.kernel",
        "conv.bias": "Conv_0.bias",
        "head.bias": "Dense_0.bias",
    }
    mapping = {**names, "head.weight": {"name": "Dense_0.kernel", "flatten": "channels_last"}}
    matching = match_names(theirs, model, mapping)
    outputs = SamplePosterior.from_draws(model, matching.flatten(theirs)).predict(x).outputs[0]
    for draw in range(2):
        hidden = nn.functional.conv2d(
            x, kernel[0, draw].permute(3, 2, 0, 1), own["conv.bias"][0, draw], padding=1
        )
        flat = torch.tanh(hidden).permute(0, 2, 3, 1).flatten(1)
        torch.testing.assert_close(outputs[draw], flat @ dense[0, draw] + own["head.bias"][0, draw])
    assert matching.matches[0].changes == ["kernel turned to (out, in, *positions)"]
    assert matching.matches[2].changes == [
        "transposed",
        "inputs reordered from channels last to channels first",
    ]
    with pytest.raises(
        IncompatiblePosteriors,
        match=r"set flatten to channels_last or channels_first.*flatten: channels_last",
    ):
        match_names(theirs, model, {**names, "head.weight": "Dense_0.kernel"})
    first = {**names, "head.weight": {"name": "Dense_0.kernel", "flatten": "channels_first"}}
    expected = dense.transpose(-1, -2)
    assert torch.equal(
        model.unflatten(match_names(theirs, model, first).flatten(theirs))["head.weight"], expected
    )


# -- fixed entries


def test_whole_weights_are_restricted_to_the_free_entries_if_they_hold_the_fixed_values() -> None:
    model = mlp(
        (6, 5), inputs=4, symmetry=SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(2, 3, 0))
    )
    own = arrays_of(model)
    whole = effective_parameters(model.net, own)
    for theirs in (own, whole, {name: turned(name, value) for name, value in whole.items()}):
        matching = match_names(theirs, model)
        torch.testing.assert_close(matching.flatten(theirs), model.flatten(own))
    assert match_names(whole, model).matches[0].changes == ["restricted to the free entries"]
    single = {
        name: value.float().numpy() for name, value in whole.items()
    }  # as other software may keep them
    torch.testing.assert_close(
        match_names(single, model).flatten(single), model.flatten(own), rtol=1e-6, atol=1e-6
    )
    mask = model.net.get_submodule("layers.0").mask
    place = mask.logical_not().nonzero()[0].tolist()
    wrong = {name: value.clone() for name, value in whole.items()}
    wrong["layers.0.weight"][1, 2, place[0], place[1]] += 0.01
    with pytest.raises(
        IncompatiblePosteriors,
        match=r"layers\.0\.weight holds .* in chain 1, draw 2, where .* fixed",
    ):
        match_names(wrong, model).flatten(wrong)


# -- values


def test_values_that_are_not_finite_are_refused_with_their_place() -> None:
    model = mlp()
    theirs = arrays_of(model)
    theirs["head.bias"][1, 2] = math.nan
    with pytest.raises(
        IncompatiblePosteriors, match=r"head\.bias holds .* not finite, first in chain 1, draw 2"
    ):
        match_names(theirs, model).flatten(theirs)


def test_from_draws_takes_arrays_of_others_and_says_what_it_did() -> None:
    arrays = read_netcdf(NUMPYRO).arrays
    parameters = {name: value for name, value in arrays.items() if name not in ("mu", "sigma")}
    posterior = SamplePosterior.from_draws(mlp(), parameters, info={"method": "nuts"})
    assert posterior.shape == (3, 40, 51)
    assert posterior.info["method"] == "nuts"
    assert posterior.info["matching"][0]["changes"] == ["transposed"]
    with pytest.raises(IncompatiblePosteriors, match=r"mu is unknown; sigma is unknown"):
        SamplePosterior.from_draws(mlp(), arrays)
    with pytest.raises(ConfigError, match="omit them for a flat tensor"):
        SamplePosterior.from_draws(mlp(), normal(1, 2, 51), names={"head.bias": "b3"})


# -- files


def write(path: Path, groups: dict[str, dict[str, tuple[tuple[str, ...], np.ndarray]]]) -> Path:
    with h5netcdf.File(path, "w") as file:
        for group, variables in groups.items():
            own = file.create_group(group)
            for name, (axes, value) in variables.items():
                for axis, size in zip(axes, value.shape, strict=True):
                    if axis not in own.dimensions:
                        own.dimensions[axis] = size
                own.create_variable(name, axes, value.dtype, data=value)
    return path


def test_axes_in_another_order_groups_within_groups_and_what_is_no_draw(tmp_path) -> None:
    draws = np.arange(24.0).reshape(4, 3, 2)
    path = write(
        tmp_path / "a.nc",
        {
            "posterior": {
                "w": (("draw", "w_dim", "chain"), draws),
                "scale": (("w_dim",), np.ones(3)),
            },
            "posterior/nn": {"b": (("chain", "draw"), np.ones((2, 4)))},
            "sample_stats": {
                "accept_prob": (("chain", "draw"), np.full((2, 4), 0.5)),
                "potential_energy": (("chain", "draw"), np.full((2, 4), 3.0)),
                "divergent__": (("chain", "draw"), np.eye(2, 4)),
                "own_number": (("chain", "draw"), np.ones((2, 4))),
            },
        },
    )
    found = read_netcdf(path)
    assert set(found.arrays) == {"w", "nn/b"}
    np.testing.assert_array_equal(found.arrays["w"], draws.transpose(2, 0, 1))
    assert list(found.sample_stats) == ["acceptance_rate", "diverging", "lp"]
    assert (found.sample_stats["lp"] == -3).all()
    assert found.sample_stats["diverging"].dtype == bool
    assert found.library is None


def test_files_that_hold_no_draws_are_refused(tmp_path) -> None:
    path = tmp_path / "a.nc"
    with pytest.raises(InvalidRun, match=r"no file .*a\.nc; name the NetCDF file"):
        read_netcdf(path)
    with pytest.raises(InvalidRun, match="is a directory, expected a NetCDF file; a Zarr store"):
        read_netcdf(tmp_path)
    path.write_text("chain,draw\n")
    with pytest.raises(InvalidRun, match="is not a NetCDF file"):
        read_netcdf(path)
    with scipy.io.netcdf_file(path, "w") as file:
        file.createDimension("chain", 2)
    with pytest.raises(InvalidRun, match=r"older NetCDF3 format.*engine='h5netcdf'"):
        read_netcdf(path)
    write(path, {"prior": {"w": (("chain", "draw"), np.ones((2, 3)))}})
    with pytest.raises(InvalidRun, match=r"no group `posterior` \(its groups: prior\)"):
        read_netcdf(path)
    write(path, {"posterior": {"w": (("sample",), np.ones(3))}})
    with pytest.raises(InvalidRun, match="no variables with the dimensions chain and draw"):
        read_netcdf(path)
    content = NUMPYRO.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidRun, match="cannot be read as NetCDF"):
        read_netcdf(path)


def test_chains_of_several_files_are_joined_and_must_be_alike(tmp_path) -> None:
    one = read_netcdf(NUMPYRO)
    two = join_chains([one, one], ["a.nc", "b.nc"])
    assert two.arrays["w1"].shape == (6, 40, 2, 5)
    assert two.sample_stats["energy"].shape == (6, 40)
    other = read_netcdf(NUMPYRO)
    other.arrays["w1"] = other.arrays["w1"][:, :30]
    with pytest.raises(InvalidRun, match=r"b\.nc has w1 as .*\(30, 2, 5\), a\.nc as \(40, 2, 5\)"):
        join_chains([one, other], ["a.nc", "b.nc"])


# -- checkpoints


def sequential(seed: int) -> nn.Sequential:
    """A network that a few steps of Adam have fitted to a wave."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = torch.linspace(-2, 2, 30, dtype=torch.float64)[:, None]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        (net(x) - x.sin()).square().mean().backward()
        optimizer.step()
    return net


def test_plain_checkpoints_become_an_ensemble(tmp_path) -> None:
    nets = [sequential(seed) for seed in range(3)]
    paths = [tmp_path / "0.safetensors", tmp_path / "1.pt", tmp_path / "2.ckpt"]
    save_file(nets[0].state_dict(), paths[0])
    torch.save(nets[1].state_dict(), paths[1])
    torch.save({"epoch": 20, "state_dict": nets[2].state_dict()}, paths[2])
    model, x = BayesianModel(sequential(5), Prior(), Gaussian(noise=0.1)), normal(6, 1)
    wanted = torch.stack([net(x).detach() for net in nets])
    assert torch.equal(
        SamplePosterior.from_state_dicts(model, paths).predict(x).outputs[:, 0], wanted
    )
    # The same weights under the names of another network of the same shape.
    other = mlp((8,), inputs=1, likelihood=Gaussian(noise=0.1))
    ensemble = SamplePosterior.from_state_dicts(other, paths)
    assert torch.equal(ensemble.predict(x).outputs[:, 0], wanted)
    assert {row["rule"] for row in ensemble.info["matching"]} == {"numbered in order"}


def test_checkpoints_that_are_none_are_refused(tmp_path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(InvalidRun, match="no file"):
        read_checkpoint(path)
    torch.save(sequential(0), path)
    with pytest.raises(
        InvalidRun, match="contains more than tensors, and loading it could run code"
    ):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(
        InvalidRun, match=r"a\.pt contains more than tensors|a\.pt is no torch checkpoint"
    ):
        read_checkpoint(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(InvalidRun, match="holds no state dict"):
        read_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(InvalidRun, match="is no torch checkpoint"):
        read_checkpoint(path)
    other = tmp_path / "a.safetensors"
    other.write_bytes(b"12345678")
    with pytest.raises(InvalidRun, match="is no safetensors file"):
        read_checkpoint(other)
    model = BayesianModel(sequential(0), Prior(), Gaussian(noise=0.1))
    with pytest.raises(IncompatiblePosteriors, match="no checkpoints"):
        SamplePosterior.from_state_dicts(model, [])
    save_file({**sequential(0).state_dict(), "4.weight": torch.zeros(1, 1)}, other)
    with pytest.raises(IncompatiblePosteriors, match=r"a\.safetensors: .*4\.weight is unknown"):
        SamplePosterior.from_state_dicts(model, [other])
