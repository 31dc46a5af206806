"""Stop sampling that no longer beats its start: decisions, errors of the first kind, bits."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from bnn_symm.data import Dataset, load_dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference import HMC, MCLMC, NUTS, HistoryRecorder
from bnn_symm.inference.parallel.process_group import ProcessGroup
from bnn_symm.inference.stopping.betting import fewest_values
from bnn_symm.inference.stopping.gain_test import GainMonitor, GainTest, GainVerdict
from bnn_symm.models import BayesianModel, Gaussian, Prior
from bnn_symm.posteriors import DrawChunk, Posterior, SamplePosterior
from bnn_symm.testing import Interruption, all_draws, without_times

MODEL = BayesianModel(torch.nn.Linear(1, 1), Prior(scale=1.0), Gaussian(noise=0.5))
SAMPLER = HMC(num_chains=4, num_warmup=20, num_draws=80, max_num_steps=3, compile=False)
TEST = GainTest(margin=0.05)


def problem(num_train: int = 8) -> Dataset:
    """Return a regression with a line, of which the validation split has 600 points."""
    generator = torch.Generator().manual_seed(0)

    def split(size: int):
        x = torch.randn(size, 1, generator=generator)
        y = 0.5 * x[:, 0] + 0.5 * torch.randn(size, generator=generator)
        return dataclasses.replace(gap.train, x=x, y=y)

    gap = load_dataset("gap")
    return dataclasses.replace(gap, train=split(num_train), validation=split(600))


def started(positions: list[list[float]]) -> SamplePosterior:
    return SamplePosterior.from_draws(MODEL, torch.tensor(positions)[:, None])


# The true line; and lines that are wrong by several standard deviations of the noise.
GOOD = started([[0.5, 0.0], [0.55, 0.05], [0.45, -0.05], [0.5, 0.05]])
FAR = started([[3.0, 2.0], [-3.0, 1.0], [3.0, 3.0], [2.0, 2.0]])


def fit(test: GainTest | None, start: SamplePosterior, **keywords):
    return dataclasses.replace(SAMPLER, gain_test=test).fit(
        MODEL, problem(), seed=0, initial=start, **keywords
    )


@pytest.fixture(scope="module")
def settled() -> Posterior:
    """Return a fit whose gain settles long before its end."""
    return fit(TEST, FAR)


@pytest.mark.thorough
def test_sampling_stops_where_it_cannot_help():
    posterior = fit(TEST, GOOD)
    result = posterior.info["gain_test"]
    assert posterior.info["status"] == "complete"
    assert result["verdict"] == "no_gain"
    look = result["looks"][-1]
    assert look["gain_interval"][1] < 0.05
    assert posterior.shape[1] == look["num_draws"] < 80
    assert str(look["num_draws"]) in result["sentence"]
    whole = fit(None, GOOD)
    for chain in range(4):
        stopped = posterior.read(chain, 0, look["num_draws"])
        assert torch.equal(stopped, whole.read(chain, 0, look["num_draws"]))
    assert max(row["step"] for row in posterior.history) <= 20 + look["num_draws"]


@pytest.mark.thorough
def test_sampling_does_not_stop_for_no_gain_where_it_helps(settled):
    posterior = fit(GainTest(margin=0.05, looks=1), FAR)
    result = posterior.info["gain_test"]
    assert result["verdict"] == "gain"
    assert posterior.shape[1] == 80
    (look,) = result["looks"]
    assert look["num_draws"] == 80
    assert look["gain_interval"][0] > 0.05
    # The gain of most points is clipped; the mean without clipping is in the table too.
    assert look["num_clipped"] > 300
    assert look["mean_difference"] > 1
    # With more looks, the gain settles long before the end.
    result = settled.info["gain_test"]
    assert result["verdict"] == "settled"
    assert result["looks"][-1]["gain_interval"][0] > 0.05


# In warm-up, and after three draws; the first look is at five.
@pytest.mark.thorough
@pytest.mark.parametrize("stop_after", [10, 23])
def test_an_interrupted_fit_stops_at_the_same_draws(stop_after, settled):
    interruption = Interruption(stop_after=stop_after)
    part = fit(TEST, FAR, callbacks=[interruption])
    state = SAMPLER.truncate_to_checkpoint(interruption.fit_state())
    assert part.info["status"] == "interrupted"
    rest = fit(TEST, FAR, fit_state=state)
    assert rest.info["status"] == "complete"
    assert torch.equal(all_draws(rest), all_draws(settled))
    assert without_times(rest.history) == without_times(settled.history)
    assert rest.info["gain_test"] == settled.info["gain_test"]


def test_a_look_is_the_difference_of_log_densities_of_the_first_draws():
    data = problem()
    recorder = HistoryRecorder()
    test = GainTest(looks=2, margin=0.05, clip=0.3)
    starts = all_draws(FAR)
    monitor = GainMonitor(test, MODEL, data, starts, num_warmup=7, num_draws=6, recorder=recorder)
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(4, 6, 2, generator=generator).numpy()
    assert not monitor.should_stop()
    for first, last in ((0, 2), (2, 6)):  # chunks that do not end at looks
        for chain in range(4):
            chunk = DrawChunk(chain, first, draws[chain, first:last], {})
            recorder.on_draws(chunk)
            monitor.on_draws(chunk)
    assert not monitor.should_stop()
    first, second = recorder.info["gain_test"]["looks"]
    part = data.validation
    values = [
        SamplePosterior.from_draws(MODEL, torch.from_numpy(own)).predict(part.x).log_prob(part.y)
        for own in (starts[:, None].numpy(), draws[:, :3], draws)
    ]
    for look, now, before in ((first, values[1], None), (second, values[2], values[1])):
        difference = (now - values[0]).numpy()
        assert look["mean_difference"] == pytest.approx(difference.mean(), abs=1e-6)
        assert look["gain"] == pytest.approx(difference.clip(-0.3, 0.3).mean(), abs=1e-6)
        assert look["num_clipped"] == (np.abs(difference) > 0.3).sum()
        change = None if before is None else (now - before).numpy().clip(-0.3, 0.3).mean()
        assert look["change"] == (change if change is None else pytest.approx(change, abs=1e-6))


class Simulated(GainMonitor):
    """A monitor whose gains are simulated numbers, not those of draws."""

    def __init__(self, gains: np.ndarray, test: GainTest):
        looks, points = gains.shape
        self.gains = iter(np.concatenate([np.zeros((1, points)), gains]))
        recorder = HistoryRecorder()
        super().__init__(
            test, MODEL, problem(), torch.zeros(1, 2), num_warmup=0, num_draws=2**looks,
            recorder=recorder,
        )  # fmt: skip
        chunk = DrawChunk(0, 0, np.zeros((2**looks, 2), dtype=np.float32), {})
        recorder.on_draws(chunk)
        self.on_draws(chunk)
        self.should_stop()
        self.result = recorder.info["gain_test"]

    def _log_prob(self, draws):
        # The sum over the draws since the last look, from the log of the mean over all of them.
        return torch.from_numpy(next(self.gains))

    def _look(self, num_draws):
        self._total = torch.full_like(self._base, -math.inf)
        values = next(self.gains)
        self._log_prob = lambda draws: torch.from_numpy(values) + math.log(num_draws)
        return super()._look(num_draws)


def simulate(repetitions: int, gain: float, change: float, seed: int) -> dict[str, int]:
    """Return how often each verdict was reached, for gains that begin at `gain` at 300 points.

    Looks are correlated, as those of one chain: each adds changes with the mean `change`.
    """
    test = GainTest(margin=0.05, alpha=0.1, looks=3)
    rng, counts = np.random.default_rng(seed), dict.fromkeys(GainVerdict, 0)
    for _ in range(repetitions):
        # Skewed: rare points lose much. Values stay within the clip, so that means are exact.
        first = gain + 0.02 - np.where(rng.random(300) < 0.02, 1.0, 0.0) * 0.9 - 0.002
        steps = change + 0.02 * rng.choice([-1.0, 1.0], (2, 300))
        gains = np.concatenate([first[None], first + np.cumsum(steps, 0)])
        counts[GainVerdict[Simulated(gains, test).result["verdict"].upper()]] += 1
    return {verdict.name: number for verdict, number in counts.items()}


@pytest.mark.parametrize(
    "repetitions", [10, pytest.param(400, marks=pytest.mark.slow)], ids=["10", "400"]
)
def test_a_gain_of_the_margin_and_changes_of_the_margin_are_rarely_denied(repetitions):
    # At the border of both hypotheses: the gain is the margin, and so is every change.
    counts = simulate(repetitions, gain=0.05, change=0.05, seed=0)
    wrong = counts["NO_GAIN"] + counts["SETTLED"]
    # alpha = 0.1, with four standard deviations of the number of errors.
    assert wrong <= 0.1 * repetitions + 4 * math.sqrt(repetitions * 0.1 * 0.9)


def test_small_gains_and_small_changes_are_shown():
    assert simulate(5, gain=-0.03, change=0.0, seed=1)["NO_GAIN"] == 5
    assert simulate(5, gain=0.5, change=0.0, seed=1)["SETTLED"] == 5


def test_looks_double_the_draws_and_share_alpha():
    assert TEST.numbers_of_draws(150) == [10, 19, 38, 75, 150]
    assert TEST.numbers_of_draws(3) == [1, 2, 3]
    assert TEST.level == pytest.approx(0.05 / 18)
    assert GainTest(looks=1).level == 0.025


def test_errors_state_what_a_test_needs():
    data = problem()
    needed = fewest_values(TEST.margin, bound=1.0, delta=TEST.level)
    method = dataclasses.replace(SAMPLER, gain_test=TEST)
    few = dataclasses.replace(data, validation=data.validation.take(slice(0, needed - 1)))
    with pytest.raises(ConfigError, match=f"at least {needed} points .* got {needed - 1}"):
        method.fit(MODEL, few, seed=0, initial=GOOD)
    none = dataclasses.replace(data, validation=data.validation.take(slice(0, 0)))
    with pytest.raises(ConfigError, match=r"got 0; raise data\.validation_fraction"):
        MCLMC(num_chains=4, gain_test=TEST).fit(MODEL, none, seed=0, initial=GOOD)
    with pytest.raises(ConfigError, match="they start at random values; set warm_start="):
        method.fit(MODEL, data, seed=0)
    with pytest.raises(ConfigError, match=r"inference\.engine=batched, got pyro"):
        NUTS(engine="pyro", gain_test=TEST).fit(MODEL, data, seed=0, initial=GOOD)
    with pytest.raises(ConfigError, match="must be smaller"):
        NUTS(gain_test=GainTest(margin=1.0)).check(data)
    with pytest.raises(ConfigError, match="runs in one process, got 2"):
        method.check_group(ProcessGroup(rank=0, size=2))
