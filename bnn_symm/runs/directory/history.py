"""Read the history of a run: a log while it runs, a table once it is complete.

Each method writes rows with its own cost. For a run with a warm start, the rows of all methods are
read together: `stage` numbers the methods from 1, and `seconds` and `gradient_evaluations` include
the cost of earlier stages.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.errors import InvalidRun, one_line
from bnn_symm.io.documents import parse_json, read_json, read_text
from bnn_symm.io.parquet import read_rows
from bnn_symm.runs.directory.file_schemas import CostFile, check_file

Rows = list[dict[str, Any]]
Cost = dict[str, int | float]
"""The cost of a fit: `seconds` and `gradient_evaluations`."""

LOG, TABLE, COST = "history.jsonl", "history.parquet", "cost.json"
_CLOCKS = ("seconds", "gradient_evaluations")


def stage_folders(run: Path) -> list[Path]:
    """Return the folders of the warm start of a run, as far as its stages were started.

    Args:
        run: the run directory.
    """
    folders = [path for path in (run / "warm_start").glob("*") if path.name.isdigit()]
    return sorted(folders, key=lambda path: int(path.name))


def stage_rows(folder: Path) -> Rows:
    """Read the rows in a folder, from the table or the log; an incomplete last line is left out.

    Args:
        folder: the folder of a stage or of a run.

    Raises:
        InvalidRun: if the table is damaged.
    """
    table, log = folder / TABLE, folder / LOG
    if table.exists():
        rows = [_checked(row, table) for row in read_rows(table)]
        return [
            {name: None if value != value else value for name, value in row.items()} for row in rows
        ]
    return _logged_rows(log) if log.exists() else []


def _logged_rows(log: Path) -> Rows:
    """Return the rows of a log, without incomplete lines at its end after a kill or a power cut."""
    rows, incomplete = [], None
    # An incomplete character at the end becomes text that is not JSON, so its line is incomplete.
    for number, line in enumerate(
        read_text(log, on_damage="backslashreplace").splitlines(), start=1
    ):
        try:
            row = parse_json(line, log, allow_nan=True)
        except InvalidRun as error:
            incomplete = incomplete or error
            continue
        if incomplete is not None:
            raise InvalidRun(
                f"{log} is damaged before line {number}; restore the original file"
            ) from None
        rows.append(_checked(row, log))
        if ("chain" in row) != ("chain" in rows[0]):
            raise InvalidRun(
                f"{log} is damaged: some rows have a chain, others have none; restore the file"
            )
    return rows


def _checked(row: Any, path: Path) -> dict[str, Any]:
    """Return a row after checking its types, and that it has a step and both clocks.

    Raises:
        InvalidRun: if it is not a row of a history.
    """
    if (
        not isinstance(row, dict)
        or not _is_count(row.get("step"))
        or not _is_count(row.get("chain", 0))
    ):
        raise InvalidRun(
            f"{path} is damaged: {one_line(row, 60)} has no step or chain; restore the file"
        )
    for name in _CLOCKS:
        if name not in row:
            raise InvalidRun(
                f"{path} is damaged: {one_line(row, 60)} has no {name}; restore the file"
            )
    for name, value in row.items():
        is_clock_or_text = (
            name == "phase" if isinstance(value, str) else isinstance(value, int | float | None)
        )
        if not is_clock_or_text or (
            name in _CLOCKS and not (isinstance(value, int | float) and value >= 0)
        ):
            raise InvalidRun(
                f"{path} is damaged: {one_line(name, 40)} is {one_line(repr(value), 40)}; restore "
                "the file"
            )
    return row


def _is_count(value: Any) -> bool:
    """Return whether a value is a step or a chain; tables may store these as floats."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < 2**63
        and value == int(value)
    )


def warm_start_cost(run: Path) -> Cost:
    """Return the total cost of the complete stages of a warm start.

    Args:
        run: the run directory.

    Raises:
        InvalidRun: if a file is damaged.
    """
    total: Cost = dict.fromkeys(_CLOCKS, 0)
    for folder in stage_folders(run):
        for clock, value in (stage_cost(folder) or {}).items():
            total[clock] += value
    return total


def all_stages(run: Path, last: Sequence[Mapping[str, Any]]) -> Rows:
    """Return the rows of every stage of a warm start, followed by those of the main method.

    Args:
        run: the run directory.
        last: the rows of the main method, with its own cost.
    """
    folders = stage_folders(run)
    if not folders:
        return [dict(row) for row in last]
    rows: Rows = []
    before: Cost = dict.fromkeys(_CLOCKS, 0)
    for stage, new_rows in enumerate([*map(stage_rows, folders), last], start=1):
        rows += [
            {"stage": stage, **row, **{clock: row[clock] + before[clock] for clock in _CLOCKS}}
            for row in new_rows
        ]
        if stage <= len(folders):
            for clock, value in (stage_cost(folders[stage - 1]) or {}).items():
                before[clock] += value
    return rows


def last_stage(run: Path) -> Rows:
    """Return the rows of the last method that has any; their clocks include earlier stages.

    Args:
        run: the run directory.
    """
    stored = stage_rows(run)
    rows = stored if (run / TABLE).exists() else all_stages(run, stored)
    if not rows or rows[0].get("stage") is None:
        return rows
    rows = [row for row in rows if row["stage"] == rows[-1]["stage"]]
    used = {name for row in rows for name, value in row.items() if value is not None}
    return [{name: value for name, value in row.items() if name in used} for row in rows]


def stage_cost(folder: Path) -> Cost | None:
    """Return the cost of a complete stage; None if it is not complete.

    Args:
        folder: the folder of the stage.
    """
    path = folder / COST
    if not path.exists():
        return None
    content = read_json(path)
    check_file(path, content, CostFile)
    return {clock: content[clock] for clock in _CLOCKS}
