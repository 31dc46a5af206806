"""Compare predictors of scores from weights on the held-out networks of several zoos.

A fifth of the networks of each zoo is held out, the same for every seed and every predictor. The
seeds differ in which of the others are for validation, and in the initial values of predictors.
Kendall's tau and R2 are means over seeds, with bootstrap intervals over the held-out networks.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from bnn_symm.diagnostics.scores.ranking import kendall_tau
from bnn_symm.diagnostics.statistics.bootstrap import Score, bootstrap_scores
from bnn_symm.errors import ConfigError
from bnn_symm.inference.parallel.worker_pool import map_unordered
from bnn_symm.randomness import numpy_generator
from bnn_symm.summaries import Result
from bnn_symm.zoo.directory import Zoo
from bnn_symm.zoo.predictors import PREDICTORS, Inputs, Parts
from bnn_symm.zoo.weight_blocks import WeightLayout

LEAST_NETWORKS = 30
"""Number of networks below which nothing is predicted."""

_HELD_OUT, _VALIDATION = 0.2, 0.15


@dataclass(frozen=True, kw_only=True)
class PredictorScore(Result):
    """How well one predictor does for one target of one zoo.

    Attributes:
        target: name of the predicted score.
        predictor: name of the predictor.
        tau: Kendall's tau of predictions and targets, the mean over seeds.
        r2: 1 - mean squared error / variance of the targets, the mean over seeds.
        tau_of_seeds: one value for each seed.
    """

    target: str
    predictor: str
    tau: Score
    r2: Score
    tau_of_seeds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ZooResult(Result):
    """The results of one zoo.

    Attributes:
        zoo: its directory.
        label: the kind of symmetry, with the name of the directory if several zoos have it.
        kind: the kind of symmetry.
        log10_order: of the symmetry group.
        num_parameters: of a network.
        num_networks: number of networks.
        num_excluded: networks left out because a weight or a score is not finite.
        num_held_out: number of networks that predictors are scored on.
        scores: one for each target and predictor.
    """

    zoo: str
    label: str
    kind: str
    log10_order: float
    num_parameters: int
    num_networks: int
    num_excluded: int
    num_held_out: int
    scores: tuple[PredictorScore, ...]


def compare_predictors(
    zoos: Sequence[Zoo],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    jobs: int = 1,
    on_fit: Callable[[], None] = lambda: None,
) -> tuple[ZooResult, ...]:
    """Fit all predictors to all zoos, and score them on held-out networks.

    Args:
        zoos: one or more, such as those of a standard and of an asymmetric architecture.
        seeds: of the predictors.
        jobs: number of processes.
        on_fit: called when all predictors are fitted to a zoo for one seed.

    Returns:
        The results of each zoo.

    Raises:
        ConfigError: if a zoo has too few networks, or is named twice.

    Example:
        >>> from bnn_symm.zoo import compare_predictors, load_zoo
        >>> zoos = [load_zoo(f"runs/zoo-{i}") for i in (1, 2)]  # doctest: +SKIP
        >>> compare_predictors(zoos)[0].scores[0].tau.value  # doctest: +SKIP
    """
    labels = _labels(zoos)
    problems = [_Problem.of(zoo) for zoo in zoos]
    pairs = list(itertools.product(range(len(zoos)), seeds))
    predicted: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    for number, result in map_unordered(_Fits(problems, pairs), range(len(pairs)), jobs=jobs):
        predicted[pairs[number]] = result
        on_fit()
    return tuple(
        problem.result(zoo, label, [predicted[number, seed] for seed in seeds])
        for number, (problem, zoo, label) in enumerate(zip(problems, zoos, labels, strict=True))
    )


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """The inputs and targets of one zoo."""

    inputs: Inputs
    names: tuple[str, ...]
    targets: Float[np.ndarray, "network target"]
    num_excluded: int

    @classmethod
    def of(cls, zoo: Zoo) -> "_Problem":
        """Return the networks of a zoo with finite weights and scores."""
        weights = zoo.weights.cpu()
        targets = np.stack(list(zoo.scores.values()), 1)
        finite = np.isfinite(np.concatenate([targets, weights.numpy()], 1))
        usable = np.flatnonzero(finite.all(1))
        if len(usable) < LEAST_NETWORKS:
            raise ConfigError(
                f"{zoo.path} has {len(usable)} networks with finite weights and scores, "
                f"predictors need at least {LEAST_NETWORKS}: add networks to it"
            )
        model = zoo.model
        hyperparameters = np.stack(list(zoo.hyperparameters.values()), 1)
        inputs = Inputs.of(
            model, WeightLayout.of(zoo.group, model), weights[usable], hyperparameters[usable]
        )
        return cls(
            inputs=inputs,
            names=tuple(zoo.scores),
            targets=targets[usable],
            num_excluded=len(targets) - len(usable),
        )

    def parts(self, seed: int) -> Parts:
        """Return the parts of the networks for a seed."""
        order = numpy_generator("zoo held out").permutation(len(self.targets))
        size = round(_HELD_OUT * len(order))
        held_out, others = order[:size], order[size:]
        others = others[numpy_generator(seed, "zoo validation").permutation(len(others))]
        size = round(_VALIDATION * len(order))
        return Parts(train=others[size:], validation=others[:size], held_out=held_out)

    def result(self, zoo: Zoo, label: str, predicted: Sequence[dict[str, np.ndarray]]) -> ZooResult:
        """Return the scores of the predictions of all seeds."""
        held_out = self.parts(0).held_out
        scores = tuple(
            _score(
                name,
                predictor,
                self.targets[held_out, i],
                [own[predictor][:, i] for own in predicted],
            )
            for i, name in enumerate(self.names)
            for predictor in PREDICTORS
        )
        return ZooResult(
            zoo=str(zoo.path),
            label=label,
            kind=zoo.kind,
            log10_order=zoo.group.log10_order,
            num_parameters=zoo.model.num_parameters,
            num_networks=len(zoo.weights),
            num_excluded=self.num_excluded,
            num_held_out=len(held_out),
            scores=scores,
        )


@dataclass(frozen=True)
class _Fits:
    """Fits all predictors to one zoo for one seed, possibly in another process."""

    problems: Sequence[_Problem]
    pairs: Sequence[tuple[int, int]]

    def __call__(self, number: int) -> tuple[int, dict[str, np.ndarray]]:
        """Return the number of the pair, and predictor -> predictions."""
        index, seed = self.pairs[number]
        problem = self.problems[index]
        parts = problem.parts(seed)
        return number, {
            name: predict(problem.inputs, problem.targets, parts, seed)
            for name, predict in PREDICTORS.items()
        }


def _score(
    target: str, predictor: str, truth: np.ndarray, predicted: Sequence[np.ndarray]
) -> PredictorScore:
    """Return the scores of the predictions of all seeds, with intervals over networks."""

    def statistics(counts: np.ndarray) -> dict[str, np.ndarray]:
        taus = [kendall_tau(counts, own, truth) for own in predicted]
        return {
            "tau": np.mean(taus, 0),
            "r2": np.mean([_r2(counts, own, truth) for own in predicted], 0),
        }

    reason = "all targets or all predictions are equal"
    scores = bootstrap_scores(
        statistics, (len(truth),), reasons={"tau": reason, "r2": "all targets are equal"}
    )
    ones = np.ones((1, len(truth)))
    each = tuple(float(kendall_tau(ones, own, truth)[0]) for own in predicted)
    return PredictorScore(
        target=target, predictor=predictor, tau=scores["tau"], r2=scores["r2"], tau_of_seeds=each
    )


def _r2(counts: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return R2 in every resample; NaN where all targets are equal."""
    total = counts.sum(1)
    mean = counts @ truth / total
    variance = counts @ truth**2 / total - mean**2
    error = counts @ (truth - predicted) ** 2 / total
    scale = np.ptp(truth) ** 2
    return np.where(
        variance > 1e-12 * scale, 1 - error / np.where(variance > 0, variance, 1), np.nan
    )


def _labels(zoos: Sequence[Zoo]) -> list[str]:
    """Return the kind of symmetry of each zoo, with its directory where kinds are equal."""
    paths = [zoo.path.resolve() for zoo in zoos]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise ConfigError(f"{twice[0]} is named twice; name each zoo once")
    kinds, names = [zoo.kind for zoo in zoos], [path.name for path in paths]
    return [
        kind
        if kinds.count(kind) == 1
        else f"{kind}, {path.name if names.count(path.name) == 1 else path}"
        for kind, path in zip(kinds, paths, strict=True)
    ]
