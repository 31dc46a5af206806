"""Define the JSON files of runs and studies: types and ranges of the keys that the code uses.

Files are checked when they are read, so that a wrong type never reaches the code. Keys that are not
listed are allowed and preserved: later versions add some.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from bnn_symm.data.preprocessing.columns import Column
from bnn_symm.data.preprocessing.scaling import mean_shape, scale_shape
from bnn_symm.data.raw import Task
from bnn_symm.errors import BnnSymmError, InvalidRun, one_line

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Keys of fits and pairs, which are file names.
Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0)]
Number = float | None
# The largest magnitude of a plotted number; matplotlib overflows near the largest float.
LARGEST = 1e150
PlottedFloat = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
PositiveFloat = Annotated[float, Field(gt=0)]
Label = str | int | float | bool
# The largest number of inputs or outputs of a network, so that a damaged file cannot request
# arbitrary memory.
_MAX_SIZE = 10**8


class FileSchema(BaseModel):
    """Define the base of all schemas: strict types, and further keys allowed."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class DatasetRecord(FileSchema):
    """Define the key `dataset` of `run.json`."""

    name: str
    task: Task
    sha256: Sha256
    source: str = ""
    licence: str = ""
    train: Count = 0
    validation: Count = 0
    test: Count = 0


class MatchedParameter(FileSchema):
    """Define an entry for a parameter of an imported run."""

    parameter: str
    changes: list[str] = Field(default_factory=list)


class DerivedRecord(FileSchema):
    """Define the key `derived` of `run.json`: how a run was derived from others."""

    by: str
    matched: list[MatchedParameter] = Field(default_factory=list)
    method_assumed: bool = False


class GainTestRecord(FileSchema):
    """Define the key `gain_test` of `run.json`: whether sampling gained over its start."""

    sentence: str


class RunRecord(FileSchema):
    """Define the content of `run.json`."""

    run_schema: Annotated[int, Field(ge=1)]
    status: Literal["running", "complete", "interrupted", "failed"]
    threads: Annotated[int, Field(ge=1, le=2**16)]
    versions: dict[str, str]
    num_outputs: Annotated[int, Field(ge=1, le=_MAX_SIZE)]
    dataset: DatasetRecord
    mask_fingerprint: Sha256 | None
    prior_mean: Sha256 | None = None
    code: dict[str, dict[str, str]] | None = None
    gain_test: GainTestRecord | None = None
    seed: Count = 0
    method: str = ""
    engine: str = ""
    compiled: bool | None = None
    device: str = ""
    dtype: str = ""
    host: str = ""
    started: str = ""
    processes: Annotated[int, Field(ge=1)] = 1
    num_parameters: Annotated[int, Field(ge=1, le=2**62)] = 1
    num_fixed_parameters: Count = 0
    seconds: Seconds | None = None
    gradient_evaluations: Count | None = None
    diverged: bool = False
    error: str | None = None
    derived: DerivedRecord = Field(default_factory=lambda: DerivedRecord(by=""))
    warm_start: list[dict[str, Any]] = Field(default_factory=list)
    resumed_with_changes: list[dict[str, Any]] = Field(default_factory=list)
    unused: Any = None
    prior_scale: Annotated[float, Field(gt=0)] | None = None


class NotationFile(FileSchema):
    """Define how numbers are written in a column of a table, in `preprocessing.json`."""

    decimal: Literal[".", ","]
    thousands: Annotated[str, Field(max_length=1)]
    affix: Annotated[str, Field(max_length=60)]


class ColumnFile(FileSchema):
    """Define a column of a table in `preprocessing.json`."""

    name: str
    kind: Literal["number", "boolean", "category", "date", "text"]
    categories: list[Label] = Field(default_factory=list)
    notation: NotationFile | None = None
    date_format: Annotated[str, Field(max_length=100)] = ""
    has_time: bool = False
    has_missing: bool = False
    fill: list[Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=list)
    pools: bool = False
    accepts_unseen: bool = False


class PointColumnFile(FileSchema):
    """Define a column that describes points, in `preprocessing.json`."""

    role: Literal["weight", "event", "exposure", "target"]
    name: str
    notation: NotationFile | None = None


class ColumnScalingFile(FileSchema):
    """Define the scaling of one of several target columns."""

    name: str
    mean: float
    scale: PositiveFloat


class ScalingFile(FileSchema):
    """Define the key `scaling` of `preprocessing.json`; `check_preprocessing` checks its arrays."""

    x_mean: float | list[Any]
    x_scale: float | list[Any]
    y_mean: float
    y_scale: PositiveFloat
    y_columns: list[ColumnScalingFile] = Field(default_factory=list)
    exposure_scale: PositiveFloat = 1.0


