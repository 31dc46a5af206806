"""Compute keys of the tasks of a study: hashes of everything that a result depends on.

The key of a fit covers the settings that differ from their defaults; the values of the data, their
split and their meaning (columns, labels, task); the random fixed values and masks of the network;
the constants of a custom network; the source of a custom likelihood or prior; the weights that a
fit or a prior starts from; and the version of the numerics. The key of a pair covers its two fits
and how their barrier is measured. File names are not part of a key: a data set is identified by its
content.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bnn_symm.architectures import fingerprint, fingerprint_of
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.prepare import Prepared
from bnn_symm.runs.directory.code_record import code_record
from bnn_symm.runs.directory.run_directory import RunDirectory

NUMERICS = 3
"""Version of the numerics, increased when equal settings give other numbers than before.

Results of different versions have different keys.
"""

_DIGITS = 16  # of a key, in hexadecimal


def fit_key(prepared: Prepared) -> str:
    """Return the key of a fit: equal settings of equal data have equal keys on every machine.

    Args:
        prepared: the fit with its data and its network.

    Returns:
        The key, in hexadecimal.
    """
    config, dataset = prepared.config, prepared.dataset
    changed = TypeAdapter(Config).dump_python(config, mode="json", exclude_defaults=True)
    for section in ("checkpoint", "save"):  # they do not change the result
        changed.pop(section, None)
    # A name is the default of its section, and would be left out.
    names: dict[str, Any] = {
        section: getattr(config, section).name
        for section in ("architecture", "inference", "likelihood")
    }
    if config.warm_start:
        names["warm_start"] = [method.name for method in config.warm_start]
    if prepared.prior_mean is not None:  # a path in the settings, replaced by a hash of the content
        changed["prior"]["mean"] = prepared.prior_mean.sha256
    if config.prior.overrides:  # their order matters, but keys of objects are sorted below
        changed["prior"]["overrides"] = list(changed["prior"]["overrides"].items())
    if config.initial is not None:
        changed["initial"] = _weights_hash(prepared, config.initial)
    # Where the values come from; they are hashed themselves.
    for key in ("name", "drop", "test_file", "validation_file"):
        changed.get("data", {}).pop(key, None)
    meaning = {
        key: value for key, value in dataset.preprocessing.to_dict().items() if key != "scaling"
    }
    return _key(
        {
            "config": changed,
            "names": names,
            "data": data_identity(prepared),
            "meaning": meaning,
            "mask": fingerprint(prepared.model.net),
            **({"constants": prepared.network.fingerprint} if prepared.network else {}),
            **({"code": code} if (code := code_record(config, prepared.model)) else {}),
            **({"fixed": fingerprint_of(fixed)} if (fixed := prepared.fixed_parameters) else {}),
            "numerics": NUMERICS,
        }
    )


def data_identity(prepared: Prepared) -> tuple[str, str | None]:
    """Return the hashes of the values of a data set and of its split.

    Args:
        prepared: a fit with its data.

    Returns:
        The hash of the values and that of the split.
    """
    provenance = prepared.dataset.provenance
    return provenance.sha256, provenance.split_sha256


def pair_key(first: str, second: str, measured: Mapping[str, Any]) -> str:
    """Return the key of a pair.

    Args:
        first: key of the first fit.
        second: key of the second fit.
        measured: the options of the barrier between them.

    Returns:
        The key, in hexadecimal.
    """
    return _key({"cells": [first, second], "measured": dict(measured), "numerics": NUMERICS})


def _weights_hash(prepared: Prepared, path: str) -> str:
    """Return a hash of the posterior that a fit starts from.

    It is the hash of its file, or of its mean if the run has not ended.
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
