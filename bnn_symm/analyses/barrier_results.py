"""Hold the results of `bnn-symm barrier`, whose JSON they define."""

from dataclasses import dataclass, field
from typing import Any

from bnn_symm.alignment import ContinuousAlignment, Synchronization
from bnn_symm.analyses.alignment import RunAlignment
from bnn_symm.diagnostics import Barrier
from bnn_symm.diagnostics.barriers.decomposition import BarrierDecomposition, MeanDecomposition
from bnn_symm.diagnostics.barriers.monotonicity import LineShape
from bnn_symm.diagnostics.barriers.simplex import SimplexBarrier
from bnn_symm.summaries import Result, plain


@dataclass(frozen=True, kw_only=True)
class PairBarrier:
    """Hold the barrier between two runs.

    Attributes:
        runs: the paths of the runs.
        ways: the barrier before alignment (`naive`), after it (`aligned`), if it was requested, and
            after the alignment of scales and rotations too (`+ scale`, `+ scale + rotation`).
        shapes: shapes of the lines between the means by split, for each of `ways`, or nothing.
        alignment: of the second run, if it was requested.
        continuous: alignments over scales and rotations by their name in `ways`, after `alignment`.
        decomposition: shares of the naive barrier, if they were requested.
        control: the path of the run that gives the share of the initialization, if one was named.
    """

    runs: list[str]
    ways: dict[str, Barrier]
    shapes: dict[str, dict[str, LineShape]]
    alignment: RunAlignment | None
    continuous: dict[str, ContinuousAlignment] = field(default_factory=dict)
    decomposition: BarrierDecomposition | None = None
    control: str | None = None

    @property
    def chosen(self) -> Barrier:
        """Return the barrier after alignment over all symmetries that were requested."""
        return list(self.ways.values())[-1]

    def to_dict(self) -> dict[str, Any]:
        """Return the barrier as JSON types, that after alignment first."""
        naive, *_, chosen = [
            plain({key: getattr(own, key) for key in ("test", "train", "end_nll")})
            | ({"repaired": own.repaired.to_dict()} if own.repaired else {})
            | (
                {
                    "temperature_scaled": own.temperature_scaled.to_dict(),
                    "confidence": own.confidence,
                }
                if own.temperature_scaled
                else {}
            )
            | ({"layers": plain(own.layers)} if own.layers else {})
            | ({"shape": plain(self.shapes[way])} if self.shapes else {})
            for way, own in [("naive", self.ways["naive"]), *self.ways.items()]
        ]
        return {
            "height": self.chosen.height,
            "standard_error": self.chosen.standard_error,
            "runs": self.runs,
            "aligned": "aligned" in self.ways,
            **({"alignment": self.alignment.to_dict()} if self.alignment else {}),
            "ways": {
                way: {"height": own.height, "standard_error": own.standard_error}
                for way, own in self.ways.items()
            },
            "continuous": {way: own.to_dict() for way, own in self.continuous.items()},
            "path": self.chosen.path,
            "num_draws": self.chosen.num_draws,
            **chosen,
            "naive": naive,
            **({"decomposition": self.decomposition.to_dict()} if self.decomposition else {}),
            **({"control": self.control} if self.control else {}),
        }


@dataclass(frozen=True, kw_only=True)
class PairHeight(Result):
    """Hold the height of the barrier between two of several runs, by their positions."""

    first: int
    second: int
    height: float
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class SimplexPairs(Result):
    """Hold the loss over the simplex of several posteriors, and the barrier of each pair."""

    simplex: SimplexBarrier
    pairs: list[PairHeight]


@dataclass(frozen=True, kw_only=True)
class SeveralBarrier:
    """Hold the barrier over the simplex of several runs; see `PairBarrier`."""

    runs: list[str]
    ways: dict[str, SimplexPairs]
    alignment: Synchronization | None
    decomposition: MeanDecomposition | None = None

    @property
    def chosen(self) -> SimplexPairs:
        """Return the barrier after alignment, if it was requested."""
        return self.ways.get("aligned", self.ways["naive"])

    def to_dict(self) -> dict[str, Any]:
        """Return the barrier as JSON types, that after alignment first."""
        return {
            "height": self.chosen.simplex.height,
            "standard_error": None,
            "centroid": self.chosen.simplex.centroid,
            "path": self.chosen.simplex.path,
            "runs": self.runs,
            "aligned": "aligned" in self.ways,
            "naive": self.ways["naive"].to_dict(),
            **self.chosen.to_dict(),
            **({"alignment": self.alignment.to_dict()} if self.alignment else {}),
            **({"decomposition": self.decomposition.to_dict()} if self.decomposition else {}),
        }


@dataclass(frozen=True, kw_only=True)
class LineBarrier:
    """Hold the losses on straight lines.

    Attributes:
        lines: the path of each run, and the shape of the line from its initial value by split.
        pair: the barrier between the means of two runs.
    """

    lines: list[tuple[str, dict[str, LineShape]]]
    pair: PairBarrier | None = None

    @property
    def percent_monotone(self) -> dict[str, float]:
        """Return the percentage of the runs with a monotone line, by split."""
        monotone = {
            part: sum(shapes[part].is_monotone for _, shapes in self.lines)
            for part in ("test", "train")
        }
        return {part: 100 * number / len(self.lines) for part, number in monotone.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the losses as JSON types, with the height of the pair where there is one."""
        return {
            "height": max(shapes["test"].height for _, shapes in self.lines),
            "standard_error": None,
            "runs": [run for run, _ in self.lines],
            "aligned": False,
            "path": "straight line",
            "from_initial": [{"run": run, **plain(shapes)} for run, shapes in self.lines],
            "percent_monotone": self.percent_monotone,
        } | (self.pair.to_dict() if self.pair else {})
