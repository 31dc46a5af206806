"""Merge runs into one, and score it against its parts, their ensemble and an unaligned merge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnn_symm.advice import advise
from bnn_symm.alignment import Rule, Synchronization, merge
from bnn_symm.analyses.alignment import align_jointly
from bnn_symm.diagnostics import score
from bnn_symm.diagnostics.barriers.repair import repair_merged
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.io.atomic import write_json
from bnn_symm.posteriors import MixturePosterior, Posterior, SamplePosterior
from bnn_symm.runs.compatibility import save_derived_run
from bnn_symm.runs.directory.output_directory import check_free, disk_errors
from bnn_symm.runs.run import Run
from bnn_symm.threads import use_threads

# Draws of each part in the ensemble that the merged posterior is compared with.
_DRAWS = 50

Scores = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Hold the result of a merge.

    Attributes:
        run: the path of the merged run.
        derived: how it was made, as its record states it.
        alignment: the joint alignment, if the runs were aligned.
        test: test scores of the merged posterior (`merged`), of the merge without alignment
            (`naive`) and without repair (`unrepaired`), of the mixture of all parts (`ensemble`),
            and their average over the parts (`parts`); None for a product that does not exist.
    """

    run: str
    derived: Mapping[str, Any]
    alignment: Synchronization | None
    test: Mapping[str, Scores | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON types, the keys of `derived` among the others."""
        alignment = self.alignment and self.alignment.to_dict()
        return {"run": self.run, **self.derived, "alignment": alignment, "test": self.test}


def merge_runs(
    runs: Sequence[Run],
    out: Path,
    *,
    rule: Rule = "barycentre",
    aligned: bool = True,
    repair: bool = False,
    seed: int = 0,
) -> Merge:
    """Align runs jointly, merge them, and write the merged posterior as a run.

    Args:
        runs: comparable runs; the merged run takes its configuration and data from the first.
        out: a directory that does not exist.
        rule: `barycentre` or `product`.
        aligned: whether the runs are aligned first.
        repair: whether the statistics of the hidden channels are reset to the average of those of
            the runs, on the training split of the first (see `diagnostics.barriers.repair`).
        seed: the seed of the alignment.

    Returns:
        The scores and the alignment.

    Raises:
        ConfigError: if a product is to be repaired, or the network cannot be.
    """
    if repair and rule != "barycentre":
        raise ConfigError(
            f"{advise('--repair', 'repair=True')} resets statistics to an average, as a barycenter "
            "averages weights; leave it out for a product"
        )
    check_free(out)
    posteriors = [run.posterior for run in runs]
    aligned_posteriors, alignment = (
        align_jointly(runs, seed=seed) if aligned else (posteriors, None)
    )
    merged = unrepaired = merge(aligned_posteriors, rule=rule)
    if repair:
        merged = repair_merged(merged, aligned_posteriors, runs[0].dataset().train)
    derived = {
        "by": "merge",
        "rule": rule,
        "aligned": aligned,
        **({"repaired": True} if repair else {}),
        "from": [str(run.path) for run in runs],
    }
    save_derived_run(out, runs[0], merged, derived)
    test = runs[0].dataset().test
    with use_threads(runs[0].threads):
        scores = {"merged": score(merged, test)}
        if repair:
            scores["unrepaired"] = score(unrepaired, test)
        if aligned:
            scores["naive"] = _naive_score(posteriors, rule, test)
        scores["ensemble"] = score(_ensemble(posteriors, seed), test)
        scores["parts"] = _average([score(posterior, test) for posterior in posteriors])
    result = Merge(run=str(out), derived=derived, alignment=alignment, test=scores)
    with disk_errors(out, "the merged run is kept"):
        write_json(out / "merge.json", result.to_dict())
    return result


def _naive_score(posteriors: Sequence[Posterior], rule: Rule, test: Any) -> dict[str, Any] | None:
    """Score the merge without alignment; None for a product that does not exist."""
    try:
        naive = merge(posteriors, rule=rule)
    except IncompatiblePosteriors:
        if rule != "product":
            raise
        return None
    return score(naive, test)


def _ensemble(posteriors: Sequence[Posterior], seed: int) -> MixturePosterior:
    """Return the mixture of all parts, with equally many draws of each."""
    first = posteriors[0]
    sizes = [p.shape[0] * p.shape[1] for p in posteriors if isinstance(p, SamplePosterior)]
    number = min([_DRAWS, *sizes])
    components = [
        SamplePosterior.from_draws(own.model, own.draws(number, seed=seed)[None], own.scaling)
        for own in posteriors
    ]
    return MixturePosterior(first.model, first.scaling, components=components)


def _average(scores: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return the average of each score over the parts, also of those of target columns.

    Scores that a part does not have, such as the AUC of one class, are None.
    """
    rows = [row for row in scores if row is not None]
    if not rows:
        return None
    return {key: _average_of([row[key] for row in rows]) for key in rows[0]}


def _average_of(values: list[Any]) -> Any:
    """Return the average of numbers or of mappings of numbers; None if one is missing."""
    if any(value is None for value in values):
        return None
    if isinstance(values[0], dict):
        return {key: _average_of([value[key] for value in values]) for key in values[0]}
    return sum(values) / len(values)
