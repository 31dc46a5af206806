import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network, fingerprint
from bnn_symm.data import Scaling
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel, Bernoulli, Prior
from bnn_symm.posteriors import GaussianPosterior, LazyDraws, SamplePosterior, posterior
from tests.models.cases import CASES, normal

MODEL = CASES["gaussian-learned"].model()
LENGTH = MODEL.num_parameters
NO_SCALING = Scaling.identity((2,))


def gaussian(**keywords) -> GaussianPosterior:
    loc, scale = normal(LENGTH, seed=1), normal(LENGTH, seed=2).exp()
    return GaussianPosterior(MODEL, NO_SCALING, loc=loc, scale=scale, **keywords)


def samples(chains: int = 2, draws: int = 7) -> tuple[SamplePosterior, Tensor]:
    values = normal(chains, draws, LENGTH, seed=3)
    return SamplePosterior(MODEL, NO_SCALING, positions=LazyDraws.from_tensor(values)), values


# -- the closed form


def test_gaussian_draws_are_keyed() -> None:
    one = gaussian()
    draws = one.draws(20, seed=5)
    assert torch.equal(draws, one.draws(20, seed=5))
    assert torch.equal(draws[:8], one.draws(8, seed=5))
    assert not torch.equal(draws, one.draws(20, seed=6))
    assert len({tuple(row) for row in draws.tolist()}) == 20


def test_gaussian_draws_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    gaussian().draws(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_walked_gaussian_draws_are_those_of_its_own_seed_whatever_the_chunk() -> None:
    one = gaussian(num_draws=11, seed=4)
    assert one.shape == (1, 11, LENGTH)
    together = torch.cat(list(one.iter_draws()))
    assert torch.equal(together, one.draws(11, seed=4))
    chunks = list(one.iter_draws(3))
    assert [len(chunk) for chunk in chunks] == [3, 3, 3, 2]
    assert torch.equal(torch.cat(chunks), together)
    assert torch.equal(one.draws(seed=4), together)  # num_draws of them where no number is given


def test_gaussian_draws_have_its_moments() -> None:
    number = 2000
    one = gaussian()
    standardized = (one.draws(number, seed=0) - one.loc) / one.scale
    # Standard errors 1/sqrt(n) and 1/sqrt(2n); the largest of some 20 of each is below 4.5 of them.
    assert float(standardized.mean(0).abs().max()) < 4.5 / math.sqrt(number)
    assert float((standardized.std(0) - 1).abs().max()) < 4.5 / math.sqrt(2 * number)
    correlations = torch.corrcoef(standardized.T) - torch.eye(LENGTH)
    assert float(correlations.abs().max()) < 5 / math.sqrt(number)
    assert torch.equal(one.mean(), one.loc)
    assert torch.equal(one.standard_deviation(), one.scale)


def test_gaussian_entropy_is_scipys() -> None:
    one = gaussian()
    expected = sum(float(stats.norm(scale=scale).entropy()) for scale in one.scale.tolist())
    assert one.entropy() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan])
def test_scales_that_are_not_positive_are_refused(wrong) -> None:
    scale = torch.ones(LENGTH, dtype=torch.float64)
    scale[3] = wrong
    with pytest.raises(IncompatiblePosteriors, match="must be positive"):
        GaussianPosterior(MODEL, NO_SCALING, loc=torch.zeros_like(scale), scale=scale)


def test_a_vector_of_the_wrong_length_is_refused_with_both_lengths() -> None:
    short = torch.ones(LENGTH - 1, dtype=torch.float64)
    message = f"has {LENGTH - 1} parameters, the model has {LENGTH}"
    with pytest.raises(IncompatiblePosteriors, match=message):
        GaussianPosterior(MODEL, NO_SCALING, loc=short, scale=short)
    with pytest.raises(IncompatiblePosteriors, match=message):
        SamplePosterior.from_draws(MODEL, torch.ones(2, 3, LENGTH - 1, dtype=torch.float64))


# -- draws


def test_draws_come_chain_by_chain_in_chunks() -> None:
    many, values = samples()
    assert many.shape == (2, 7, LENGTH)
    chunks = list(many.iter_draws(3))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1, 3, 3, 1]
    assert torch.equal(torch.cat(chunks), values.flatten(0, 1))
    assert torch.equal(many.draws(), values.flatten(0, 1))


