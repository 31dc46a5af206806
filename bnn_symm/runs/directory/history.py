"""The history of a run on disk: a log while it runs, a table once it is complete, also of several
methods.

A method writes rows of its own cost. Read together, rows say which `stage` they are of, from 1 on,
and their `seconds` and `gradient_evaluations` count what the stages before had cost.
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
"""`seconds` and `gradient_evaluations`."""

LOG, TABLE, COST = "history.jsonl", "history.parquet", "cost.json"
_CLOCKS = ("seconds", "gradient_evaluations")


def stage_folders(run: Path) -> list[Path]:
    """Of a run with a warm start, where its earlier methods keep what they reach, as far as they
    were begun.
    """
    folders = [path for path in (run / "warm_start").glob("*") if path.name.isdigit()]
    return sorted(folders, key=lambda path: int(path.name))


def own_rows(folder: Path) -> Rows:
    """The rows in a folder, in either form; a last line cut off by a kill is left out.

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
    """Return the rows of a log; lines at its end that a kill or a power cut left incomplete are
    left out.
    """
    rows, incomplete = [], None
    # Half a letter at the end becomes a text that is no JSON, so that its line counts as
    # incomplete.
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
                f"{log} is damaged before line {number}; put back the file as it was written"
            ) from None
        rows.append(_checked(row, log))
    return rows


def _checked(row: Any, path: Path) -> dict[str, Any]:
    """Return a row after checking its types.

    Raises:
        InvalidRun: if it is no row of a history.
    """
    if (
        not isinstance(row, dict)
        or not _is_count(row.get("step"))
        or not _is_count(row.get("chain", 0))
    ):
        raise InvalidRun(
            f"{path} is damaged: {one_line(row, 60)} has no step or chain; put back the file"
        )
    for name, value in row.items():
        is_clock_or_text = (
            name == "phase" if isinstance(value, str) else isinstance(value, int | float | None)
        )
        if not is_clock_or_text or (
            name in _CLOCKS and not (isinstance(value, int | float) and value >= 0)
        ):
            raise InvalidRun(
                f"{path} is damaged: {one_line(name, 40)} is {one_line(repr(value), 40)}; put back "
                "the file"
            )
    return row


def _is_count(value: Any) -> bool:
    """Return whether a value is a number of steps or of a chain; tables may hold these as
    floats.
    """
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < 2**63
        and value == int(value)
    )


def cost_before(run: Path) -> Cost:
    """Seconds and gradient evaluations of the stages of a warm start that are complete.

    Raises:
        InvalidRun: if a file is damaged.
    """
    total: Cost = dict.fromkeys(_CLOCKS, 0)
    for folder in stage_folders(run):
        for clock, value in (cost_of(folder) or {}).items():
            total[clock] += value
    return total


def all_stages(run: Path, last: Sequence[Mapping[str, Any]]) -> Rows:
    """The rows of every stage of a warm start and then those of the last; these alone where there
    was none.

    Args:
        run: its directory.
        last: rows of the method that the run is of, with its own cost.
    """
    folders = stage_folders(run)
    if not folders:
        return [dict(row) for row in last]
    rows: Rows = []
    before: Cost = dict.fromkeys(_CLOCKS, 0)
    for stage, own in enumerate([*map(own_rows, folders), last], start=1):
        rows += [
            {"stage": stage, **row, **{clock: row[clock] + before[clock] for clock in _CLOCKS}}
            for row in own
        ]
        if stage <= len(folders):
            for clock, value in (cost_of(folders[stage - 1]) or {}).items():
                before[clock] += value
    return rows


def last_stage(run: Path) -> Rows:
    """The rows of the last method that has any, with what led to it counted in its clocks."""
    own = own_rows(run)
    rows = own if (run / TABLE).exists() else all_stages(run, own)
    if not rows or rows[0].get("stage") is None:
        return rows
    rows = [row for row in rows if row["stage"] == rows[-1]["stage"]]
    said = {name for row in rows for name, value in row.items() if value is not None}
    return [{name: value for name, value in row.items() if name in said} for row in rows]


def cost_of(folder: Path) -> Cost | None:
    """What a complete stage had cost; None of one that is not complete."""
    path = folder / COST
    if not path.exists():
        return None
    content = read_json(path)
    check_file(path, content, CostFile)
    return {clock: content[clock] for clock in _CLOCKS}
