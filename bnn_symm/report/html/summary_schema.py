"""Define `summary.json` of a study: the types and ranges of all that a report reads from it.

Keys that are not listed are allowed: later versions add some.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from bnn_symm.errors import InvalidRun, one_line
from bnn_symm.runs.directory.file_schemas import Count, FileSchema, PlottedFloat, check_file

Number = PlottedFloat | None


class Interval(FileSchema):
    """Define a value with the ends of its interval."""

    value: Number
    low: Number = None
    high: Number = None


class Estimate(FileSchema):
    """Define a mean with the ends of its interval."""

    mean: Number = None
    low: Number = None
    high: Number = None
    standard_error: Number = None
    reason: str | None = None


class Target(FileSchema):
    """Define the target of the time to convergence."""

    kind: str
    value: Number
    start: Number = None
    level: Number = None
    half_width: Number = None
    reason: str | None = None


class Band(FileSchema):
    """Define a curve with its band."""

    times: Annotated[list[PlottedFloat], Field(min_length=1)]
    median: Annotated[list[PlottedFloat], Field(min_length=1)]
    low: Annotated[list[PlottedFloat], Field(min_length=1)]
    high: Annotated[list[PlottedFloat], Field(min_length=1)]


class Speed(FileSchema):
    """Define the time of a setting to the target, by one clock."""

    median: Interval
    tau: PlottedFloat
    num_runs: Count
    num_censored: Count


class Group(FileSchema):
    """Define the convergence of one setting."""

    setting: Count
    label: str
    differences: dict[str, Any]
    runs: list[Any] | None = None
    target: Target
    num_converged: Count
    bands: dict[str, Band]
    speed: dict[str, Speed | None]


class Convergence(FileSchema):
    """Define the convergence of one context."""

    quantity: str
    reference: str
    groups: list[Group]
    notes: list[str] = Field(default_factory=list)


class SummaryContext(FileSchema):
    """Define a context: settings that are compared with each other."""

    label: Any
    differences: dict[str, Any] | None = None
    baseline: Count | None = None
    convergence: Convergence | None = None
    convergence_reason: str | None = None


class SummarySetting(FileSchema):
    """Define a setting of a study."""

    label: Any
    context: Count
    kind: str
    role: Literal["baseline", "asymmetric", "keeps_symmetry", "breaks_symmetry"]
    differences: dict[str, Any]
    seeds: list[Any]
    folds: list[Any] = Field(default_factory=list)
    num_complete: Count
    num_parameters: Count | None = None
    log10_order: Number = None
    certificate: str | None = None
    measures: dict[str, Estimate | None] | None = None


class SummaryComparison(FileSchema):
    """Define a comparison of two settings by one measure."""

    context: Count
    measure: str
    first: Count
    second: Count
    difference: Estimate | None = None
    ratio: Interval | None = None
    p_value: Number
    p_adjusted: Number
    sentence: str


class SummaryConclusion(FileSchema):
    """Define the answer to one question of a study."""

    context: Count
    setting: Count
    question: str
    title: str
    answer: str
    strength: str
    because_of_symmetry: str
    sentence: str


class SummaryFailure(FileSchema):
    """Define a failed fit or pair."""

    what: str
    key: str
    error: str


class SummaryCounts(FileSchema):
    """Define the numbers of fits and pairs."""

    cells: Count
    cells_complete: Count
    pairs: Count = 0
    pairs_complete: Count = 0


class SummaryFile(FileSchema):
    """Define the content of `summary.json`."""

    name: str | None = None
    status: str = ""
    headline: str
    counts: SummaryCounts
    contexts: list[SummaryContext]
    settings: list[SummarySetting]
    comparisons: list[SummaryComparison]
    conclusions: list[SummaryConclusion]
    failures: list[SummaryFailure] | None = None
    provenance: dict[str, Any] | None = None
    config: str | None = None


def check_summary(path: Path, content: Mapping[str, Any]) -> None:
    """Check the types and the numbers of contexts and settings of a `summary.json`.

    Args:
        path: the path of the file, for the message.
        content: the content of the file.

    Raises:
        InvalidRun: naming the first part that is wrong.
    """
    check_file(path, content, SummaryFile)
    contexts, settings = content["contexts"], content["settings"]
    places = [setting["context"] for setting in settings]
    problems = [
        f"settings.{i} has context {place} of {len(contexts)}"
        for i, place in enumerate(places)
        if place >= len(contexts)
    ]
    references = [
        (f"conclusions.{i}", one["context"], one["setting"])
        for i, one in enumerate(content["conclusions"])
    ]
    references += [
        (f"comparisons.{i}", one["context"], one[key])
        for i, one in enumerate(content["comparisons"])
        for key in ("first", "second")
    ]
    references += [
        (f"contexts.{i}", i, context["baseline"])
        for i, context in enumerate(contexts)
        if context.get("baseline") is not None
    ]
    problems += [
        f"{where} has setting {setting}, which is not in context {context}"
        for where, context, setting in references
        if setting >= len(places) or places[setting] != context
    ]
    problems += [
        f"contexts.{i}.convergence has a curve whose parts differ in length"
        for i, context in enumerate(contexts)
        for group in (context.get("convergence") or {}).get("groups", [])
        for band in group["bands"].values()
        if len({len(band[key]) for key in ("times", "median", "low", "high")}) > 1
    ]
    if problems:
        raise InvalidRun(
            f"{one_line(path, 120)} is damaged: {one_line(problems[0], 120)}; restore the original "
            "file"
        )
