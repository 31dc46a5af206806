"""Compare the predictions of runs with a reference posterior: the content of `fidelity.json`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bnn_symm.analyses.convergence.seed_groups import group_by_seed
from bnn_symm.diagnostics import ReferenceProbabilities
from bnn_symm.diagnostics.fidelity.fidelity import (
    Pointwise,
    pointwise_distances,
    summarize,
)
from bnn_symm.diagnostics.fidelity.sources import PosteriorSource, Source
from bnn_symm.diagnostics.mixing.function_values import function_values
from bnn_symm.diagnostics.mixing.mixing import function_mixing
from bnn_symm.diagnostics.mixing.views import RHAT
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, InvalidData
from bnn_symm.formatting import number
from bnn_symm.runs.run import Run
from bnn_symm.threads import use_threads

# Sections of a configuration that define the posterior which a run approximates.
_POSTERIOR = ("architecture", "prior", "likelihood")


def fidelity_of_runs(
    reference: Run | ReferenceProbabilities,
    runs: Sequence[Run],
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure how near the predictions of runs on their test split come to those of a reference.

    Runs that differ only in their seeds are one method.

    Args:
        reference: a run, or class probabilities of the points of the test split.
        runs: one run or more, on the same split of the same data.
        num_resamples: the number of bootstrap resamples of the points.
        level: the level of the intervals over points.
        seed: the seed of the resamples.

    Returns:
        `reference`, with its R-hat and ESS of functions; `points`, `kind` (`classes` or `numbers`),
        `ranked_by`; `floor`, the distances between two halves of the reference; `methods`, best
        first; and `warnings`.

    Raises:
        ConfigError: if a run is named twice, or there are no test points.
        IncompatiblePosteriors: if a run has other data, another split, other classes or targets.
        InvalidData: if a prediction is NaN.
    """
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise ConfigError("a run is named twice, and would count as two seeds; name each run once")
    sources = [_source(run) for run in runs]
    warnings: list[str] = []
    if isinstance(reference, ReferenceProbabilities):
        for run in runs:
            _check_classes(reference, run)
        first: Source = reference
        described = {"run": None, "probabilities": reference.name, "method": None, "function": None}
    else:
        for run in runs:
            warnings += _check_run(reference, run)
        first = _source(reference)
        described = _describe(reference)
        warnings += _mixing_warnings(described)
    with use_threads(runs[0].threads):
        each, floor = pointwise_distances(first, sources)
    settings = {"num_resamples": num_resamples, "level": level, "seed": seed}
    ranked_by = "total_variation" if "total_variation" in each[0] else "w1"
    return {
        "reference": described,
        "points": len(first),
        "kind": "classes" if ranked_by == "total_variation" else "numbers",
        "level": level,
        "resamples": num_resamples,
        "ranked_by": ranked_by,
        "floor": None
        if floor is None
        else summarize([floor], None, **settings).to_dict()["values"],
        "methods": _methods(runs, each, ranked_by, settings),
        "warnings": warnings,
    }