class PreprocessingFile(FileSchema):
    """Define the content of `preprocessing.json`."""

    task: Task
    kind: Literal["table", "array", "tokens", "nodes"]
    columns: list[ColumnFile]
    target: str
    class_labels: list[Label]
    input_shape: Annotated[list[Annotated[int, Field(ge=1, le=_MAX_SIZE)]], Field(max_length=8)]
    feature_names: list[str]
    scaling: ScalingFile
    target_notation: NotationFile | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    target_columns: list[PointColumnFile] = Field(default_factory=list)
    point_columns: list[PointColumnFile] = Field(default_factory=list)


class Scores(FileSchema):
    """Define the scores on one split of the data."""

    points: Count | None = None
    nll: Number = None
    expected_nll: Number = None
    accuracy: Number = None
    rmse: Number = None
    ece: Number = None
    brier: Number = None
    rps: Number = None
    crps: Number = None
    coverage_90: Number = None
    r2: Number = None
    auc: Number = None
    balanced_accuracy: Number = None
    columns: "dict[str, Scores] | None" = None


class BaselineFile(FileSchema):
    """Define the NLL of a baseline beside that of the model."""

    nll: Number = None
    difference: Number = None
    standard_error: Number = None
    standing: Literal["better", "alike", "worse"]


class MetricsFile(FileSchema):
    """Define the content of `metrics.json`."""

    train: Scores | None = None
    validation: Scores | None = None
    test: Scores | None = None
    baselines: dict[str, BaselineFile] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    elbo: Number = None
    elbo_standard_error: Number = None
    expected_log_likelihood: Number = None
    kl: Number = None
    draws: Count | None = None
    parameters: Count | None = None


class ScoreFile(FileSchema):
    """Define a score with its interval."""

    value: Number
    low: Number = None
    high: Number = None
    note: str | None = None


class RegionsFile(FileSchema):
    """Define the coverage and size of the regions of one kind."""

    region: str
    coverage: ScoreFile
    size: ScoreFile


class ConformalFile(FileSchema):
    """Define the key `conformal` of an evaluation."""

    conclusion: str
    level: Annotated[float, Field(gt=0, lt=1)]
    bayesian: RegionsFile
    conformal: RegionsFile


class EvaluationFile(FileSchema):
    """Define what is read from a file in `evaluations/`."""

    points: Count = 0
    conformal: ConformalFile | None = None


class CostFile(FileSchema):
    """Define the content of `cost.json` of a stage of a warm start."""

    seconds: Seconds
    gradient_evaluations: Count


class MixingSummary(FileSchema):
    """Define the summary of one view of chains in `measures.json`."""

    rhat_max: Number = None
    ess_bulk_min: Number = None


class MixingMeasures(FileSchema):
    """Define the key `mixing` of `measures.json`."""

    raw: MixingSummary | None = None
    aligned: MixingSummary | None = None
    function: MixingSummary | None = None


class MeasuresFile(FileSchema):
    """Define the content of `measures.json` of a fit in a study."""

    error: str | None = None
    log10_order: Number = None
    certificate: str | None = None
    mixing: MixingMeasures | None = None


class BarrierPart(FileSchema):
    """Define the curve of a barrier on one split of the data."""

    height: Number = None
    standard_error: Number = None
    midpoint: Number = None
    error_height: Number = None
    tau: Annotated[list[PlottedFloat], Field(min_length=2)] = Field(
        default_factory=lambda: [0.0, 1.0]
    )
    marginal_nll: list[PlottedFloat] | None = None


class BarrierCurves(FileSchema):
    """Define the curves of a barrier without alignment."""

    test: BarrierPart | None = None
    train: BarrierPart | None = None


class AlignmentPart(FileSchema):
    """Define the key `alignment` of a barrier."""

    num_moved: Number = None
    num_movable: Number = None
    distance_before: Number = None
    distance_after: Number = None


class PairRhat(FileSchema):
    """Define the key `rhat` of a barrier."""

    raw: Number = None
    aligned: Number = None
    function: Number = None


class PairFile(BarrierCurves):
    """Define the content of `pairs/<key>.json` of a study."""

    naive: BarrierCurves | None = None
    alignment: AlignmentPart | None = None
    rhat: PairRhat | None = None


class FailureFile(FileSchema):
    """Define the content of `failures/<key>.json` of a study."""

    error: str


