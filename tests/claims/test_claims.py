"""Claims are judged by their rules: planted effects, planted controls, and the ledger itself."""

import json
import sys
import types

import numpy as np
import pytest

from bnn_symm.errors import ConfigError, InvalidData
from claims import claim as claims_claim
from claims import page, rows
from claims.__main__ import main
from claims.claim import Claim, load_claim, load_claims
from claims.judgement import EXPLAINED, FAILS, HOLDS, INCONCLUSIVE, judge
from claims.rows import Rows, check_settings, run_experiment, study_rows

LEDGER = load_claims()


def term(setting: str, measure: str = "loss", **keys) -> dict:
    return {"setting": setting, "measure": measure, **keys}


def claim(expected: dict, *, controls: tuple = (), **effect) -> Claim:
    return Claim(
        name="planted",
        paper="Lim",
        sentence="A sentence.",
        experiment="none",
        effect=effect or {"of": term("treated"), "minus": term("standard")},
        expected=expected,
        controls=controls,
    )


def planted(**means: float) -> Rows:
    """Return six seeds of each setting, with the given means and a small common noise."""
    noise = np.random.default_rng(0).normal(size=(6, 1 + len(means)))
    return Rows(
        [
            {"setting": name, "unit": seed, "loss": mean + noise[seed, 0] + 0.1 * noise[seed, i]}
            for i, (name, mean) in enumerate(means.items(), start=1)
            for seed in range(6)
        ]
    )


@pytest.mark.parametrize(
    ("expected", "verdict"),
    [
        ({"below": 0}, HOLDS),
        ({"above": 0}, FAILS),
        ({"below": -1}, INCONCLUSIVE),
        ({"above": -1.5, "below": -0.5}, HOLDS),
        ({"above": -0.5, "below": 0.5}, FAILS),
    ],
)
def test_a_planted_effect_of_minus_one_is_judged_by_its_range(expected, verdict) -> None:
    found = judge(claim(expected), planted(standard=5.0, treated=4.0))
    assert found.verdict == verdict
    assert found.low < -1 + 0.2
    assert found.high > -1 - 0.2
    assert (found.n, found.kind) == (6, "seeds")


@pytest.mark.parametrize(
    ("mean", "symmetry", "verdict"),
    [
        (4.2, "kept", EXPLAINED),
        (4.9, "kept", HOLDS),
        (4.9, "removed", EXPLAINED),
        (4.2, "removed", HOLDS),
    ],
)
def test_a_control_explains_the_effect_that_it_shares(mean, symmetry, verdict) -> None:
    contrast = {"of": term("control"), "minus": term("standard")}
    control = {"name": "a control", "symmetry": symmetry, "contrast": contrast}
    planted_rows = planted(standard=5.0, treated=4.0, control=mean)
    found = judge(claim({"below": 0}, controls=(control,)), planted_rows)
    assert found.verdict == verdict
    assert found.controls[0].share == pytest.approx(5 - mean, abs=0.15)


def test_ratios_are_geometric_means_and_factors_apply() -> None:
    two = Rows(
        [
            {"setting": name, "unit": seed, "loss": value * 2.0**seed}
            for name, value in (("standard", 1.0), ("treated", 0.5))
            for seed in range(3)
        ]
    )
    found = judge(claim({"below": 1}, of=term("treated"), over=term("standard")), two)
    assert (found.verdict, found.mean) == (HOLDS, pytest.approx(0.5))
    found = judge(claim({"below": 1}, of=term("treated"), over=term("standard", times=0.25)), two)
    assert (found.verdict, found.mean) == (FAILS, pytest.approx(2.0))


def test_pairs_that_share_seeds_are_judged_over_seeds() -> None:
    values = np.random.default_rng(1).normal(size=5)
    pairs = [
        {"setting": "standard", "unit": (i, j), "loss": values[i] + values[j]}
        for i in range(5)
        for j in range(i)
    ]
    found = judge(claim({"above": -9}, of=term("standard")), Rows(pairs))
    assert (found.n, found.kind) == (5, "pairs of seeds")


def test_equal_values_are_exact() -> None:
    exact = Rows([{"setting": "standard", "unit": seed, "loss": 0.0} for seed in range(3)])
    found = judge(claim({"below": 0.1}, of=term("standard")), exact)
    assert (found.verdict, found.low, found.high) == (HOLDS, 0.0, 0.0)
    assert judge(claim({"above": 0}, of=term("standard")), exact).verdict == FAILS


