"""Test that the key of a fit depends on everything that changes its result, and nothing else."""

import dataclasses
import shutil
from typing import Literal, Union, get_args, get_origin

import numpy as np
import pandas as pd
import pytest

from bnn_symm.runs import fit_run, load_config
from bnn_symm.runs.configuration.config import _ANNOTATED, _SECTIONS, _fields, _variants
from bnn_symm.runs.configuration.prepare import prepare
from bnn_symm.studies.keys import fit_key

TINY = ["data.name=table.csv", "data.target=y", "architecture.widths=[3]", "inference.num_steps=2"]


@pytest.fixture(autouse=True)
def _table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table("table.csv")


def write_table(path, seed=0, header="a,b,y"):
    rows = np.random.default_rng(seed).normal(size=(60, 3))
    np.savetxt(path, rows, delimiter=",", header=header, comments="", fmt="%.4f")


def key(*overrides):
    return fit_key(prepare(load_config(None, [*TINY, *overrides])))


@pytest.mark.parametrize(
    "change",
    [
        *(
            "seed=1",
            "dtype=float64",
            "threads=2",
            "data.split_seed=1",
            "data.limit=30",
            "data.gap_feature=a",
        ),
        *(
            "data.gap_feature=b",
            "data.standardize=false",
            "data.test_fraction=0.3",
            "data.validation_fraction=0.2",
        ),
        *(
            "data.target=a",
            "data.target=b",
            "architecture.widths=[4]",
            "architecture.activation=tanh",
        ),
        *(
            "architecture.norm=layer",
            "architecture.dropout=0.1",
            "architecture.symmetry.kind=sigma_asymmetric",
        ),
        *("likelihood.noise=0.1", "likelihood.log_noise_mean=0.5", "likelihood.log_noise_sd=0.5"),
        *("likelihood.name=heteroscedastic_gaussian", "inference.name=map", "warm_start=[map]"),
        *(
            "warm_start=[{name: map, num_steps: 3}]",
            "prior.name=laplace",
            "prior.scale=2",
            "prior.scale=fan_in",
        ),
        *("inference.early_stopping={}", "inference.early_stopping={patience: 2}"),
    ],
)
def test_settings_that_change_a_result_change_the_key(change):
    assert key(change) != key()


@pytest.mark.parametrize(
    "change", ["checkpoint.every=1", "save.max_megabytes=1", "data.name=copy.csv"]
)
def test_settings_that_change_no_result_keep_the_key(change):
    shutil.copy("table.csv", "copy.csv")
    assert key(change) == key()


def test_a_column_that_is_left_out_is_not_in_the_key():
    table = pd.read_csv("table.csv")
    before = key()
    table.assign(id=range(len(table))).to_csv("table.csv", index=False)
    assert key("data.drop=id") == before
    assert key("data.drop=[id, a]") != before


def test_keys_of_different_fits_differ():
    changes = [
        "",
        "data.gap_feature=a",
        "data.gap_feature=b",
        "data.split_seed=1",
        "data.split_seed=2",
        "data.limit=20",
    ]
    changes += [
        "data.target=a",
        "data.target=b",
        "data.standardize=false",
        "data.validation_fraction=0",
    ]
    assert len({key(*filter(None, [change])) for change in changes}) == len(changes)


def other_value(annotation, value):
    """Return another value of the same type; None if none can be generated."""
    kinds = (
        get_args(annotation)
        if get_origin(annotation) in (Union, type(int | str))
        else (annotation,)
    )
    for kind in kinds:
        if get_origin(kind) is Literal:
            others = [one for one in get_args(kind) if one != value]
            if others:
                return others[0]
        base = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
        if base is bool:
            return not value
        if base is int:
            return value + 1 if isinstance(value, int) else 3
        if base is float:
            least = [getattr(bound, "gt", None) for bound in _bounds(kind)]
            other = 0.25 + max(filter(None, least), default=0)
            return value * 0.95 if isinstance(value, float) and value else other
    return None


def _bounds(kind):
    """Return the bounds of an annotated number."""
    fields = getattr(kind, "__metadata__", ())
    return [bound for field in fields for bound in getattr(field, "metadata", ())]