class PlannedPair(FileSchema):
    """Define the entry of a pair in `plan.json`."""

    first: Key
    second: Key


class PairOptions(FileSchema):
    """Define how pairs of a study are compared."""

    matching: Literal["w2", "means", "precision", "activations"]
    num_draws: Annotated[int, Field(ge=1)]


class PlanFile(FileSchema):
    """Define the content of `plan.json` of a study."""

    cells: dict[Key, dict[str, Any]]
    pairs: dict[Key, PlannedPair]
    options: PairOptions


def check_file(
    path: Path,
    content: Mapping[str, Any],
    schema: type[BaseModel],
    error: type[BnnSymmError] = InvalidRun,
    *,
    remedy: str = "restore the original file",
) -> None:
    """Check types and ranges of the keys of a file against its schema.

    Args:
        path: the path of the file, for the message.
        content: the content of the file.
        schema: one of the classes of this module.
        error: the class of the error.
        remedy: what to try next.

    Raises:
        error: naming the first key that is wrong.
    """
    try:
        schema.model_validate(content)
    except ValidationError as cause:
        problem = cause.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        got = (
            "" if problem["type"] == "missing" else f" got {one_line(repr(problem['input']), 50)},"
        )
        raise error(
            f"{one_line(path, 120)} is damaged: {one_line(place, 60)}:{got} "
            f"{one_line(problem['msg'], 80).lower()}; {remedy}"
        ) from None


def check_preprocessing(path: Path, content: Mapping[str, Any], num_outputs: int) -> None:
    """Check that the parts of a `preprocessing.json` fit each other and the outputs of its run.

    Args:
        path: the path of the file, for the message.
        content: the content of the file.
        num_outputs: the number of outputs of the data, from `run.json`.

    Raises:
        InvalidRun: naming what does not fit.
    """
    check_file(path, content, PreprocessingFile)
    shape, scaling = tuple(content["input_shape"]), content["scaling"]
    problems = []
    for name, wanted in (("x_mean", mean_shape(shape)), ("x_scale", scale_shape(shape))):
        try:
            _check_array(scaling[name], wanted, positive=name == "x_scale")
        except (ValueError, RecursionError) as cause:
            problems.append(f"scaling.{name} {cause}")
    problems += _target_problems(content, num_outputs)
    features = math.prod(shape)
    if len(content["feature_names"]) != features:
        problems.append(f"{len(content['feature_names'])} feature_names for {features} features")
    if content["kind"] == "table":
        columns = [Column.from_dict(column) for column in content["columns"]]
        size = sum(len(column.feature_names) for column in columns)
        if size != features:
            problems.append(f"columns make {size} features, input_shape has {features}")
        for column in columns:
            if column.can_be_filled and len(column.fill) != len(column.value_names):
                wanted = len(column.value_names)
                problems.append(f"{len(column.fill)} values fill {wanted} features")
    names = [column["name"] for column in content["columns"]]
    if len(set(names)) < len(names):
        problems.append("a column appears twice")
    labels = content["class_labels"]
    if (content["task"] == "classification") != bool(labels) or (
        labels and len(labels) != num_outputs
    ):
        problems.append(
            f"{len(labels)} class_labels for {num_outputs} outputs of {content['task']}"
        )
    if len({(type(label), label) for label in labels}) < len(labels):
        problems.append("a class label appears twice")
    if problems:
        raise InvalidRun(
            f"{one_line(path, 120)} is damaged: {one_line(problems[0], 120)}; restore the original "
            "file"
        )


def _target_problems(content: Mapping[str, Any], num_outputs: int) -> list[str]:
    """Return what does not fit in the columns of several targets."""
    scaled = [column["name"] for column in content["scaling"].get("y_columns", [])]
    named = [column["name"] for column in content.get("target_columns", [])]
    if scaled != named:
        return [f"scaling.y_columns of {scaled}, and target_columns {named}"]
    return [f"{len(named)} target_columns for {num_outputs} outputs"] * (
        len(named) not in (0, num_outputs)
    )


def _check_array(value: Any, shape: tuple[int, ...], *, positive: bool) -> None:
    """Raise ValueError unless nested lists contain finite numbers and have the given shape."""
    if not shape:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise ValueError(f"has {one_line(repr(value), 40)}, expected finite numbers")
        if positive and value <= 0:
            raise ValueError(f"has {value}, expected positive numbers")
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        got = len(value) if isinstance(value, list) else one_line(repr(value), 40)
        raise ValueError(f"has {got} entries where input_shape has {shape[0]}")
    for item in value:
        _check_array(item, shape[1:], positive=positive)
