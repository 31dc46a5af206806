"""Keys of the tasks of a study: hashes of everything that a result depends on.

The key of a fit covers the settings that are not at their defaults, the values of the data and the
rows of each of their parts, what these mean (columns, labels, task), what is fixed at random in the
network, constants of a network of the user's own, the weights that a fit or a prior starts from,
and the version of the numerics. That of a pair covers its two fits and how it is measured. Names of
files are not part of a key: a data set is what is in it, wherever it lies.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bnn_symm.architectures import fingerprint
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.prepare import Prepared
from bnn_symm.runs.directory.run_directory import RunDirectory

NUMERICS = 3
"""To be raised whenever equal settings give other numbers than before: results under the old number
are kept apart."""

_DIGITS = 16  # of a key, in hexadecimal


def fit_key(prepared: Prepared) -> str:
    """Return the key of a fit: equal settings of equal data have equal keys, on every machine."""
    config, dataset = prepared.config, prepared.dataset
    own = TypeAdapter(Config).dump_python(config, mode="json", exclude_defaults=True)
    for section in ("checkpoint", "save"):  # these do not change what is fitted
        own.pop(section, None)
    # Names are the defaults of their own section, and would be left out.
    names: dict[str, Any] = {
        section: getattr(config, section).name
        for section in ("architecture", "inference", "likelihood")
    }
    if config.warm_start:
        names["warm_start"] = [method.name for method in config.warm_start]
    if prepared.prior_mean is not None:  # a path in the settings; the hash says what is there
        own["prior"]["mean"] = prepared.prior_mean.sha256
    if config.prior.overrides:  # the last that matches wins, and keys of objects are sorted below
        own["prior"]["overrides"] = list(own["prior"]["overrides"].items())
    if config.initial is not None:
        own["initial"] = _weights(prepared, config.initial)
    if "data" in own:
        own["data"].pop("name", None)
    meaning = {
        key: value for key, value in dataset.preprocessing.to_dict().items() if key != "scaling"
    }
    return _key(
        {
            "config": own,
            "names": names,
            "data": data_identity(prepared),
            "meaning": meaning,
            "mask": fingerprint(prepared.model.net),
            **({"constants": prepared.network.fingerprint} if prepared.network else {}),
            "numerics": NUMERICS,
        }
    )


def data_identity(prepared: Prepared) -> tuple[str, str | None]:
    """Return what is equal for equal values in equal parts, and for nothing else."""
    provenance = prepared.dataset.provenance
    return provenance.sha256, provenance.split_sha256


def pair_key(first: str, second: str, measured: Mapping[str, Any]) -> str:
    """Return the key of a pair.

    Args:
        first: key of a fit.
        second: key of another.
        measured: how the barrier between them is.
    """
    return _key({"cells": [first, second], "measured": dict(measured), "numerics": NUMERICS})


def _weights(prepared: Prepared, path: str) -> str:
    """Return a hash of the posterior that a fit starts from: its file, or its mean where the run
    has not ended.
    """
    digest = hashlib.sha256()
    file = RunDirectory(Path(path)).posterior
    if file.is_file():
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    assert prepared.initial is not None
    digest.update(prepared.initial.mean().double().cpu().numpy().tobytes())
    return digest.hexdigest()


def _key(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
