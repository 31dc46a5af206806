"""Run simulation-based calibration (SBC) of a configuration, and store it on disk while it runs.

    config.yaml        the resolved configuration
    simulations.jsonl  one line for each simulation, appended when it is complete
    sbc.json           ranks, bands and verdicts; while it runs, the configuration that is checked
    figures/sbc.png

A simulation depends only on the seed and its own number. Resuming an interrupted check, or adding
simulations to one, therefore gives the same result as one uninterrupted check.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.diagnostics.simulation.sbc import SbcResult, simulation_based_calibration
from bnn_symm.diagnostics.simulation.sbc_simulation import SimulatedFit
from bnn_symm.errors import ConfigError, InvalidRun, shell_words
from bnn_symm.io.atomic import is_temporary, remove_files, remove_if_empty, write_json, write_text
from bnn_symm.runs.configuration.config import Config, dump_config, load_config
from bnn_symm.runs.configuration.prepare import Prepared, prepare
from bnn_symm.runs.directory.output_directory import disk_errors, new_directory
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import code_of, module_flags, with_code
from bnn_symm.summaries import Result

# The default check: NUTS on a line with unknown slope, offset and noise; it takes a minute or two.
_DEFAULTS = {
    "data": "data={name: gap}",
    "architecture": "architecture={name: mlp, widths: []}",
    "inference": "inference={name: nuts, num_chains: 1, num_warmup: 100, num_draws: 150}",
}
# Number of parameters from which hundreds of fits take long.
_LARGE = 200
# Keys of `sbc.json` that must not change between the simulations of one check.
_CONSTANT_KEYS = ("dataset", "mask_fingerprint", "num_parameters", "versions", "prior_mean", "code")

_FILES = ("config.yaml", "simulations.jsonl", "sbc.json")

OnSimulation = Callable[[SimulatedFit], None]


def default_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the default check as overrides that precede those of the user.

    If the user sets the name of a section, the whole section is left to the user: its other keys
    may belong to another kind.

    Args:
        overrides: the overrides of the user.
    """
    named = {override.partition("=")[0].strip() for override in overrides}
    return [text for section, text in _DEFAULTS.items() if not named & {section, f"{section}.name"}]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SbcRun:
    """Hold a check that is ready to run.

    Attributes:
        path: its directory.
        prepared: the prepared configuration.
        num_simulations: the total number of simulations.
        done: the simulations of an earlier call.
        warnings: warnings about the configuration.
    """

    path: Path
    prepared: Prepared
    num_simulations: int
    done: tuple[SimulatedFit, ...]
    warnings: tuple[str, ...]

    @property
    def _resume_command(self) -> str:
        """Return the command that resumes the check."""
        flags = module_flags(code_of(self.prepared.config))
        return f"bnn-symm {shell_words('sbc', '--resume', self.path)}{flags}"

    def run(
        self, *, jobs: int = 1, on_simulation: OnSimulation = lambda simulation: None
    ) -> "CompletedSbc":
        """Run the missing simulations, and write the result to `sbc.json`.

        Args:
            jobs: the number of simultaneous simulations.
            on_simulation: called with every simulation when it is on disk.

        Returns:
            The result.

        Raises:
            KeyboardInterrupt: if it was interrupted; the message has the command that resumes it.
        """
        record = self.prepared.record()
        log, answer = self.path / "simulations.jsonl", self.path / "sbc.json"
        with disk_errors(self.path, f"free disk space and resume with: {self._resume_command}"):
            # Complete lines only: a process that was killed may have left an incomplete one.
            lines = "".join(_line(simulation) for simulation in self.done)
            write_text(log, lines)
            started = {"num_simulations": self.num_simulations, "run": record}
            write_json(answer, {"status": "running", **started})
            with log.open("a", encoding="utf-8") as file:

                def keep(simulation: SimulatedFit) -> None:
                    file.write(_line(simulation))
                    file.flush()
                    on_simulation(simulation)

                with self._interruptions(answer, started):
                    result = simulation_based_calibration(
                        self.prepared.config.inference,
                        self.prepared.model,
                        self.prepared.dataset,
                        num_simulations=self.num_simulations,
                        seed=self.prepared.config.seed,
                        jobs=jobs,
                        initial=self.prepared.initial,
                        done=self.done,
                        on_simulation=keep,
                    )
            completed = CompletedSbc(
                result=result,
                warnings=self.warnings,
                num_simulations=self.num_simulations,
                run=record,
            )
            write_json(answer, completed.to_dict())
        return completed

    @contextlib.contextmanager
    def _interruptions(self, answer: Path, started: dict[str, Any]) -> Iterator[None]:
        """Record an interruption, and remove the directory if no simulation was possible."""
        try:
            yield
        except KeyboardInterrupt:
            write_json(answer, {"status": "interrupted", **started})
            raise KeyboardInterrupt(f"resume with: {self._resume_command}") from None
        except Exception:
            if not _read_log(self.path):
                # Settings that cannot be checked leave no files behind, except those of others.
                remove_files(self.path, lambda name: name in _FILES or is_temporary(name))
                remove_if_empty(self.path)
            raise


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompletedSbc(Result):
    """Hold the result of a check, and what was checked.

    Attributes:
        result: the ranks and the conclusion.
        warnings: warnings about the configuration.
        num_simulations: the total number of simulations.
        run: the record of the configuration, as that of a run.
    """

    result: SbcResult
    warnings: tuple[str, ...]
    num_simulations: int
    run: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `sbc.json`."""
        content = super().to_dict()
        return {"status": "complete", **content.pop("result"), **content}


def create_sbc_run(config: Config, out: Path | None, *, num_simulations: int) -> SbcRun:
    """Create the directory of a check.

    Args:
        config: the configuration that is checked.
        out: a directory that does not exist; default: `runs/sbc-<number>`.
        num_simulations: the number of simulations.

    Returns:
        The check, ready to run.

    Raises:
        BnnSymmError: if a part of the configuration does not fit.
    """
    if config.warm_start:
        raise ConfigError(
            "SBC fits one method to many data sets, without a warm start; leave warm_start out"
        )
    prepared = prepare(config)
    path = new_directory(out, "sbc")
    with disk_errors(path, "choose another place with -o DIR"):
        write_text(path / "config.yaml", dump_config(prepared.config))
    return SbcRun(
        path=path,
        prepared=prepared,
        num_simulations=num_simulations,
        done=(),
        warnings=tuple(_warnings(prepared)),
    )


def resume_sbc_run(
    path: Path, *, num_simulations: int | None, module: str | Sequence[str] | None = None
) -> SbcRun:
    """Resume a check, or add simulations to one.

    Args:
        path: its directory.
        num_simulations: the total number; None for the number given when it was created.
        module: code of the user that the run names, which has to be given again.

    Returns:
        The check, ready to run.

    Raises:
        InvalidRun: if it does not exist, or its data or versions have changed.
    """
    if not (path / "sbc.json").exists() or not (path / "config.yaml").exists():
        raise InvalidRun(
            f"{path} is not a directory of simulation-based calibration; name one that "
            "`bnn-symm sbc` wrote"
        )
    former = RunDirectory.read_json(path / "sbc.json")
    prepared = prepare(with_code(load_config(path / "config.yaml"), module))
    record, before = prepared.record(), former.get("run", {})
    if isinstance(before.get("dataset"), dict):  # Checks of former versions have fewer keys.
        record["dataset"] = {
            key: value for key, value in record["dataset"].items() if key in before["dataset"]
        }
    changed = [name for name in _CONSTANT_KEYS if before.get(name) != record.get(name)]
    if changed:
        raise InvalidRun(
            f"{path} was created with another {', '.join(changed)}: its simulations cannot be "
            "continued; start a new check with -o DIR"
        )
    done = _read_log(path)
    total = num_simulations or former["num_simulations"]
    kept = tuple(simulation for simulation in done if simulation.index < total)
    if len(kept) < len(done):
        raise InvalidRun(
            f"{path} already has {len(done)} simulations; request at least as many with "
            "--simulations"
        )
    return SbcRun(
        path=path,
        prepared=prepared,
        num_simulations=total,
        done=kept,
        warnings=tuple(_warnings(prepared)),
    )


def _line(simulation: SimulatedFit) -> str:
    """Return the line of a simulation in `simulations.jsonl`."""
    return json.dumps(simulation.to_dict(), allow_nan=False) + "\n"


def _read_log(path: Path) -> list[SimulatedFit]:
    """Return the simulations by number, without incomplete lines and without duplicates."""
    simulations: dict[int, SimulatedFit] = {}
    log = path / "simulations.jsonl"
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        with contextlib.suppress(ValueError, TypeError):
            simulation = SimulatedFit.from_dict(json.loads(line))
            simulations.setdefault(simulation.index, simulation)
    return [simulations[index] for index in sorted(simulations)]


def _warnings(prepared: Prepared) -> Iterator[str]:
    """Yield warnings about configurations that SBC cannot check well."""
    method, parameters = prepared.config.inference, prepared.model.num_parameters
    if method.temperature != 1:
        yield (
            f"inference.temperature is {method.temperature:g}: only at 1 is the fitted "
            "distribution the posterior of the model that generates the data; ranks are not "
            "expected to be uniform"
        )
    if parameters > _LARGE:
        yield (
            f"the model has {parameters} parameters, and every simulation fits it; SBC is for "
            "small models, such as --set architecture.widths=[4] data.limit=100"
        )
