"""Parse the target of the time to convergence, and resolve it for each group of runs.

    0.95 or 95%            fraction of the distance from the start of the runs to the best plateau,
                           in the default quantity
    elbo=95%               the same in another quantity
    validation_nll=0.3     a value

The default is 95 % of the distance in the objective. Objectives of different models, methods or
temperatures are not on a common scale; then the quantity is the ELBO or the training NLL, which
optimizing methods log. If those do not improve or are not logged, each group is measured relative
to its own plateau. For a sampler the objective is the negative log density, and the target is the
band in which it is stationary: its level plus or minus two standard deviations of its rows, of rows
without exploration for cyclical samplers.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bnn_symm.analyses.convergence.seed_groups import SeedGroup
from bnn_symm.diagnostics.convergence.convergence import QUANTITIES, Curve
from bnn_symm.diagnostics.convergence.plateau import Plateau, find_plateau
from bnn_symm.errors import ConfigError, nearest
from bnn_symm.runs.configuration.config import Config

_FRACTION = 0.95
# Half the width of a sampler's band, in standard deviations of its rows.
_BAND = 2.0
# A quantity that improves by less than this many standard deviations of its rows has no target.
_MIN_IMPROVEMENT = 3.0
_EXAMPLES = "such as 0.95 (of the distance to the best plateau), validation_nll=0.3 or elbo=95%"

Reference = Literal["value", "best", "own"]


@dataclass(frozen=True, kw_only=True)
class TargetRequest:
    """Hold a target as the user requested it.

    Attributes:
        quantity: the quantity; None for the default.
        fraction: the fraction of the distance; None for a value.
        value: the value; None for a fraction.
    """

    quantity: str | None = None
    fraction: float | None = None
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """Hold the target of the runs of one group.

    Attributes:
        kind: a value, a fraction of the distance, or a sampler's band.
        value: the value to be reached; None with `reason`.
        start: the start of the distance; None for a value.
        level: the plateau, which is its end.
        half_width: half the width of a band.
        reason: why there is no target.
    """

    kind: Literal["value", "fraction", "band"]
    value: float | None
    start: float | None = None
    level: float | None = None
    half_width: float | None = None
    reason: str | None = None

    def of(self, curve: Curve) -> tuple[Curve, float]:
        """Return a curve and the value it has to reach; a chain enters a band from its start.

        Args:
            curve: the curve of a chain.
        """
        assert self.value is not None
        if self.kind != "band":
            return curve, self.value
        assert self.level is not None
        assert self.half_width is not None
        if curve.start > self.level:
            return dataclasses.replace(curve, direction="lower"), self.level + self.half_width
        return dataclasses.replace(curve, direction="higher"), self.level - self.half_width


def parse_target(text: str | None) -> TargetRequest:
    """Parse a target.

    Args:
        text: the text of `--target`; None for the default.

    Raises:
        ConfigError: for invalid syntax, an unknown quantity, or a fraction outside 0 to 1.
    """
    if text is None:
        return TargetRequest()
    name, equals, number = (part.strip() for part in text.rpartition("="))
    match = re.fullmatch(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(%?)", number)
    if (equals and not name) or match is None:
        raise ConfigError(f"--target {text!r}: expected a fraction or quantity=value, {_EXAMPLES}")
    if name and name not in QUANTITIES:
        raise ConfigError(
            f"--target {text!r}: unknown quantity {name!r}; {nearest(name, QUANTITIES)}"
        )
    value = float(match[1]) / (100 if match[2] else 1)
    if name and not match[2]:
        return TargetRequest(quantity=name, value=value)
    if not 0 < value < 1:
        raise ConfigError(f"--target {text!r}: expected a fraction between 0 and 1, {_EXAMPLES}")
    return TargetRequest(quantity=name or None, fraction=value)


def choose_quantity(
    request: TargetRequest,
    groups: Sequence[SeedGroup],
    configs: Sequence[Config],
    curves: Sequence[dict[str, list[Curve]]],
) -> tuple[str, Reference]:
    """Return the quantity of a target, and whether groups share the best plateau.

    Args:
        request: the requested target.
        groups: the groups of runs.
        configs: the configuration of each run.
        curves: the curves of each run, by quantity.

    Returns:
        The quantity, and the reference: a value, the best plateau, or the own plateau of each
        group.

    Raises:
        ConfigError: if no run has the requested quantity.
    """
    quantity = request.quantity
    if quantity is not None:
        if not any(run[quantity] for run in curves):
            logged = [name for name in QUANTITIES if any(run[name] for run in curves)]
            hint = "; raise data.validation_fraction" if quantity.startswith("validation") else ""
            raise ConfigError(
                f"no history has {quantity}; logged: {', '.join(logged) or 'no quantity'}{hint}"
            )
        return quantity, "value" if request.value is not None else "best"
    if len(groups) == 1 or _share_objective(groups, configs):
        return "objective", "best"
    with_objective = [run for run in curves if run["objective"]]
    # The ELBO is in nats of the same data for every network. The training NLL may increase again
    # when the prior takes effect, so that its first passage is less informative.
    for name in ("elbo", "nll"):
        logged = [run[name] for run in with_objective]
        if logged and all(logged) and _improves(logged):
            return name, "best"
    return "objective", "own"


def resolve_targets(
    request: TargetRequest,
    quantity: str,
    reference: Reference,
    groups: Sequence[SeedGroup],
    runs: Sequence[list[Curve]],
    *,
    drawn: Sequence[list[Curve]],
    samplers: Sequence[bool],
    failed: Sequence[bool],
) -> list[Target]:
    """Return the target of each group.

    Args:
        request: the requested target.
        quantity: the quantity of the curves.
        reference: the reference, from `choose_quantity`.
        groups: the groups of runs.
        runs: the curves of the quantity, by run.
        drawn: the same without exploration.
        samplers: whether the method of each run is a sampler.
        failed: whether each run diverged; their plateaus are not used.
    """
    targets = []
    for group in groups:
        members = group.members if reference == "own" else range(len(runs))
        reference_runs = [runs[i] for i in members if runs[i] and not failed[i]] or [
            runs[i] for i in members if runs[i]
        ]
        group_runs = [runs[i] for i in group.members if runs[i]]
        if request.value is not None:
            targets.append(Target(kind="value", value=request.value))
        elif not group_runs:
            targets.append(
                Target(
                    kind="fraction", value=None, reason=f"no history of this group has {quantity}"
                )
            )
        elif samplers[group.members[0]] and request.fraction is None:
            targets.append(
                _band(group_runs, [drawn[i] or runs[i] for i in group.members if runs[i]])
            )
        else:
            targets.append(
                _fraction(
                    reference_runs, _FRACTION if request.fraction is None else request.fraction
                )
            )
    return targets


def run_level(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return level and spread of the plateaus of a run, or of its last rows if it has no plateau.

    Args:
        curves: the curves of its chains.
    """
    levels, spreads = [], []
    for curve in curves:
        plateau: Plateau = find_plateau(curve)
        last = curve.values[-max(1, len(curve) // 4) :]
        levels.append(float(last.mean()) if plateau.level is None else plateau.level)
        spreads.append(float(last.std()) if plateau.spread is None else plateau.spread)
    return float(np.mean(levels)), float(np.mean(spreads))


def is_sampler(config: Config) -> bool:
    """Return whether the method draws samples instead of optimizing.

    Args:
        config: the configuration.
    """
    return config.inference.is_sampler


def _fraction(runs: Sequence[Sequence[Curve]], fraction: float) -> Target:
    """Return the target at a fraction of the distance to the best plateau."""
    sign = runs[0][0].sign
    start = float(np.median([np.mean([curve.start for curve in curves]) for curves in runs]))
    level, spread = min(
        (run_level(curves) for curves in runs),
        key=lambda level_and_spread: sign * level_and_spread[0],
    )
    way = sign * (start - level)
    if way <= _MIN_IMPROVEMENT * spread:
        reason = "it does not improve from its first row to its last by more than its scatter"
        return Target(kind="fraction", value=None, start=start, level=level, reason=reason)
    return Target(kind="fraction", value=start - sign * fraction * way, start=start, level=level)


def _band(runs: Sequence[Sequence[Curve]], drawn: Sequence[Sequence[Curve]]) -> Target:
    """Return the band in which the objective of a sampler is stationary."""
    # If chains are stationary at different levels, the median lies between them and is not reached.
    levels = [run_level([curve]) for curves in drawn for curve in curves]
    level, spread = (float(np.median(values)) for values in zip(*levels, strict=True))
    start = float(np.median([curve.start for curves in runs for curve in curves]))
    half = _BAND * spread
    return Target(kind="band", value=level, start=start, level=level, half_width=half)


def _improves(runs: Sequence[Sequence[Curve]]) -> bool:
    """Return whether the quantity improves in every run by more than its scatter."""
    return all(_fraction([curves], _FRACTION).value is not None for curves in runs)


def _share_objective(groups: Sequence[SeedGroup], configs: Sequence[Config]) -> bool:
    """Return whether all groups minimize the same function, by whatever method."""
    changes = ("inference.name", "inference.temperature", "inference.tempering")
    ways = ("inference.", "initial", "device", "dtype", "threads")
    names: set[str] = {name for group in groups for name in group.differences}
    return all(name.startswith(ways) and name not in changes for name in names) and not any(
        map(is_sampler, configs)
    )


def describe_target(target: Target) -> dict[str, Any]:
    """Return a target as plain data.

    Args:
        target: the target.
    """
    return dataclasses.asdict(target)
