"""What runs are timed to: the target as it is typed, and the value that it stands for in each
group.

    0.95 or 95%           of the default quantity, that fraction of the way from where runs start to
    the best plateau elbo=95%              the same of another quantity validation_nll=0.3    a
    value

Without one: 95 % of the way of what is optimized. Objectives of different models, methods or
    temperatures are no
common scale: then it is 95 % of the way of the training NLL, which all optimizing methods log, and
    where that does not
fall, or is not logged, each group goes its own way. Of a sampler the objective is the negative log
density, and the target the band in which that settles: its stationary level, and two standard
deviations of its rows on either side, of rows without exploration where a sampler goes in cycles.
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
# A quantity that improves by less than this many standard deviations of its rows goes no way worth
# a target.
_LEAST_WAY = 3.0
_EXAMPLES = "such as 0.95 (of the way to the best plateau), validation_nll=0.3 or elbo=95%"

Reference = Literal["value", "best", "own"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A target as it was asked for.

    Attributes:
        quantity: None for the default.
        fraction: of the way; None for a value.
        value: None for a fraction.
    """

    quantity: str | None = None
    fraction: float | None = None
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What the runs of one group are timed to.

    Attributes:
        kind: a value, a fraction of the way, or a sampler's band.
        value: to be reached; None with `reason`.
        start: where the way begins; None for a value.
        level: the plateau where it ends.
        half_width: of a band.
        reason: why there is nothing to reach.
    """

    kind: Literal["value", "fraction", "band"]
    value: float | None
    start: float | None = None
    level: float | None = None
    half_width: float | None = None
    reason: str | None = None

    def of(self, curve: Curve) -> tuple[Curve, float]:
        """The curve, and the value that it has to reach; a sampler's chain enters the band from
        where it starts.
        """
        assert self.value is not None
        if self.kind != "band":
            return curve, self.value
        assert self.level is not None
        assert self.half_width is not None
        if curve.start > self.level:
            return dataclasses.replace(curve, direction="lower"), self.level + self.half_width
        return dataclasses.replace(curve, direction="higher"), self.level - self.half_width


def parse_target(text: str | None) -> Request:
    """Reads a target.

    Raises:
        ConfigError: for another syntax, an unknown quantity, or a fraction that is not between 0
            and 1.
    """
    if text is None:
        return Request()
    name, equals, number = (part.strip() for part in text.rpartition("="))
    found = re.fullmatch(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(%?)", number)
    if (equals and not name) or found is None:
        raise ConfigError(f"--target {text!r}: wanted a fraction or quantity=value, {_EXAMPLES}")
    if name and name not in QUANTITIES:
        raise ConfigError(
            f"--target {text!r}: unknown quantity {name!r}; {nearest(name, QUANTITIES)}"
        )
    value = float(found[1]) / (100 if found[2] else 1)
    if name and not found[2]:
        return Request(quantity=name, value=value)
    if not 0 < value < 1:
        raise ConfigError(
            f"--target {text!r}: a fraction of the way lies between 0 and 1; type one {_EXAMPLES}"
        )
    return Request(quantity=name or None, fraction=value)


def choose_quantity(
    request: Request,
    groups: Sequence[SeedGroup],
    configs: Sequence[Config],
    curves: Sequence[dict[str, list[Curve]]],
) -> tuple[str, Reference]:
    """The quantity of a target, and whether groups go to the best plateau of all or each to its
    own.

    Raises:
        ConfigError: if no run has the quantity that was asked for.
    """
    quantity = request.quantity
    if quantity is not None:
        if not any(own[quantity] for own in curves):
            there = [name for name in QUANTITIES if any(own[name] for own in curves)]
            hint = "; raise data.validation_fraction" if quantity.startswith("validation") else ""
            raise ConfigError(
                f"no history has {quantity}, only {', '.join(there) or 'no quantity at all'}{hint}"
            )
        return quantity, "value" if request.value is not None else "best"
    if len(groups) == 1 or _one_objective(groups, configs):
        return "objective", "best"
    told = [own for own in curves if own["objective"]]
    # The evidence lower bound is in nats of the same data whatever the network; the training NLL
    # may rise again when the prior takes hold, so that its first passage says less.
    for name in ("elbo", "nll"):
        if told and all(own[name] for own in told) and _goes_a_way([own[name] for own in told]):
            return name, "best"
    return "objective", "own"


def aims(
    request: Request,
    quantity: str,
    reference: Reference,
    groups: Sequence[SeedGroup],
    runs: Sequence[list[Curve]],
    *,
    drawn: Sequence[list[Curve]],
    samplers: Sequence[bool],
    failed: Sequence[bool],
) -> list[Aim]:
    """The aim of each group.

    Args:
        request: what was asked for.
        quantity: of the curves.
        reference: as `choose_quantity` says.
        groups: of runs.
        runs: curves of the quantity, by run.
        drawn: the same without exploration.
        samplers: whether a run's method is a sampler.
        failed: whether a run diverged; the best plateau is not sought among those.
    """
    found = []
    for group in groups:
        members = group.members if reference == "own" else range(len(runs))
        own = [runs[i] for i in members if runs[i] and not failed[i]] or [
            runs[i] for i in members if runs[i]
        ]
        mine = [runs[i] for i in group.members if runs[i]]
        if request.value is not None:
            found.append(Aim(kind="value", value=request.value))
        elif not mine:
            found.append(
                Aim(kind="fraction", value=None, reason=f"no history of this group has {quantity}")
            )
        elif samplers[group.members[0]] and request.fraction is None:
            found.append(_band(mine, [drawn[i] or runs[i] for i in group.members if runs[i]]))
        else:
            found.append(
                _fraction(own, _FRACTION if request.fraction is None else request.fraction)
            )
    return found


def run_level(curves: Sequence[Curve]) -> tuple[float, float]:
    """Level and spread of a run: of its plateaus, or, where rows are too few to have one, of its
    last rows.
    """
    levels, spreads = [], []
    for curve in curves:
        plateau: Plateau = find_plateau(curve)
        last = curve.values[-max(1, len(curve) // 4) :]
        levels.append(float(last.mean()) if plateau.level is None else plateau.level)
        spreads.append(float(last.std()) if plateau.spread is None else plateau.spread)
    return float(np.mean(levels)), float(np.mean(spreads))


def is_sampler(config: Config) -> bool:
    """Whether the method draws, rather than optimizes."""
    return config.inference.is_sampler


def _fraction(runs: Sequence[Sequence[Curve]], fraction: float) -> Aim:
    sign = runs[0][0].sign
    start = float(np.median([np.mean([curve.start for curve in curves]) for curves in runs]))
    level, spread = min((run_level(curves) for curves in runs), key=lambda found: sign * found[0])
    way = sign * (start - level)
    if way <= _LEAST_WAY * spread:
        reason = "it does not get better from its first row to its last by more than it scatters"
        return Aim(kind="fraction", value=None, start=start, level=level, reason=reason)
    return Aim(kind="fraction", value=start - sign * fraction * way, start=start, level=level)


def _band(runs: Sequence[Sequence[Curve]], drawn: Sequence[Sequence[Curve]]) -> Aim:
    # Chains that settle at different levels pull the middle between them, and then do not reach it.
    found = [run_level([curve]) for curves in drawn for curve in curves]
    level, spread = (float(np.median(values)) for values in zip(*found, strict=True))
    start = float(np.median([curve.start for curves in runs for curve in curves]))
    half = _BAND * spread
    return Aim(kind="band", value=level, start=start, level=level, half_width=half)


def _goes_a_way(runs: Sequence[Sequence[Curve]]) -> bool:
    return all(_fraction([curves], _FRACTION).value is not None for curves in runs)


def _one_objective(groups: Sequence[SeedGroup], configs: Sequence[Config]) -> bool:
    """Whether the same function is minimized everywhere, whatever the way that is taken to its
    minimum.
    """
    changes = ("inference.name", "inference.temperature", "inference.tempering")
    ways = ("inference.", "initial", "device", "dtype", "threads")
    names: set[str] = {name for group in groups for name in group.differences}
    return all(name.startswith(ways) and name not in changes for name in names) and not any(
        map(is_sampler, configs)
    )


def describe_aim(aim: Aim) -> dict[str, Any]:
    """As plain data."""
    return dataclasses.asdict(aim)
