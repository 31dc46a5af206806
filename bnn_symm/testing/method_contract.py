"""The contract of inference methods: what each promises, whatever it computes."""

import copy
import dataclasses
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bnn_symm.architectures import (
    ArchitectureConfig,
    CNNConfig,
    MLPConfig,
    SymmetryConfig,
    asymmetrize,
    build_network,
    drop_inputs,
    fingerprint,
)
from bnn_symm.data import Dataset, load_dataset
from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference import MAP, FitState, Method
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import Posterior
from bnn_symm.testing.interruption import Interruption, all_draws, without_times

_DROPOUT = 0.2


class MethodContract:
    """Checks that every inference method passes; pytest collects them from a subclass.

    Attributes:
        method: the method, with settings so short that a fit takes at most about a second. Its
            history needs several rows (`log_every`).
        is_random: whether fits with different seeds differ.
        history_shows_start: whether the first row of the history is that of a position near the
            initial one.
        stops: number of calls of `should_stop` before each interruption of a fit. Later ones than
            the fit has steps are left out.

    Example:
        >>> class TestMAP(MethodContract):
        ...     method = MAP(num_steps=60, log_every=7)
        ...     is_random = False
    """

    method: ClassVar[Method]
    is_random: ClassVar[bool] = True
    history_shows_start: ClassVar[bool] = True
    stops: ClassVar[Sequence[int]] = (3, 30, 29)

    @classmethod
    @lru_cache(maxsize=1)
    def _reference(cls) -> Posterior:
        """Return the fit with seed 0, and check that it has no side effects."""
        model, data = _iris()
        before = [value.clone() for value in model.net.parameters()]
        torch.manual_seed(1)
        generators = _global_generators()
        posterior = cls.method.fit(model, data, seed=0)
        assert _global_generators() == generators
        assert all(torch.equal(a, b) for a, b in zip(before, model.net.parameters(), strict=True))
        return posterior

    def test_the_result_describes_itself(self) -> None:
        """Check the shape, the values, the history and the `info` of a posterior."""
        model, data = _iris()
        posterior = self._reference()
        assert posterior.info["method"] == self.method.name
        assert posterior.info["status"] == "complete"
        assert posterior.info["gradient_evaluations"] > 0
        assert posterior.info["seconds"] > 0
        assert posterior.shape[2] == model.num_parameters
        assert torch.isfinite(all_draws(posterior)).all()
        row = posterior.history[-1]
        assert {"chain", "step", "seconds", "gradient_evaluations", "objective"} <= set(row)
        outputs = posterior.predict(data.test.x).outputs
        assert outputs.shape == (*posterior.shape[:2], len(data.test), 3)

    def test_the_seed_alone_decides(self) -> None:
        """Check that equal seeds give equal bits, whatever the state of global generators."""
        model, data = _iris()
        torch.manual_seed(2)
        _assert_same(self.method.fit(model, data, seed=0), self._reference())
        if self.is_random:
            other = self.method.fit(model, data, seed=4)
            assert not torch.equal(all_draws(other), all_draws(self._reference()))

    def test_an_interrupted_fit_resumes_bitwise_identically(self) -> None:
        """Check the partial results and the end of a fit that is interrupted at several steps."""
        model, data = _iris()
        state, interruptions = FitState(), 0
        for stop_after in self.stops:
            interruption = Interruption(stop_after, state)
            part = self.method.fit(model, data, seed=0, callbacks=[interruption], fit_state=state)
            assert torch.isfinite(all_draws(part)).all()
            if part.info["status"] == "complete":
                break
            assert part.info["status"] == "interrupted"
            interruptions += 1
            state = self.method.truncate_to_checkpoint(interruption.fit_state())
        assert interruptions > 0
        before = copy.deepcopy(state.states)
        rest = self.method.fit(model, data, seed=0, fit_state=state)
        for chain, arrays in state.states.items():
            for name, value in arrays.items():
                np.testing.assert_array_equal(value, before[chain][name])  # NaN equals NaN
        assert rest.info["status"] == "complete"
        _assert_same(rest, self._reference())

    def test_float64_and_an_initial_posterior(self) -> None:
        """Check the type of the draws, and that a fit from a mode starts near the mode."""
        model, data, mode = _mode()
        posterior = self.method.fit(model, data, seed=0, initial=mode)
        assert all_draws(posterior).dtype == torch.float64
        if self.history_shows_start:
            # The objective is near its best; from random values it is far above it.
            cold = self.method.fit(model, data, seed=0, callbacks=[Interruption(stop_after=25)])
            assert posterior.history[0]["objective"] < cold.history[0]["objective"]

    def test_convolutions(self) -> None:
        """Check a fit of a small convolutional network."""
        data = _digits()
        net = _network(CNNConfig(widths=(2,), norm="frn", dropout=_DROPOUT), data, 10)
        model = BayesianModel(net, Prior(scale="fan_in"), Categorical())
        assert self.method.fit(model, data, seed=0).shape[2] == model.num_parameters > 10

    def test_learned_noise(self) -> None:
        """Check the latent noise of a regression."""
        data = load_dataset("gap")
        net = _network(MLPConfig(widths=(3,), dropout=_DROPOUT), data, 1)
        posterior = self.method.fit(BayesianModel(net, Prior(), Gaussian()), data, seed=0)
        assert posterior.predict(data.test.x).latents["log_noise"].shape == posterior.shape[:2]

    def test_an_asymmetric_network(self) -> None:
        """Check a fully connected network with fixed weights."""
        self.check_asymmetric_network(
            MLPConfig(
                widths=(8,), dropout=_DROPOUT, symmetry=SymmetryConfig(kind="weight_asymmetric")
            )
        )

    def test_asymmetric_convolutions(self) -> None:
        """Check convolutions with FiGLU."""
        self.check_asymmetric_network(
            CNNConfig(
                widths=(2, 3), dropout=_DROPOUT, symmetry=SymmetryConfig(kind="sigma_asymmetric")
            )
        )

    def check_asymmetric_network(self, config: ArchitectureConfig) -> None:
        """Check that fixed entries keep their values, are no parameters, and are predicted with.

        Args:
            config: an architecture for images.
        """
        data = _digits()
        net = _network(config, data, 10)
        before = fingerprint(net)
        model = BayesianModel(net, Prior(scale="fan_in"), Categorical())
        posterior = self.method.fit(model, data, seed=0)
        assert posterior.shape[2] == sum(value.numel() for value in net.parameters())
        assert fingerprint(net) == before
        values = model.layer_values(model.unflatten(next(posterior.iter_draws())[0]))
        wanted = torch.func.functional_call(net, values, (data.test.x[:3],))
        # The network itself, also of a posterior that predicts by a linearized one.
        outputs = posterior.of_weights.predict(data.test.x[:3]).outputs[0, 0]
        torch.testing.assert_close(outputs, wanted.detach())

    def test_a_residual_network_with_fixed_entries(self) -> None:
        """Check a module that is not one of the package's architectures."""
        net = asymmetrize(_Residual(), fixed_per_row=(2, 1, 0))
        drop_inputs(net.get_submodule("conv"), _DROPOUT)
        posterior = self.method.fit(BayesianModel(net, Prior(), Categorical()), _digits(), seed=0)
        assert posterior.shape[2] == 4 * (9 - 2 + 1) + 4 * (4 - 1 + 1) + 10 * (4 + 1)

    def test_a_likelihood_of_another_task_is_refused(self) -> None:
        """Check that data of classes are not fitted by a likelihood of regression."""
        import pytest

        model, data = _iris()
        with pytest.raises(ConfigError, match="for regression, but the data are classification"):
            self.method.fit(BayesianModel(model.net, Prior(), Gaussian()), data, seed=0)

    def test_a_diverging_fit_keeps_its_last_good_state(self) -> None:
        """Check the posterior that `FitDiverged` holds, if there is a learning rate to raise."""
        import pytest

        if not hasattr(self.method, "learning_rate"):
            pytest.skip("the method has no learning rate")
        constant = {"schedule": "constant"} if hasattr(self.method, "schedule") else {}
        wild = dataclasses.replace(self.method, learning_rate=1e30, **constant)
        with pytest.raises(FitDiverged, match=r"at step \d+; the state at step \d+") as caught:
            wild.fit(*_iris(), seed=0)
        posterior = caught.value.posterior
        assert posterior is not None
        assert posterior.info["status"] == "failed"
        assert torch.isfinite(posterior.mean()).all()


