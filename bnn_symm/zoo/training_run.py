"""Train a zoo into a directory, and resume one.

A batch of networks is written when it is complete, so that an interruption loses only the batches
that are being trained. Networks depend only on the seed and on their number, up to rounding:
a resumed or extended zoo has those of an uninterrupted one.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnn_symm.advice import advise
from bnn_symm.architectures import fingerprint
from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError, InvalidRun, shell_words
from bnn_symm.inference.parallel.worker_pool import map_unordered
from bnn_symm.io.atomic import is_temporary, remove_files, remove_if_empty, write_json, write_text
from bnn_symm.models import BayesianModel
from bnn_symm.runs.configuration.prepare import Prepared, prepare
from bnn_symm.runs.directory.output_directory import disk_errors, new_directory
from bnn_symm.runs.run import code_of, module_flags
from bnn_symm.symmetry import symmetry_group
from bnn_symm.zoo.config import HYPERPARAMETERS, ZooConfig, ZooPlan
from bnn_symm.zoo.directory import Arrays, read_zoo, stored_batches, write_arrays
from bnn_symm.zoo.scores import BARRIER, midpoint_barriers, score_networks
from bnn_symm.zoo.training import check_batch, train_networks

# Networks that are trained together. On one core, 50 networks took 30 ms a step, 200 took 60 ms.
_BATCH = 100
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Keys of the record of a zoo that must not change when it is resumed.
_CONSTANT_KEYS = ("dataset", "mask_fingerprint", "num_parameters", "versions", "prior_mean", "code")

_FILES = ("config.yaml", "zoo.json")

OnNetworks = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class ZooRun:
    """A zoo that is ready to be trained.

    Attributes:
        path: its directory.
        prepared: the prepared configuration.
        config: the section `zoo`.
        num_networks: the total number of networks.
        done: arrays of the networks that are already there, by the number of their first.
    """

    path: Path
    prepared: Prepared
    config: ZooConfig
    num_networks: int
    done: Mapping[int, Arrays]

    @property
    def num_done(self) -> int:
        """Return the number of networks that are already there."""
        return sum(len(arrays["weights"]) for arrays in self.done.values())

    def run(
        self, *, jobs: int = 1, on_networks: OnNetworks = lambda number: None
    ) -> dict[str, Any]:
        """Train the missing networks and write `networks.npz`.

        Args:
            jobs: number of processes, each with a batch of networks.
            on_networks: called with the number of networks of each batch that is on the disk.

        Returns:
            The content of `zoo.json`.

        Raises:
            KeyboardInterrupt: if it was interrupted; the message has the command that resumes it.
        """
        flags = module_flags(code_of(self.prepared.config))
        resume = f"bnn-symm {shell_words('zoo', 'train', '--resume', self.path)}{flags}"
        folder = self.path / "networks"
        batches = dict(self.done)
        with disk_errors(self.path, f"free disk space and resume with: {resume}"):
            folder.mkdir(exist_ok=True)
            write_json(self.path / "zoo.json", self._content("running"))
            with self._interruptions(resume):
                data = self.prepared.dataset.to(self.prepared.model.device)
                config, seed = self.config, self.prepared.config.seed
                work = _Batch(self.prepared.model, data, config, seed, tuple(self._missing()))
                for start, arrays in map_unordered(work, range(len(work.ranges)), jobs=jobs):
                    write_arrays(folder / f"{start:06d}.npz", arrays)
                    batches[start] = arrays
                    on_networks(len(arrays["weights"]))
            return self._finish([batches[start] for start in sorted(batches)])

    def _missing(self) -> Iterator[range]:
        """Yield the numbers of the missing networks in batches."""
        start = 0
        ends = {first: first + len(arrays["weights"]) for first, arrays in self.done.items()}
        for first in sorted([*ends, self.num_networks]):
            yield from (range(i, min(i + _BATCH, first)) for i in range(start, first, _BATCH))
            start = ends.get(first, first)

    def _finish(self, batches: Sequence[Arrays]) -> dict[str, Any]:
        """Write the result, and remove the files of batches."""
        arrays = {name: np.concatenate([own[name] for own in batches]) for name in batches[0]}
        weights = torch.from_numpy(arrays["weights"]).to(self.prepared.model.device)
        arrays[f"score.{BARRIER}"] = midpoint_barriers(
            self.prepared.model, self.prepared.dataset, weights, arrays["score.nll"]
        )
        write_arrays(self.path / "networks.npz", arrays)
        content = self._content("complete", arrays)
        write_json(self.path / "zoo.json", content)
        shutil.rmtree(self.path / "networks")
        return content

    def _content(self, status: str, arrays: Arrays | None = None) -> dict[str, Any]:
        """Return the content of `zoo.json`."""
        model, dataset = self.prepared.model, self.prepared.dataset
        group = symmetry_group(model.net, input_shape=dataset.input_shape)
        return {
            "status": status,
            "num_networks": self.num_networks,
            "input_shape": list(dataset.input_shape),
            "num_outputs": dataset.num_outputs,
            "symmetry": {
                "kind": self.prepared.config.architecture.symmetry.kind,
                "log10_order": group.log10_order,
                "certificate": group.certificate,
                "fingerprint": fingerprint(model.net),
            },
            "quantiles": list(_QUANTILES),
            **{
                f"{kind}s": {
                    name.removeprefix(f"{kind}."): np.quantile(values, _QUANTILES).tolist()
                    for name, values in (arrays or {}).items()
                    if name.startswith(f"{kind}.")
                }
                for kind in ("hyperparameter", "score")
            },
            "run": self.prepared.record(),
        }

    @contextlib.contextmanager
    def _interruptions(self, resume: str) -> Iterator[None]:
        """Record an interruption, and remove the directory if no network was trained."""
        try:
            yield
        except KeyboardInterrupt:
            write_json(self.path / "zoo.json", self._content("interrupted"))
            raise KeyboardInterrupt(f"resume with: {resume}") from None
        except Exception:
            if not self.done and not list((self.path / "networks").glob("[0-9]*.npz")):
                # Settings that cannot be trained leave no files behind, except those of others.
                shutil.rmtree(self.path / "networks")
                remove_files(self.path, lambda name: name in _FILES or is_temporary(name))
                remove_if_empty(self.path)
            raise


@dataclass(frozen=True)
class _Batch:
    """Trains and scores a batch of networks, possibly in another process."""

    model: BayesianModel
    dataset: Dataset
    config: ZooConfig
    seed: int
    ranges: tuple[range, ...]

    def __call__(self, number: int) -> tuple[int, Arrays]:
        """Return the number of the first network of a batch, and the arrays of all of them."""
        numbers = self.ranges[number]
        weights = train_networks(self.model, self.dataset, self.config, self.seed, numbers)
        own = [self.config.hyperparameters(self.seed, i) for i in numbers]
        scores = score_networks(self.model, self.dataset, weights)
        return numbers.start, {
            "weights": weights.cpu().numpy(),
            **{f"hyperparameter.{k}": np.array([h[k] for h in own]) for k in HYPERPARAMETERS},
            **{f"score.{name}": values for name, values in scores.items()},
        }


def create_zoo(plan: ZooPlan, out: Path | None = None, *, num_networks: int) -> ZooRun:
    """Create the directory of a zoo.

    Args:
        plan: its configuration.
        out: a directory that does not exist; default: `runs/zoo-<number>`.
        num_networks: the number of networks.

    Returns:
        The zoo, ready to be trained.

    Raises:
        BnnSymmError: if a part of the configuration does not fit.

    Example:
        >>> from bnn_symm.zoo import create_zoo, load_zoo, load_zoo_plan
        >>> run = create_zoo(load_zoo_plan(), num_networks=200)  # doctest: +SKIP
        >>> run.run(jobs=2)["scores"]["nll"]  # doctest: +SKIP
        >>> load_zoo(run.path).weights.shape  # doctest: +SKIP
    """
    prepared = prepare(plan.base)
    _check(prepared)
    path = new_directory(out, "zoo")
    with disk_errors(path, "choose another place with -o DIR"):
        write_text(path / "config.yaml", dataclasses.replace(plan, base=prepared.config).to_yaml())
    return ZooRun(
        path=path, prepared=prepared, config=plan.config, num_networks=num_networks, done={}
    )


def resume_zoo(
    path: Path, *, num_networks: int | None = None, module: str | Sequence[str] | None = None
) -> ZooRun:
    """Resume the training of a zoo, or add networks to one.

    Args:
        path: its directory.
        num_networks: the total number; None for the number given when it was created.
        module: code of the user that the configuration names, which has to be given again.

    Returns:
        The zoo, ready to be trained.

    Raises:
        InvalidRun: if it does not exist, or its data or versions have changed.
    """
    former, plan = read_zoo(path, module)
    prepared = prepare(plan.base)
    record, before = prepared.record(), former.get("run", {})
    changed = [name for name in _CONSTANT_KEYS if before.get(name) != record.get(name)]
    if changed:
        raise InvalidRun(
            f"{path} was created with another {', '.join(changed)}: its networks cannot be "
            f"continued; train a new zoo {advise('with -o DIR', 'in another directory')}"
        )
    done = stored_batches(path)
    total = num_networks or former["num_networks"]
    num_done = max((first + len(own["weights"]) for first, own in done.items()), default=0)
    if num_done > total:
        raise InvalidRun(
            f"{path} already has {num_done} networks; request at least as many"
            f"{advise(' with --networks', '')}"
        )
    return ZooRun(path=path, prepared=prepared, config=plan.config, num_networks=total, done=done)


def _check(prepared: Prepared) -> None:
    """Refuse configurations whose networks cannot be trained or scored."""
    if len(prepared.dataset.test) == 0:
        raise ConfigError(
            "a zoo needs a test split, on which networks are scored; raise data.test_fraction"
        )
    check_batch(prepared.model, prepared.dataset.to(prepared.model.device))
