"""Simulation-based calibration of what a configuration says, kept on disk while it runs.

    config.yaml        resolved
    simulations.jsonl  one line a simulation, appended as they come
    sbc.json           ranks, bands and verdicts; while it runs, what is being checked
    figures/sbc.png

A simulation depends on the seed and its own number alone, so that going on with an interrupted
check, or asking for more simulations than there were, gives the same as if they had been done at
once.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnn_symm.diagnostics.simulation.sbc import SbcResult, simulation_based_calibration
from bnn_symm.diagnostics.simulation.sbc_simulation import SimulatedFit
from bnn_symm.errors import ConfigError, InvalidRun, shell_words
from bnn_symm.io.atomic import is_temporary, remove_files, remove_if_empty, write_json, write_text
from bnn_symm.runs.configuration.config import Config, dump_config, load_config
from bnn_symm.runs.configuration.prepare import Prepared, prepare
from bnn_symm.runs.directory.output_directory import disk_errors, new_directory
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import module_flags, module_of, with_module

# What is checked without a configuration: NUTS on a line with unknown slope, offset and noise; a
# minute or two.
_DEFAULTS = {
    "data": "data={name: gap}",
    "architecture": "architecture={name: mlp, widths: []}",
    "inference": "inference={name: nuts, num_chains: 1, num_warmup: 100, num_draws: 150}",
}
# Parameters from which hundreds of fits take long, and raw weights are long past being quantities.
_LARGE = 200
# Of `sbc.json`: what must not change between the simulations of one check.
_SAME = ("dataset", "mask_fingerprint", "num_parameters", "versions", "prior_mean")

_FILES = ("config.yaml", "simulations.jsonl", "sbc.json")

Tell = Callable[[SimulatedFit], None]


def default_overrides(overrides: Sequence[str]) -> list[str]:
    """The default check, as overrides that come before those of the user.

    A section whose name the user sets is left to the user: its other keys may be of another kind.
    """
    named = {override.partition("=")[0].strip() for override in overrides}
    return [text for section, text in _DEFAULTS.items() if not named & {section, f"{section}.name"}]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """A check that is ready to run.

    Attributes:
        path: its directory.
        prepared: what the configuration means.
        num_simulations: that are wanted in all.
        done: those of an earlier call.
        warnings: what a person should know before it starts.
    """

    path: Path
    prepared: Prepared
    num_simulations: int
    done: tuple[SimulatedFit, ...]
    warnings: tuple[str, ...]

    @property
    def _again(self) -> str:
        """What to type to go on."""
        flags = module_flags([module_of(self.prepared.config)])
        return f"bnn-symm {shell_words('sbc', '--resume', self.path)}{flags}"

    def run(self, *, jobs: int = 1, tell: Tell = lambda simulation: None) -> dict[str, Any]:
        """Does the simulations that are missing, and returns the content of `sbc.json`.

        Args:
            jobs: simulations at once.
            tell: called with every simulation when it is on disk.

        Raises:
            KeyboardInterrupt: with the command that goes on, if it was interrupted.
        """
        record = self.prepared.record()
        log, answer = self.path / "simulations.jsonl", self.path / "sbc.json"
        with disk_errors(self.path, f"make room, and go on with: {self._again}"):
            # Whole lines only: a process that was killed may have left half of one.
            lines = "".join(_line(simulation) for simulation in self.done)
            write_text(log, lines)
            started = {"num_simulations": self.num_simulations, "run": record}
            write_json(answer, {"status": "running", **started})
            with log.open("a", encoding="utf-8") as file:

                def keep(simulation: SimulatedFit) -> None:
                    file.write(_line(simulation))
                    file.flush()
                    tell(simulation)

                with self._interruptions(answer, started):
                    found = simulation_based_calibration(
                        self.prepared.config.inference,
                        self.prepared.model,
                        self.prepared.dataset,
                        num_simulations=self.num_simulations,
                        seed=self.prepared.config.seed,
                        jobs=jobs,
                        initial=self.prepared.initial,
                        done=self.done,
                        tell=keep,
                    )
            content = {
                "status": "complete",
                **describe(found),
                "warnings": list(self.warnings),
                **started,
            }
            write_json(answer, content)
        return content

    @contextlib.contextmanager
    def _interruptions(self, answer: Path, started: dict[str, Any]) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            write_json(answer, {"status": "interrupted", **started})
            raise KeyboardInterrupt(f"go on with: {self._again}") from None
        except Exception:
            if not _read_log(self.path):
                # Settings that cannot be checked leave nothing behind, except what somebody else
                # put there.
                remove_files(self.path, lambda name: name in _FILES or is_temporary(name))
                remove_if_empty(self.path)
            raise


def new_self_check(config: Config, out: Path | None, *, num_simulations: int) -> SelfCheck:
    """Makes the directory of a check.

    Args:
        config: what is checked.
        out: a directory that does not exist; default `runs/sbc-<number>`.
        num_simulations: how many.

    Raises:
        BnnSymmError: with one line that says what in the configuration does not fit.
    """
    if config.warm_start:
        raise ConfigError(
            "a check is of one method on many data sets, and has no warm start; leave warm_start "
            "out"
        )
    prepared = prepare(config)
    path = new_directory(out, "sbc")
    with disk_errors(path, "choose another place with -o DIR"):
        write_text(path / "config.yaml", dump_config(prepared.config))
    return SelfCheck(
        path=path,
        prepared=prepared,
        num_simulations=num_simulations,
        done=(),
        warnings=tuple(_warnings(prepared)),
    )


def resume_self_check(
    path: Path, *, num_simulations: int | None, module: str | None = None
) -> SelfCheck:
    """Goes on with a check, or adds simulations to one.

    Args:
        path: its directory.
        num_simulations: how many in all; None for as many as it was made for.
        module: factory of the user's own network, said again.

    Raises:
        InvalidRun: if there is none, or its data or versions are no longer the same.
    """
    if not (path / "sbc.json").exists() or not (path / "config.yaml").exists():
        raise InvalidRun(
            f"{path} is no check of the inference; name a directory that `bnn-symm sbc` made"
        )
    former = RunDirectory.read_json(path / "sbc.json")
    prepared = prepare(with_module(load_config(path / "config.yaml"), module))
    record, before = prepared.record(), former.get("run", {})
    if isinstance(before.get("dataset"), dict):  # checks of former versions recorded fewer keys
        record["dataset"] = {
            key: value for key, value in record["dataset"].items() if key in before["dataset"]
        }
    changed = [name for name in _SAME if before.get(name) != record.get(name)]
    if changed:
        raise InvalidRun(
            f"{path} was made with another {', '.join(changed)}: its simulations cannot be "
            "continued; start afresh "
            f"with -o DIR"
        )
    done = _read_log(path)
    wanted = num_simulations or former["num_simulations"]
    kept = tuple(simulation for simulation in done if simulation.index < wanted)
    if len(kept) < len(done):
        raise InvalidRun(
            f"{path} has {len(done)} simulations already; ask for as many or more with "
            "--simulations"
        )
    return SelfCheck(
        path=path,
        prepared=prepared,
        num_simulations=wanted,
        done=kept,
        warnings=tuple(_warnings(prepared)),
    )


def _line(simulation: SimulatedFit) -> str:
    return json.dumps(simulation.to_dict(), allow_nan=False) + "\n"


def _read_log(path: Path) -> list[SimulatedFit]:
    """By number; lines that were cut off, and the second of two writers', are left out."""
    found: dict[int, SimulatedFit] = {}
    log = path / "simulations.jsonl"
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        with contextlib.suppress(ValueError, TypeError):
            simulation = SimulatedFit.from_dict(json.loads(line))
            found.setdefault(simulation.index, simulation)
    return [found[index] for index in sorted(found)]


def _warnings(prepared: Prepared) -> Iterator[str]:
    method, parameters = prepared.config.inference, prepared.model.num_parameters
    if method.temperature != 1:
        yield (
            f"inference.temperature is {method.temperature:g}: only at 1 is what is fitted the "
            "posterior of the model "
            f"that the data are drawn from, so that ranks should not be uniform"
        )
    if parameters > _LARGE:
        yield (
            f"the model has {parameters} parameters and every simulation is a fit of it; SBC is "
            "for small models, such "
            f"as --set architecture.widths=[4] data.limit=100"
        )


def describe(found: SbcResult) -> dict[str, Any]:
    """All of a result as plain data, ranks included."""
    own = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    for name in ("ranks", "num_draws", "values"):
        own[name] = own[name].tolist()
    own["quantities"] = [dataclasses.asdict(one) for one in found.quantities]
    own["names"], own["simulations"] = list(found.names), list(found.simulations)
    for name in ("failures", "diverging"):
        own[name] = {str(index): value for index, value in own[name].items()}
    if found.band is not None:
        band = dataclasses.asdict(found.band)
        own["band"] = {
            name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in band.items()
        }
    return own