def test_mean_and_standard_deviation_are_numpys() -> None:
    many, values = samples()
    flat = values.flatten(0, 1).numpy()
    np.testing.assert_allclose(many.mean().numpy(), flat.mean(0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(many.standard_deviation().numpy(), flat.std(0, ddof=1), rtol=1e-12)


def test_moments_do_not_depend_on_the_chunk(monkeypatch) -> None:
    many, values = samples()
    monkeypatch.setattr(posterior, "_NUMBERS_PER_CHUNK", 2 * LENGTH)
    assert len(list(many.iter_draws())) == 8
    expected = values.flatten(0, 1)
    torch.testing.assert_close(many.mean(), expected.mean(0))
    torch.testing.assert_close(many.standard_deviation(), expected.std(0))


def test_a_single_draw_has_no_spread() -> None:
    one, values = samples(1, 1)
    assert torch.equal(one.mean(), values[0, 0])
    assert float(one.standard_deviation().abs().max()) == 0.0


def test_float32_moments_are_accumulated_in_float64() -> None:
    model = CASES["gaussian-learned"].model()
    model.net.float()
    values = (1e4 + normal(2, 500, LENGTH)).float()
    many = SamplePosterior(model, NO_SCALING, positions=LazyDraws.from_tensor(values))
    expected = values.double().flatten(0, 1)
    assert many.standard_deviation().dtype == torch.float32
    torch.testing.assert_close(
        many.standard_deviation().double(), expected.std(0), rtol=1e-6, atol=0.0
    )
    torch.testing.assert_close(many.mean().double(), expected.mean(0), rtol=1e-7, atol=0.0)


def test_a_subset_of_draws_is_without_replacement_and_repeatable() -> None:
    many, values = samples()
    rows = {tuple(row) for row in values.flatten(0, 1).tolist()}
    subset = many.draws(9, seed=1)
    assert torch.equal(subset, many.draws(9, seed=1))
    assert not torch.equal(subset, many.draws(9, seed=2))
    chosen = {tuple(row) for row in subset.tolist()}
    assert len(chosen) == 9
    assert chosen < rows
    assert {tuple(row) for row in many.draws(14, seed=3).tolist()} == rows


def test_every_draw_is_equally_likely_in_a_subset() -> None:
    draws, seeds, number = 10, 400, 3
    values = torch.arange(draws, dtype=torch.float64)[None, :, None].expand(1, draws, LENGTH)
    many = SamplePosterior(MODEL, NO_SCALING, positions=LazyDraws.from_tensor(values))
    chosen = torch.cat([many.draws(number, seed=seed)[:, 0] for seed in range(seeds)])
    counts = torch.bincount(chosen.long(), minlength=draws).double()
    share = number / draws
    # Each count is binomial(seeds, share); the largest of ten deviations is below 4 standard
    # deviations.
    assert float((counts - seeds * share).abs().max()) < 4 * math.sqrt(seeds * share * (1 - share))


def test_more_draws_than_there_are_is_an_error_with_both_numbers() -> None:
    many, _ = samples()
    with pytest.raises(ConfigError, match="num_samples=15, but the posterior holds 14"):
        many.draws(15)


def test_no_draws_at_all_are_refused() -> None:
    for shape in [(0, 3, LENGTH), (3, 0, LENGTH)]:
        with pytest.raises(IncompatiblePosteriors, match="no draws"):
            SamplePosterior.from_draws(MODEL, torch.zeros(shape, dtype=torch.float64))


# -- draws made elsewhere


def test_from_draws_takes_a_flat_tensor_or_a_mapping() -> None:
    values = normal(2, 3, LENGTH)
    flat = SamplePosterior.from_draws(
        MODEL, values, info={"method": "elsewhere"}, history=[{"step": 1}]
    )
    mapping = dict(reversed(MODEL.unflatten(values).items()))
    named = SamplePosterior.from_draws(MODEL, mapping)
    assert torch.equal(flat.draws(), values.flatten(0, 1))
    assert torch.equal(named.draws(), values.flatten(0, 1))
    assert (flat.info, flat.history) == ({"method": "elsewhere"}, [{"step": 1}])
    assert (flat.scaling.y_mean, flat.scaling.y_scale) == (0.0, 1.0)


def test_from_draws_casts_to_the_dtype_of_the_network() -> None:
    values = normal(1, 2, LENGTH).float()
    assert SamplePosterior.from_draws(MODEL, values).draws().dtype == torch.float64


def test_from_draws_names_everything_that_does_not_fit() -> None:
    mapping = MODEL.unflatten(normal(2, 3, LENGTH))
    mapping["head.weight"] = mapping["head.weight"][..., :2]
    mapping["tail.weight"] = mapping.pop("head.bias")
    with pytest.raises(IncompatiblePosteriors) as caught:
        SamplePosterior.from_draws(MODEL, mapping)
    message = str(caught.value)
    assert "head.bias is missing" in message
    assert "tail.weight is unknown" in message
    assert "head.weight has shape (1, 2), expected (1, 3)" in message
    assert "layers.0" not in message


def test_from_draws_refuses_parameters_with_different_numbers_of_draws() -> None:
    mapping = MODEL.unflatten(normal(2, 3, LENGTH))
    mapping["head.bias"] = mapping["head.bias"][:, :2]
    with pytest.raises(IncompatiblePosteriors, match=r"'head\.bias': \(2, 2\)"):
        SamplePosterior.from_draws(MODEL, mapping)


def networks(number: int) -> tuple[list[nn.Module], object]:
    case = CASES["gaussian-fixed"]
    nets = []
    for seed in range(number):
        model = case.model()
        model.net.load_state_dict(model.unflatten(normal(model.num_parameters, seed=seed)))
        nets.append(model.net)
    return nets, case.model()


@pytest.mark.parametrize("as_state", [True, False], ids=["state_dict", "module"])
def test_from_state_dicts_makes_every_network_a_chain_of_one_draw(as_state) -> None:
    nets, model = networks(3)
    states = [net.state_dict() if as_state else net for net in nets]
    ensemble = SamplePosterior.from_state_dicts(model, states)
    assert ensemble.shape == (3, 1, model.num_parameters)
    x = normal(4, 2)
    outputs = ensemble.predict(x).outputs[:, 0]
    torch.testing.assert_close(outputs, torch.stack([net(x).detach() for net in nets]))


@pytest.mark.parametrize("member", [0, 1])
def test_from_state_dicts_names_what_does_not_fit_in_any_member(member) -> None:
    nets, model = networks(2)
    states = [dict(net.state_dict()) for net in nets]
    del states[member]["head.bias"]
    states[member]["head.weight"] = states[member]["head.weight"][:, :2]
    with pytest.raises(
        IncompatiblePosteriors, match=r"head\.bias is missing.*head\.weight has shape \(1, 2\)"
    ):
        SamplePosterior.from_state_dicts(model, states)


def test_from_state_dicts_says_that_a_learned_noise_is_missing() -> None:
    nets, _ = networks(2)
    with pytest.raises(IncompatiblePosteriors, match=r"likelihood\.log_noise is missing"):
        SamplePosterior.from_state_dicts(MODEL, nets)


@pytest.mark.parametrize("kind", ["weight_asymmetric", "sigma_asymmetric"])
def test_from_state_dicts_leaves_out_what_is_fixed_if_it_is_the_same(kind) -> None:
    def net(symmetry_seed: int, seed: int = 0) -> nn.Module:
        symmetry = SymmetryConfig(kind=kind, seed=symmetry_seed)
        return build_network(
            MLPConfig(widths=(8,), symmetry=symmetry), input_shape=(6,), num_outputs=1, seed=seed
        ).double()

    model = BayesianModel(net(0), Prior(), Bernoulli())
    own, other = net(0, seed=1), net(1, seed=1)
    ensemble = SamplePosterior.from_state_dicts(
        model, [own, own.state_dict(), dict(own.named_parameters())]
    )
    x = normal(4, 6)
    for outputs in ensemble.predict(x).outputs[:, 0]:
        torch.testing.assert_close(outputs, own(x).detach())
    for state in (other, other.state_dict()):
        with pytest.raises(
            IncompatiblePosteriors, match="checkpoint 1 has the fingerprint"
        ) as error:
            SamplePosterior.from_state_dicts(model, [own, state])
        for each in (own, other):
            assert (fingerprint(each) or "")[:12] in str(error.value)
    standard = build_network(MLPConfig(widths=(8,)), input_shape=(6,), num_outputs=1).double()
    with pytest.raises(IncompatiblePosteriors, match=r"(mask|matrix) is unknown"):
        SamplePosterior.from_state_dicts(
            BayesianModel(standard, Prior(), Bernoulli()), [own.state_dict()]
        )


# -- predictions


def test_predict_runs_the_network_at_every_draw_and_hands_on_latents_and_scaling() -> None:
    values = normal(2, 3, LENGTH)
    scaling = Scaling(x_mean=np.zeros(2), x_scale=np.ones(2), y_mean=10.0, y_scale=3.0)
    predictive = SamplePosterior.from_draws(MODEL, values, scaling).predict(normal(5, 2, seed=8))
    net = CASES["gaussian-learned"].model().net
    for chain in range(2):
        for draw in range(3):
            net.load_state_dict(MODEL.net_values(MODEL.unflatten(values[chain, draw])))
            expected = net(normal(5, 2, seed=8)).detach()
            torch.testing.assert_close(predictive.outputs[chain, draw], expected)
    assert torch.equal(predictive.latents["log_noise"], values[..., -1])
    assert (predictive.location, predictive.scale) == (10.0, 3.0)
    assert predictive.num_draws == 6


def test_predict_takes_inputs_of_another_dtype() -> None:
    many, _ = samples()
    x = normal(5, 2)
    torch.testing.assert_close(
        many.predict(x.float()).outputs, many.predict(x).outputs, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "make", [lambda: samples()[0], lambda: gaussian(num_draws=14)], ids=["samples", "gaussian"]
)
def test_predictions_do_not_depend_on_the_chunks(make, monkeypatch) -> None:
    one, x = make(), normal(5, 2)
    whole = one.predict(x)
    monkeypatch.setattr(posterior, "_OUTPUTS_PER_PREDICTIVE", 2 * 14)
    monkeypatch.setattr(posterior, "_NUMBERS_PER_CHUNK", 4 * LENGTH)
    monkeypatch.setattr(posterior, "_NUMBERS_PER_FORWARD", 4)
    parts = list(one.iter_predict(x))
    assert [part.outputs.shape[2] for part in parts] == [2, 2, 1]
    torch.testing.assert_close(torch.cat([part.outputs for part in parts], dim=2), whole.outputs)
    torch.testing.assert_close(one.predict(x).outputs, whole.outputs)
    for part in parts:
        assert torch.equal(part.latents["log_noise"], whole.latents["log_noise"])
