"""Tests of the choice of the method by the size of the problem."""

import pytest
import torch

from bnn_symm import BayesianModel, Categorical, Prior, load_dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference import MCLMC, SGMCLMC, Automatic, DeepEnsemble, automatic
from bnn_symm.inference.parallel.process_group import ProcessGroup
from bnn_symm.randomness import key_seed


def test_chains_of_large_problems_have_minibatches():
    method = Automatic(max_size=1000, temperature=0.5, tempering="posterior")
    ensemble, chains = method.stages(10, 100)
    members, minibatches = method.stages(10, 101)
    assert isinstance(ensemble, DeepEnsemble)
    assert isinstance(chains, MCLMC)
    assert ensemble.num_members == chains.num_chains
    assert isinstance(minibatches, SGMCLMC)
    assert members.num_members == minibatches.num_chains
    for stage in (ensemble, chains, members, minibatches):
        assert (stage.temperature, stage.tempering) == (0.5, "posterior")


def test_chains_of_the_smallest_problems_are_longer():
    longer, shorter = (Automatic().stages(points, 1000)[1].num_draws for points in (5000, 5001))
    assert longer > shorter


@pytest.mark.thorough
def test_the_fit_is_that_of_the_chosen_methods(monkeypatch):
    for name in ("_MEMBER_STEPS", "_LONGER_WARMUP", "_MORE_DRAWS"):
        monkeypatch.setattr(automatic, name, 5)
    data = load_dataset("iris")
    model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
    ensemble, chains = Automatic().stages(len(data.train), model.num_parameters)
    start = ensemble.fit(model, data, seed=key_seed(3, "warm start", 1))
    expected = chains.fit(model, data, seed=3, initial=start)
    posterior = Automatic().fit(model, data, seed=3)
    assert torch.equal(posterior.draws(), expected.draws())
    with pytest.raises(ConfigError):
        Automatic().fit(model, data, seed=3, group=ProcessGroup(0, 2))