def _global_generators() -> list[int]:
    """Return the states of the global generators of torch and NumPy."""
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return [*torch.get_rng_state().tolist(), *state["key"].tolist(), state["pos"]]


def _assert_same(posterior: Posterior, wanted: Posterior) -> None:
    """Assert that two fits have the same bits, except for clock times."""
    assert torch.equal(all_draws(posterior), all_draws(wanted))
    assert without_times(posterior.history) == without_times(wanted.history)
    assert posterior.info["gradient_evaluations"] == wanted.info["gradient_evaluations"]
    for name, stat in getattr(wanted, "sample_stats", {}).items():
        assert np.array_equal(getattr(posterior, "sample_stats")[name], stat)  # noqa: B009


def _network(config: ArchitectureConfig, data: Dataset, num_outputs: int) -> nn.Module:
    return build_network(config, input_shape=data.input_shape, num_outputs=num_outputs)


@cache
def _digits() -> Dataset:
    return load_dataset("digits", limit=60)


@cache
def _iris() -> tuple[BayesianModel, Dataset]:
    data = load_dataset("iris")
    net = _network(MLPConfig(widths=(4,), norm="layer", dropout=_DROPOUT), data, 3)
    return BayesianModel(net, Prior(), Categorical()), data


@cache
def _mode() -> tuple[BayesianModel, Dataset, Posterior]:
    """Return a model in float64, its data and its mode."""
    data = load_dataset("iris")
    net = _network(MLPConfig(widths=(3,), dropout=_DROPOUT), data, 3).double()
    model = BayesianModel(net, Prior(), Categorical())
    return model, data, MAP(num_steps=300, learning_rate=0.05).fit(model, data, seed=0)


class _Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.conv = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x).relu()
        return self.head((hidden + self.conv(hidden)).mean(dim=(2, 3)))