def _methods(
    runs: Sequence[Run], each: Sequence[Pointwise], ranked_by: str, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the distances of every method, the nearest first."""
    methods = []
    groups = group_by_seed([run.config for run in runs])
    for group in groups:
        members = [runs[i] for i in group.members]
        own = summarize([each[i] for i in group.members], None, **settings).to_dict()
        of_runs = zip(members, own.pop("each"), strict=True)
        methods.append(
            {
                "label": group.label if len(groups) > 1 else members[0].config.inference.name,
                "method": members[0].config.inference.name,
                **own,
                "each": [
                    {"run": str(run.path), "seed": run.config.seed, "values": values}
                    for run, values in of_runs
                ],
            }
        )
    methods.sort(key=lambda own: own["values"][ranked_by]["value"])
    return [{"rank": rank, **own} for rank, own in enumerate(methods, start=1)]


def _source(run: Run) -> PosteriorSource:
    part = run.dataset().test
    if len(part) == 0:
        raise ConfigError(f"{run.path} has no test points; fit it with data.test_fraction above 0")
    return PosteriorSource(posterior=run.posterior, part=part, name=str(run.path))


def _describe(reference: Run) -> dict[str, Any]:
    """Return the method of the reference, and R-hat and ESS of its functions."""
    posterior = reference.posterior
    chains, draws, _ = posterior.shape
    function = None
    if reference.config.inference.is_sampler:
        with use_threads(reference.threads):
            values = function_values(posterior, reference.dataset().test)
            view = function_mixing(values)
        function = {
            **{name: getattr(view, name) for name in ("rhat_max", "ess_bulk_min", "ess_tail_min")},
            "points": values.num_points,
        }
    return {
        "run": str(reference.path),
        "probabilities": None,
        "method": reference.config.inference.name,
        "chains": chains,
        "draws": draws,
        "function": function,
    }


def _mixing_warnings(described: dict[str, Any]) -> list[str]:
    name, function = described["run"], described["function"]
    if function is None:
        return [
            f"{name} is no Markov chain ({described['method']}): distances are to its predictions, "
            "not to those of the posterior; use long chains of nuts or hmc as reference"
        ]
    rhat = function["rhat_max"]
    if rhat is None:
        return [
            f"{name} has no R-hat of functions, so nothing shows that it converged; use several "
            "chains of some draws as reference"
        ]
    if rhat >= RHAT:
        return [
            f"{name} has R-hat {number(rhat, 4)} of functions, expected below {RHAT}: it has not "
            "converged, and distances to it may mislead; run longer chains"
        ]
    return []


def _check_run(reference: Run, run: Run) -> list[str]:
    """Check that a run has the data of the reference; return notes on other differences."""
    mine, theirs = reference.record["dataset"], run.record["dataset"]
    if mine.get("sha256") != theirs.get("sha256"):
        raise IncompatiblePosteriors(
            f"{run.path} was fitted to other data ({str(theirs.get('sha256'))[:12]}) than "
            f"{reference.path} ({str(mine.get('sha256'))[:12]}); compare runs on the same data"
        )
    splits = [own.get("split_sha256") for own in (mine, theirs)]
    if None not in splits and splits[0] != splits[1]:
        raise IncompatiblePosteriors(
            f"{run.path} was fitted to another split of the data than {reference.path}, so their "
            "posteriors and test points differ; use the same data.split_seed, test_fraction, "
            "validation_fraction and limit"
        )
    classes = [own.preprocessing.class_labels for own in (reference, run)]
    if classes[0] != classes[1]:
        raise IncompatiblePosteriors(
            f"{run.path} has the classes {classes[1]}, {reference.path} has {classes[0]}; compare "
            "runs with the same classes"
        )
    notes = [
        f"{run.path} has another {section} than {reference.path}: it approximates another posterior"
        for section in _POSTERIOR
        if asdict(getattr(run.config, section)) != asdict(getattr(reference.config, section))
    ]
    first, own = (
        (r.config.inference.temperature, r.config.inference.tempering) for r in (reference, run)
    )
    if first != own:
        notes.append(
            f"{run.path} has temperature {own[0]:g}, {reference.path} has {first[0]:g}: it "
            "approximates another posterior"
        )
    return notes


def _check_classes(reference: ReferenceProbabilities, run: Run) -> None:
    """Check that a run predicts the classes of an array, at the points of its labels."""
    labels = run.preprocessing.class_labels
    if labels is None:
        raise IncompatiblePosteriors(
            f"{run.path} predicts numbers, {reference.name} has class probabilities; name a run as "
            "reference"
        )
    if len(labels) != reference.num_classes:
        raise IncompatiblePosteriors(
            f"{run.path} has {len(labels)} classes, {reference.name} has {reference.num_classes} "
            "columns; compare predictions of the same classes"
        )
    y = run.dataset().test.y.cpu().numpy()
    if len(y) != len(reference):
        raise IncompatiblePosteriors(
            f"{run.path} has {len(y)} test points, {reference.name} has {len(reference)}; compare "
            "predictions of the same test points"
        )
    different = np.flatnonzero(y != reference.y)
    if len(different):
        raise InvalidData(
            f"{reference.name}: {len(different)} of {len(y)} labels differ from the test split of "
            f"{run.path}, the first at point {different[0]} ({reference.y[different[0]]}, expected "
            f"{y[different[0]]}); the points must be those of the test split, in its order"
        )
