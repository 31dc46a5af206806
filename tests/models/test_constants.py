"""What a model infers of a network, what it holds constant, and that it leaves the network
alone."""

import math

import pytest
import torch
from torch import nn

from bnn_symm.data import Scaling
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, NotRepresentable
from bnn_symm.models import BayesianModel, Bernoulli, Categorical, Gaussian, Prior
from bnn_symm.models.likelihoods import check_likelihood
from bnn_symm.models.priors.prior import check_prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.symmetry import permutation_spec

X = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
Y = torch.linspace(-1, 1, 7)


def partly_frozen() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    net[0].requires_grad_(False)
    return net


class LowRank(nn.Module):
    """A frozen layer with a trainable change of low rank."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Linear(3, 8).requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(1, 3)), nn.Parameter(torch.randn(8, 1))
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.base(x) + x @ self.down.T @ self.up.T))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.GRU(1, 4, batch_first=True).requires_grad_(False), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.rnn(x[..., None])[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
        self.second.weight = self.first.weight
        self.first.weight.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


@pytest.mark.parametrize(
    ("make", "number"),
    [(partly_frozen, 9), (LowRank, 3 + 8 + 9), (Recurrent, 5), (Tied, 3 + 3 + 4)],
)
def test_frozen_parameters_are_constants(make, number) -> None:
    net = make()
    model = BayesianModel(net, Prior(), Gaussian(noise=0.5))
    trainable = {name: value for name, value in net.named_parameters() if value.requires_grad}
    assert model.num_parameters == number
    assert list(model.shapes) == list(trainable)
    flat = model.initial() + 0.1
    density = -0.5 * flat.double().square().sum() - 0.5 * number * math.log(2 * math.pi)
    torch.testing.assert_close(model.log_prior(flat).double(), density)
    moved = {name: value.detach() + 0.1 for name, value in trainable.items()}
    expected = torch.func.functional_call(net, moved, (X,))
    torch.testing.assert_close(model.outputs(flat, X), expected)
    fresh = model.initial(seed=3)
    assert fresh.shape == (number,)
    posterior = SamplePosterior.from_draws(model, flat[None, None], Scaling.identity((3,)))
    torch.testing.assert_close(posterior.predict(X).outputs[0, 0], expected.detach())


def test_a_permutation_of_frozen_units_is_not_representable() -> None:
    model = BayesianModel(partly_frozen(), Prior(), Gaussian(noise=0.5))
    spec = permutation_spec(model.net, (3,))
    with pytest.raises(NotRepresentable, match="fixed entries of 0"):
        model.permute(model.initial(), spec.random(0))
    torch.testing.assert_close(model.permute(model.initial(), spec.identity()), model.initial())


def test_checkpoints_with_other_constants_are_refused() -> None:
    net = partly_frozen()
    model = BayesianModel(net, Prior(), Gaussian(noise=0.5))
    assert SamplePosterior.from_state_dicts(model, [net.state_dict()]).shape == (1, 1, 9)
    other = {**net.state_dict(), "0.bias": torch.zeros(8)}
    with pytest.raises(IncompatiblePosteriors, match=r"0\.bias"):
        SamplePosterior.from_state_dicts(model, [other])


def test_the_network_is_left_alone() -> None:
    net = partly_frozen().train()
    net[1].register_buffer("unused", torch.ones(2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = BayesianModel(net, Prior(), Gaussian(noise=0.5))
    flat = model.initial().requires_grad_()
    model.log_likelihood(flat, X, Y).sum().backward()
    model.net[2].weight.data.zero_()
    assert net.training
    assert all(module.training for module in net.modules())
    assert all(value.grad is None for value in net.parameters())
    assert [value.requires_grad for value in net.parameters()] == [False, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_parameters_without_entries_and_plain_tensors_are_constants() -> None:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 1), nn.Parameter(torch.zeros(0))
            self.gain = torch.full((1,), 2.0)

        def forward(self, x):
            return self.a(x) * self.gain

    model = BayesianModel(Net().double(), Prior(), Gaussian(noise=0.5))
    assert list(model.shapes) == ["a.weight", "a.bias"]
    assert {name for name, _ in model.net.named_buffers()} == {"b", "gain"}


@pytest.mark.parametrize(
    ("likelihood", "last", "words"),
    [
        (Categorical(), nn.Softmax(-1), "softmax"),
        (Categorical(), nn.Sigmoid(), "sigmoid"),
        (Bernoulli(), nn.Sigmoid(), "sigmoid"),
        (Categorical(), nn.LogSoftmax(-1), None),
        (Categorical(), nn.Identity(), None),
        (Categorical(), nn.ReLU(), None),
        (Bernoulli(), nn.Tanh(), None),
    ],
)
def test_probabilities_are_not_read_as_logits(likelihood, last, words) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(3, 8),
        nn.ReLU(),
        nn.Linear(8, 1 if isinstance(likelihood, Bernoulli) else 3),
        last,
    )
    model = BayesianModel(net, Prior(), likelihood)
    if words is None:
        model.check_function(X)
        return
    with pytest.raises(ConfigError, match=f"as after a {words}"):
        model.log_likelihood(model.initial(), X, torch.zeros(7, dtype=torch.long))


def test_arguments_of_the_density() -> None:
    model = BayesianModel(nn.Linear(3, 1), Prior(), Gaussian(noise=0.5))
    flat = model.initial()
    for arguments, words in [
        ((flat, X.double(), Y), r"x: got a tensor of torch.float64"),
        ((flat[:-1], X, Y), r"flat: got a shape of \(3,\), expected \(4,\)"),
        ((flat, X[:, :2], Y), r"points of shape \(4, 2\)"),
    ]:
        with pytest.raises(ConfigError, match=words):
            model.log_likelihood(*arguments)
    classes = BayesianModel(nn.Linear(3, 2), Prior(), Categorical())
    with pytest.raises(ConfigError, match="classes from 0 to 2, expected indices from 0 to 1"):
        classes.log_likelihood(classes.initial(), X, torch.tensor([0, 1, 2, 0, 0, 0, 0]))


def test_a_gaussian_reads_one_output() -> None:
    model = BayesianModel(nn.Linear(3, 2), Prior(), Gaussian(noise=0.5))
    with pytest.raises(ConfigError, match=r"want \(4, 1\)"):
        model.log_likelihood(model.initial(), X, Y)


class OwnLikelihood:
    name, task = "own", "regression"

    def log_prob(self, outputs, y, latents):
        return -(outputs[..., 0] - y).abs()


@pytest.mark.parametrize(
    ("check", "value", "words"),
    [
        (check_likelihood, Gaussian, r"write Gaussian\(\)"),
        (check_likelihood, "gaussian", r"type str, expected one of .*such as Gaussian\(\)"),
        (check_likelihood, OwnLikelihood(), "type OwnLikelihood, .*NumberLikelihood"),
        (check_likelihood, torch.distributions.Normal(0.0, 1.0), "type Normal, expected"),
        (check_prior, Prior, r"write Prior\(\)"),
        (check_prior, torch.distributions.Normal(0.0, 1.0), "type Normal"),
        (check_prior, None, "NoneType"),
    ],
)
def test_what_is_no_prior_or_likelihood(check, value, words) -> None:
    with pytest.raises(ConfigError, match=words):
        check(value)