def test_missing_rows_are_errors() -> None:
    with pytest.raises(InvalidData, match=r"'loss' in setting 'treated'; the settings are standar"):
        judge(claim({"below": 0}), planted(standard=1.0))
    apart = [{"setting": s, "unit": i, "loss": 1.0} for i, s in enumerate(("standard", "treated"))]
    with pytest.raises(InvalidData, match="no seed in common"):
        judge(claim({"below": 0}), Rows(apart))
    single = Rows([{"setting": "standard", "unit": 0, "loss": 1.0}])
    with pytest.raises(InvalidData, match="no interval"):
        judge(claim({"below": 0}, of=term("standard")), single)
    negative = Rows([{"setting": s, "unit": 0, "loss": -1.0} for s in ("standard", "treated")])
    with pytest.raises(InvalidData, match="positive"):
        judge(claim({"below": 1}, of=term("treated"), over=term("standard")), negative)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paper: Nobody", "unknown paper 'Nobody'"),
        ("expected: {}", "`expected` needs"),
        ("expected: {above: 1, below: 0}", "1 is not less than"),
        ("verdict: holds", "verdict"),
    ],
)
def test_an_invalid_file_is_named(tmp_path, text, message) -> None:
    valid = {
        "paper": "Lim",
        "sentence": "A.",
        "experiment": "e",
        "effect": "{of: {setting: a, measure: b}}",
        "expected": "{below: 0}",
    }
    key, _, value = text.partition(": ")
    content = "\n".join(f"{name}: {entry}" for name, entry in {**valid, key: value}.items())
    (tmp_path / "broken.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        load_claim("broken", tmp_path)
    assert "broken.yaml" in str(error.value)


def test_a_module_is_measured_once_for_each_replicate(tmp_path, monkeypatch, capsys) -> None:
    calls = []

    def measure(replicate, runs):
        calls.append(replicate)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [
            {"setting": "a", "loss": float(replicate)},
            {"setting": "pair", "seed": replicate, "other_seed": 9, "loss": 1.0},
        ]

    module = types.SimpleNamespace(REPLICATES=3, measure=measure)
    monkeypatch.setitem(sys.modules, "claims.experiments.planted", module)
    (tmp_path / "planted.py").touch()
    monkeypatch.setattr(rows, "FOLDER", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_experiment("planted", tmp_path / "runs")
    found = run_experiment("planted", tmp_path / "runs")
    assert calls == [0, 1, 1, 2]
    assert dict(found.values("a", "loss")) == {0: 0.0, 1: 1.0, 2: 2.0}
    assert [unit for unit, _ in found.values("pair", "loss")] == [(0, 9), (1, 9), (2, 9)]
    assert found.seconds >= 0
    with pytest.raises(ConfigError, match="no experiment 'other'"):
        run_experiment("other", tmp_path / "runs")


def test_tables_of_a_study_are_rows(tmp_path) -> None:
    head = "setting,seed,status,seconds,test_nll\n"
    (tmp_path / "cells.csv").write_text(head + "standard,0,complete,2,0.5\nstandard,1,failed,,\n")
    (tmp_path / "pairs.csv").write_text(
        "relation,setting,other_setting,seed,other_seed,status,naive\n"
        "across_seeds,standard,standard,0,1,complete,1.5\n"
        "within_seed,standard,other,0,0,complete,9\n"
    )
    found = study_rows(tmp_path)
    assert dict(found.values("standard", "test_nll")) == {0: 0.5}
    assert dict(found.values("standard", "naive")) == {(0, 1): 1.5}
    assert found.seconds == 2


def test_a_result_of_another_rule_does_not_count(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    own = claim({"below": 0})
    found = judge(own, planted(standard=5.0, treated=4.0))
    (tmp_path / "planted.json").write_text(
        json.dumps({**found.to_dict(), "seconds": 60, "machine": "2 cores"})
    )
    assert page.result_of(own)["verdict"] == HOLDS
    assert page.result_of(claim({"below": 1})) is None
    assert "6 seeds" not in page.text([claim({"below": 1})])
    assert "**holds** | -1" in page.text([own])


@pytest.mark.parametrize("own", LEDGER, ids=lambda own: own.name)
def test_the_ledger_names_experiments_and_its_results_are_current(own) -> None:
    folder = claims_claim.FOLDER.parent / "experiments"
    assert any((folder / f"{own.experiment}{end}").exists() for end in (".yaml", ".py"))
    check_settings(own.experiment, own.setting_labels)
    path = page.RESULTS / f"{own.name}.json"
    assert not path.exists() or page.result_of(own) is not None


def test_a_setting_that_a_study_lacks_is_refused_before_it_runs() -> None:
    with pytest.raises(ConfigError, match=r"'narrow' in digits_vi.yaml; the settings are standard"):
        check_settings("digits_vi", ["standard", "narrow"])


def test_the_page_is_that_of_the_results() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.text(LEDGER)


def test_the_command_lists_claims_and_refuses_unknown_ones(capsys) -> None:
    assert main(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(LEDGER)
    assert main(["run", "nothing"]) == 2
    assert "no claim 'nothing'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["run"])
