r"""Test whether sampling still beats the ensemble that it started from, and stop if it does not.

A sampler may start from an ensemble, one member per chain. With D_k the first n_k draws of every
chain, and z = (x, y) a point,

    d_k(z) = log mean_{w in D_k} p(y | x, w) - log mean_{w in starts} p(y | x, w)

is the gain of a point. At K looks, which are fixed in advance, sampling stops if one of two
hypotheses is rejected, where E is the mean over the population of points, for these draws:

    gain:    E[d_k] >= margin                            -> the draws so far do not gain the margin
    change:  |E[d_k - d_{k-1}]| >= margin, n_k = 2 n_{k-1}  -> twice the draws did not change it

Values are clipped to +-`clip` before the mean, because no test without assumptions exists for the
mean of unbounded values. A look has an interval for the gain and one for the change (`betting`).
Each bound has the level alpha / (4 K - 2), so that by the union bound all intervals of all looks
hold together with probability at least 1 - alpha, whenever sampling stops and for whatever reason.

What this needs: the validation points are independent of each other and of everything that chose
the draws, the starts and the settings. The draws need not be independent or stationary, because
they are functions of the training split and of the seed: only the decision to stop looks at the
validation split. So a start that was itself stopped early by the validation split is refused. What
this does not show: that longer chains, or chains of another seed, would gain nothing.

References:
    Waudby-Smith & Ramdas 2024, arXiv:2010.09686; Howard et al. 2021, arXiv:1810.08240; Sommer et
    al. 2025, arXiv:2502.06335, for sampling from each member of an ensemble.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from bnn_symm.data import Dataset, Split
from bnn_symm.errors import ConfigError
from bnn_symm.formatting import number
from bnn_symm.inference.callbacks import Callback, HistoryRecorder
from bnn_symm.inference.stopping.betting import betting_interval, fewest_values
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import DrawChunk, LazyDraws, Posterior, SamplePosterior
from bnn_symm.settings import Positive, PositiveInt, settings
from bnn_symm.summaries import Result


@settings
class GainTest:
    """Stop a sampler whose draws no longer gain over the ensemble that it started from.

    Attributes:
        margin: smallest gain that matters, in nats per point.
        alpha: probability that any of the intervals of all looks is wrong.
        looks: number of looks; the last is at all draws, and each has twice the draws of the one
            before.
        clip: largest difference of the log densities of one point that counts in full, in nats.
    """

    margin: Positive = 0.02
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    looks: PositiveInt = 5
    clip: Positive = 1.0

    @property
    def level(self) -> float:
        """Return the level of each bound: two bounds for each gain, and for each change."""
        return self.alpha / (4 * self.looks - 2)

    def numbers_of_draws(self, num_draws: int) -> list[int]:
        """Return the draws per chain at each look, which are at most `looks` different numbers.

        Args:
            num_draws: draws per chain of the whole fit.
        """
        numbers = {math.ceil(num_draws / 2**back) for back in range(self.looks)}
        return sorted(numbers)

    def check(self, dataset: Dataset) -> None:
        """Check that the validation split could show that there is no gain.

        Args:
            dataset: the data to fit.

        Raises:
            ConfigError: if it has too few points, or the margin is not below the clip.
        """
        if self.margin >= self.clip:
            raise ConfigError(
                f"inference.gain_test.margin={self.margin:g} and clip={self.clip:g}: the margin "
                "must be smaller"
            )
        needed = fewest_values(self.margin, bound=self.clip, delta=self.level)
        points = len(dataset.validation)
        if points < needed:
            raise ConfigError(
                f"inference.gain_test needs a validation split of at least {needed} points to "
                f"show a gain below {self.margin:g} nats with a clip of {self.clip:g}, got "
                f"{points}; raise data.validation_fraction or inference.gain_test.margin, or lower "
                "inference.gain_test.clip"
            )


class GainVerdict(Enum):
    """What a test found; the values are templates of sentences."""

    NO_GAIN = (
        "stopped after {draws} draws per chain: their gain over the starting ensemble is {gain} "
        "nats per point, below the margin {margin}"
    )
    SETTLED = (
        "stopped after {draws} draws per chain: the gain over the starting ensemble is {gain} nats "
        "per point, and the last half of the draws changed it by {change}, less than the margin "
        "{margin}"
    )
    GAIN = (
        "all {draws} draws per chain: the gain over the starting ensemble is {gain} nats per "
        "point, and not shown to be settled within the margin {margin}"
    )


@dataclass(frozen=True, kw_only=True)
class GainLook(Result):
    """The result of one look.

    Attributes:
        num_draws: draws per chain.
        gain: mean difference of log densities, in nats per point, clipped.
        gain_interval: confidence interval of its expectation.
        change: mean difference since the last look, clipped; None at the first.
        change_interval: confidence interval of its expectation.
        mean_difference: mean difference without clipping, which has no interval.
        num_clipped: points whose difference is clipped.
    """

    num_draws: int
    gain: float
    gain_interval: tuple[float, float]
    change: float | None
    change_interval: tuple[float, float] | None
    mean_difference: float
    num_clipped: int


@dataclass(frozen=True, kw_only=True)
class GainResult(Result):
    """The result of a test.

    Attributes:
        verdict: name of the verdict.
        sentence: the verdict with its numbers.
        num_points: validation points.
        looks: all looks, of which the last one decided.
    """

    verdict: str
    sentence: str
    num_points: int
    looks: tuple[GainLook, ...]


class GainMonitor(Callback):
    """Look at the draws of a fit, and stop it when the test says so.

    A look uses the first draws of every chain, whatever draws the fit has beyond them. So the
    result does not depend on the times at which draws are reported, or on interruptions.

    Args:
        test: the settings.
        model: the model.
        dataset: its validation split is used.
        starts: (chain, parameter), where the chains start.
        num_warmup: iterations before the draws.
        num_draws: draws per chain of the whole fit.
        recorder: has the draws of the fit, and receives the result.
    """

    def __init__(
        self,
        test: GainTest,
        model: BayesianModel,
        dataset: Dataset,
        starts: Float[Tensor, "chain parameter"],
        *,
        num_warmup: int,
        num_draws: int,
        recorder: HistoryRecorder,
    ):
        self._test, self._model, self._dataset = test, model, dataset
        self._recorder, self._num_chains, self._num_warmup = recorder, len(starts), num_warmup
        self._pending = test.numbers_of_draws(num_draws)
        self._counts = [0] * len(starts)
        for chain, chunk in recorder.fit_state().draws.items():
            self._counts[chain] = len(chunk.positions)
        self._looks: list[GainLook] = []
        self._base = self._log_prob(LazyDraws.from_tensor(starts[:, None])) - math.log(len(starts))
        # Log of the sum of densities of all draws up to the last look, and log of the mean.
        self._total = torch.full_like(self._base, -math.inf)
        self._last: Tensor | None = None
        self._num_used = 0
        self._is_over = False

    def on_draws(self, chunk: DrawChunk) -> None:
        """Count the draws of a chain."""
        self._counts[chunk.chain] = chunk.first + len(chunk.positions)

    def should_stop(self) -> bool:
        """Take the looks that are due and record the result; return whether one stops the fit."""
        while self._pending and not self._is_over and min(self._counts) >= self._pending[0]:
            look = self._look(self._pending.pop(0))
            self._looks.append(look)
            verdict = self._verdict(look)
            # At the last look there is nothing to stop.
            self._is_over = verdict is not GainVerdict.GAIN and bool(self._pending)
            if self._is_over or not self._pending:
                self._recorder.info["gain_test"] = self._result(verdict).to_dict()
            if self._is_over:
                self._recorder.end_at(look.num_draws, self._num_warmup + look.num_draws)
        return self._is_over

    def _look(self, num_draws: int) -> GainLook:
        test, chunks = self._test, self._recorder.fit_state().draws
        parts = [
            chunks[chain].part(self._num_used, num_draws).lazy_draws(self._model.dtype)
            for chain in range(self._num_chains)
        ]
        self._total = torch.logaddexp(self._total, self._log_prob(LazyDraws.stack(parts)))
        self._num_used = num_draws
        now = self._total - math.log(num_draws * self._num_chains)
        difference = (now - self._base).numpy()
        change = None if self._last is None else (now - self._last).numpy()
        self._last = now
        clipped = np.clip(difference, -test.clip, test.clip)
        return GainLook(
            num_draws=num_draws,
            gain=float(clipped.mean()),
            gain_interval=self._interval(difference),
            change=None if change is None else float(change.clip(-test.clip, test.clip).mean()),
            change_interval=None if change is None else self._interval(change),
            mean_difference=float(difference.mean()),
            num_clipped=int((np.abs(difference) > test.clip).sum()),
        )

    def _interval(self, values: Float[np.ndarray, " point"]) -> tuple[float, float]:
        return betting_interval(values, bound=self._test.clip, delta=self._test.level)

    def _verdict(self, look: GainLook) -> GainVerdict:
        margin = self._test.margin
        if look.gain_interval[1] < margin:
            return GainVerdict.NO_GAIN
        if look.change_interval is not None:
            low, high = look.change_interval
            if -margin < low and high < margin:
                return GainVerdict.SETTLED
        return GainVerdict.GAIN

    def _result(self, verdict: GainVerdict) -> GainResult:
        look = self._looks[-1]
        sentence = verdict.value.format(
            draws=look.num_draws,
            gain=_with_interval(look.gain, look.gain_interval),
            change=_with_interval(look.change, look.change_interval),
            margin=number(self._test.margin),
        )
        if not self._is_over:
            sentence = sentence.replace("stopped after", "not stopped before the end, after")
        return GainResult(
            verdict=verdict.name.lower(),
            sentence=f"{sentence} ({1 - self._test.alpha:.0%} confidence, all looks together)",
            num_points=len(self._base),
            looks=tuple(self._looks),
        )

    def _log_prob(self, draws: LazyDraws) -> Float[Tensor, " point"]:
        """Return the log of the sum of the densities of the draws at each validation point."""
        posterior: Posterior = SamplePosterior(self._model, self._dataset.scaling, positions=draws)
        part: Split = self._dataset.validation
        values, first = [], 0
        for predictive in posterior.iter_predict(part.x):
            points = predictive.outputs.shape[2]
            each = predictive.draw_log_prob(part.y[first : first + points]).double()
            values.append(each.flatten(0, 1).logsumexp(0).cpu())
            first += points
        return torch.cat(values)


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or interval is None:
        return "not defined"
    return f"{number(value)} ({number(interval[0])} to {number(interval[1])})"
