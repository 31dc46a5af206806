"""Levels of iterative pruning: their sparsity, their masks and what they are rewound to."""

from itertools import pairwise

import pytest
import torch

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference import Callback, EarlyStopping, IterativePruning
from bnn_symm.inference.optimization.iterative_pruning import magnitude_mask, prunable_weights
from bnn_symm.models import BayesianModel, Categorical, Prior

METHOD = IterativePruning(num_steps=20, num_levels=3, rewind_step=4, log_every=7, batch_size=50)


class Ends(Callback):
    """Collect the states that the method reports as results."""

    def __init__(self):
        self.states = []

    def on_state(self, chain, state, *, essential=False):
        if essential:
            self.states.append({name: torch.as_tensor(own) for name, own in state().items()})


@pytest.fixture(scope="module")
def fitted():
    """Return the model, the data, the posterior and the states at the ends of the levels."""
    data = load_dataset("iris")
    net = build_network(MLPConfig(widths=(8,), norm="layer"), input_shape=(4,), num_outputs=3)
    model, ends = BayesianModel(net, Prior(), Categorical()), Ends()
    posterior = METHOD.fit(model, data, seed=0, callbacks=[ends])
    return model, data, posterior, ends.states


def test_every_level_has_its_share_of_the_weights(fitted):
    model, _, posterior, states = fitted
    weights = prunable_weights(model)
    assert int(weights.sum()) == 4 * 8 + 8 * 3
    for level, state in enumerate(states):
        left = round(56 * 0.8**level)
        assert int(state["mask"][weights].sum()) == left
        assert int((state["position"][weights] != 0).sum()) == left
        assert state["mask"][~weights].all()
    assert [int(state["step"]) for state in states] == list(METHOD.kept_steps) == [20, 36, 52, 68]
    assert torch.equal(posterior.mean(), states[-1]["position"])
    shares = {row["level"]: row["weights_left"] for row in posterior.history}
    assert shares == {level: pytest.approx(round(56 * 0.8**level) / 56) for level in range(4)}


def test_the_smallest_weights_are_removed(fitted):
    model, _, _, states = fitted
    weights = prunable_weights(model)
    for before, after in pairwise(states):
        magnitudes = before["position"].abs()
        removed = before["mask"] & ~after["mask"]
        assert not (after["mask"] & ~before["mask"]).any()
        assert magnitudes[removed].max() < magnitudes[after["mask"] & weights].min()


def test_levels_are_rewound_to_an_early_step_of_the_first(fitted):
    model, data, _, states = fitted
    early = states[0]["rewind"]
    assert all(torch.equal(state["rewind"], early) for state in states)
    assert not torch.equal(early, model.initial())
    # A level depends on the values, the mask and the seed only.
    for state in states[1:]:
        again = METHOD.fit_mask(model, data, seed=0, rewind=early, mask=state["mask"])
        assert torch.equal(again.mean(), state["position"])


def test_masks_of_equal_magnitudes_keep_the_first():
    every = torch.ones(4, dtype=torch.bool)
    assert magnitude_mask(torch.ones(4), every, every, 3).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rewind_step": 20}, "inference.rewind_step=20: the first level ends at step 20"),
        ({"early_stopping": EarlyStopping()}, "all levels .* have equally many steps"),
    ],
)
def test_settings_without_levels_are_refused(fitted, settings, message):
    model, data, _, _ = fitted
    method = IterativePruning(**{"num_steps": 20, **settings})
    with pytest.raises(ConfigError, match=message):
        method.fit(model, data, seed=0)