def leaves():
    """(section, name of its variant, dotted key, other value) of every setting that a machine can
    change."""
    found = []
    for section, cls in _SECTIONS.items():
        found += [(section, None, *leaf) for leaf in _leaves(cls)]
    for section in _ANNOTATED:
        for name, cls in _variants(section).items():
            found += [(section, name, *leaf) for leaf in _leaves(cls)]
    return [leaf for leaf in found if leaf[0] not in ("checkpoint", "save") and leaf[1] != "module"]


def _leaves(cls, prefix=""):
    for name, field in _fields(cls).items():
        if dataclasses.is_dataclass(field.type):
            yield from _leaves(field.type, f"{prefix}{name}.")
            continue
        default = field.default
        if default is dataclasses.MISSING or name == "name":
            continue
        value = other_value(field.type, getattr(default, "default", default))
        if value is not None:
            yield f"{prefix}{name}", value


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: f"{leaf[0]}-{leaf[1]}-{leaf[2]}")
def test_every_setting_is_in_the_key(leaf):
    """Test the key of the configuration alone, without checking that values fit the data."""
    section, variant, name, value = leaf
    prepared = prepare(load_config(None, TINY))
    plain = {"name": variant} if variant else {}
    *path, last = name.split(".")
    changed = {**plain, last: value}
    if path == ["symmetry"]:  # its keys need a kind
        plain["symmetry"] = {} if last == "kind" else {"kind": "weight_asymmetric"}
        changed = {**plain, "symmetry": {**plain["symmetry"], last: value}}
    assert _key_of(prepared, {section: changed}) != _key_of(prepared, {section: plain})


def _key_of(prepared, raw):
    from bnn_symm.runs import parse_config

    config = parse_config(raw)
    config = dataclasses.replace(config, likelihood=config.likelihood or prepared.config.likelihood)
    return fit_key(dataclasses.replace(prepared, config=config))


def test_the_order_of_prior_overrides_is_in_the_key():
    first, second = "'layers.*': {scale: 2}", "'*.weight': {scale: 3}"
    keys = {
        key(f"prior.overrides={{{', '.join(order)}}}")
        for order in ((first, second), (second, first))
    }
    assert len(keys) == 2


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"header": "a,c,y"}], ids=["values", "names of columns"]
)
def test_a_file_that_changed_has_another_key(changed):
    before = key()
    write_table("table.csv", **changed)
    assert key() != before


def test_fixed_splits_of_one_file_have_different_keys(monkeypatch, tmp_path):
    folder = tmp_path / "uci" / "toy"
    folder.mkdir(parents=True)
    np.savetxt(folder / "data.txt", np.random.default_rng(0).normal(size=(40, 3)))
    np.savetxt(folder / "index_features.txt", [0, 1])
    np.savetxt(folder / "index_target.txt", [2])
    for split in range(3):
        rows = np.random.default_rng(split).permutation(40)
        np.savetxt(folder / f"index_train_{split}.txt", rows[:30])
        np.savetxt(folder / f"index_test_{split}.txt", rows[30:])
    monkeypatch.setenv("BNN_SYMM_DATA", str(tmp_path))
    keys = [key(f"data.name=uci/toy/{split}", "data.target=") for split in range(3)]
    assert len(set(keys)) == 3
    np.savetxt(folder / "index_test_0.txt", rows[30:])
    np.savetxt(folder / "index_train_0.txt", rows[:30])
    assert key("data.name=uci/toy/0", "data.target=") == keys[2]


@pytest.mark.thorough
def test_the_weights_that_a_fit_starts_from_are_in_the_key():
    for seed in (0, 1):
        fit_run(load_config(None, [*TINY, f"seed={seed}"]), f"run-{seed}")
    first, second = (key(f"initial=run-{seed}") for seed in (0, 1))
    assert first != second
    shutil.move("run-0", "moved")
    assert key("initial=moved") == first
    shutil.copy("run-1/posterior.nc", "moved/posterior.nc")
    means = [key(f"prior.mean=run-{seed}") for seed in (1, 1)]
    assert means[0] == means[1] != key()
