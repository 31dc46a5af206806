"""Format and draw the results of `bnn-symm align` and `bnn-symm barrier`."""

from pathlib import Path
from typing import Any

from bnn_symm.formatting import count, number, with_error
from bnn_symm.report.plots.comparisons.barriers import plot_barrier_curves, plot_simplex
from bnn_symm.report.plots.comparisons.matrices import barrier_matrix_figure
from bnn_symm.report.plots.comparisons.monotonicity import plot_line_shapes
from bnn_symm.report.plots.figures.png import save_png
from bnn_symm.report.text.tables import table


def alignment_text(alignments: list[dict[str, Any]]) -> str:
    """Return a table with one row per aligned run and the distances of the baselines.

    Args:
        alignments: as `alignment.json` contains them.

    Returns:
        The text.
    """
    rows = [
        [
            Path(own["run"]).name,
            own["solver"],
            own["distance_random"],
            own["distance_before"],
            own["distance_after"],
            f"{own['num_moved']} of {own['num_movable']}",
            own["function_difference"],
        ]
        for own in alignments
    ]
    header = ["run", "solver", "random", "unaligned", "aligned", "units moved", "change of outputs"]
    notes = [
        f"{Path(own['run']).name}: {own['note']}" for own in alignments if not own["num_movable"]
    ]
    return "\n".join(
        [
            f"squared distance to the reference ({alignments[0]['matching']})",
            table(header, rows),
            *notes,
        ]
    )


def barrier_text(content: dict[str, Any]) -> str:
    """Return the heights of barriers in all conventions, or the shapes of straight lines.

    Args:
        content: of `barrier.json`.

    Returns:
        The text.
    """
    if "from_initial" not in content:
        return _heights_text(content)
    lines = _line_shapes_text(content)
    return "\n\n".join([_heights_text(content), lines]) if "naive" in content else lines


def _line_shapes_text(content: dict[str, Any]) -> str:
    rows = []
    for name, shapes in _lines(content).items():
        for part, own in shapes.items():
            keys = ("delta", "local_convexity", "global_convexity", "height")
            rows.append(
                [name, part, "yes" if own["is_monotone"] else "no", *(own[key] for key in keys)]
            )
    header = [
        "line",
        "part",
        "monotone",
        "largest rise",
        "locally convex",
        "below the chord",
        "height",
    ]
    share = content["percent_monotone"]
    return (
        f"NLL of weights on straight lines, nats per point\n{table(header, rows)}\n"
        f"monotone from the initial value: {number(share['test'])} % of {len(content['runs'])} on "
        f"the test split, {number(share['train'])} % on the training split"
    )


def _lines(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the shape of each line, by its name and the split of the data."""
    lines = {
        f"initial value to {Path(row['run']).name}": {part: row[part] for part in ("test", "train")}
        for row in content["from_initial"]
    }
    if "naive" in content:
        names = " to ".join(Path(run).name for run in content["runs"])
        lines[f"{names}, naive"] = content["naive"]["shape"]
        if content["aligned"]:
            lines[f"{names}, aligned"] = content["shape"]
    return lines


def _heights_text(content: dict[str, Any]) -> str:
    ways = {"naive": content["naive"]} | ({"aligned": content} if content["aligned"] else {})
    if "simplex" in content:
        rows = [
            [
                name,
                own["simplex"]["height"],
                own["simplex"]["centroid"],
                max(pair["height"] for pair in own["pairs"]),
            ]
            for name, own in ways.items()
        ]
        return (
            f"marginal test NLL above the plane through {len(content['runs'])} posteriors, nats "
            f"per point ({content['path']} path)\n"
            f"{table(['', 'simplex', 'centroid', 'worst pair'], rows)}"
        )
    rows = []
    for name, own in ways.items():
        for part in ("test", "train"):
            curve = own[part]
            keys = ("above_mean", "midpoint", "expected_height", "error_height", "mixture_height")
            height = with_error(curve["height"], curve["standard_error"])
            rows.append([name, part, height, *(curve[key] for key in keys)])
    header = ["", "part", "height", "above mean", "midpoint", "expected NLL", "error", "mixture"]
    draws = count(content["num_draws"], "draw")
    lines = [f"marginal NLL above the chord, nats per point ({content['path']} path, {draws})"]
    lines.append(table(header, rows))
    if content["aligned"]:
        own = content["alignment"]
        lines.append(
            f"alignment: {own['note']}; {own['solver']}, squared distance "
            f"{number(own['distance_before'], 4)} -> {number(own['distance_after'], 4)} (random "
            f"{number(own['distance_random'], 4)})"
        )
    lines.append(
        "+- is the standard error over draws and points, given these two fits; it is not an "
        "interval over seeds"
    )
    return "\n".join(lines)


def draw_barrier(content: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the figures of a barrier.

    Args:
        content: of `barrier.json`.
        folder: of the figures.

    Returns:
        The paths of the figures.
    """
    folder.mkdir(exist_ok=True)
    paths = []
    if "from_initial" in content:
        paths.append(folder / "lines.png")
        plot_line_shapes(_lines(content), paths[0], title="along straight lines")
        if "naive" not in content:
            return paths
    labels = [Path(run).name for run in content["runs"]]
    ways = {"naive": content["naive"]} | ({"aligned": content} if content["aligned"] else {})
    if "simplex" not in content:
        path = folder / "barrier.png"
        plot_barrier_curves(
            {name: own["test"] for name, own in ways.items()},
            path,
            title=f"{labels[0]} to {labels[1]} ({content['path']} path)",
        )
        return [path, *paths]
    heights = {
        way: [
            (pair["first"], pair["second"], pair["height"])
            for pair in ways.get(way, {"pairs": []})["pairs"]
        ]
        for way in ("naive", "aligned")
    }
    paths = [folder / "pairs.png"]
    matrix = {"label": "marginal test NLL above the chord", "names": labels, **heights}
    matrix["seeds"] = range(len(labels))
    save_png(barrier_matrix_figure([matrix], name="run"), paths[0])
    if len(labels) == 3:
        paths.append(folder / "simplex.png")
        plot_simplex(
            {n: own["simplex"] for n, own in ways.items()},
            labels,
            paths[1],
            title="between three posteriors",
        )
    return paths
