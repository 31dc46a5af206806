"""Read the conformal regions of a run from the evaluations that are stored with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bnn_symm.runs.conformal import OTHER_POINTS, conformal_notes
from bnn_symm.runs.directory.file_schemas import EvaluationFile, check_file
from bnn_symm.runs.run import Run
from bnn_symm.summaries import Result


@dataclass(frozen=True, kw_only=True)
class StoredRegions(Result):
    """The coverage and size of regions on the points of one evaluation.

    Attributes:
        evaluation: name of its file, without the suffix.
        points: number of its points.
        regions: the key `conformal` of the evaluation.
        notes: why the guarantee may not hold for these points.
    """

    evaluation: str
    points: int
    regions: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def stored_regions(run: Run) -> list[StoredRegions]:
    """Return the conformal regions of all evaluations of a run that have some, by name.

    An evaluation replaces a former one of the same points, so that there is one level for each.

    Args:
        run: the run.

    Raises:
        InvalidRun: if an evaluation is damaged.
    """
    found = []
    for path in sorted(run.directory.evaluations.glob("*.json")):
        content = run.directory.read_json(path)
        check_file(path, content, EvaluationFile, remedy="delete it, and evaluate the run again")
        if content.get("conformal") is None:
            continue
        is_other = content.get("data") is not None or content.get("shift") is not None
        notes = [*conformal_notes(run.config), *([OTHER_POINTS] if is_other else [])]
        found.append(
            StoredRegions(
                evaluation=path.stem,
                points=content["points"],
                regions=content["conformal"],
                notes=tuple(notes),
            )
        )
    return found
