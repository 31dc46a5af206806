"""Test the settings of a study, their roles, and the keys of its tasks."""

import dataclasses

import pytest
import yaml

from bnn_symm.errors import ConfigError
from bnn_symm.studies.plan import plan_study
from bnn_symm.studies.study import load_study
from bnn_symm.symmetry import symmetry_group

BASE = {
    "data": {"name": "digits", "limit": 200},
    "architecture": {"widths": [8, 8]},
    "inference": {"num_steps": 20},
    "study": {
        "vary": {"architecture.symmetry.kind": ["standard", "weight_asymmetric"]},
        "controls": ["init_matched", "parameter_matched"],
        "seeds": 2,
    },
}


@pytest.fixture
def study(tmp_path):
    def make(*overrides, **sections):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**BASE, **sections}))
        return load_study(path, overrides)

    return make


def keys(configured):
    return [fit.key for fit in plan_study(configured).fits]


def test_controls_are_added_at_every_point_of_the_grid(study):
    configured = study(
        'study.vary={"architecture.symmetry.kind":[standard,weight_asymmetric],"architecture.activation":[relu,tanh]}'
    )
    settings = configured.settings()
    assert len(settings) == 2 * 4
    assert [setting.role for setting in settings[:4]] == [
        "baseline",
        "asymmetric",
        "keeps_symmetry",
        "keeps_symmetry",
    ]
    assert [setting.context for setting in settings] == ["activation=relu"] * 4 + [
        "activation=tanh"
    ] * 4
    assert len({setting.label for setting in settings}) == 8
    assert {config.seed for setting in settings for config in setting.configs} == {0, 1}


def test_fits_of_a_seed_differ_only_in_the_symmetry(study):
    first, second = (setting.configs[0] for setting in study().settings()[:2])
    same = dataclasses.replace(second.architecture, symmetry=first.architecture.symmetry)
    assert dataclasses.replace(second, architecture=same) == first


def test_controls_with_and_without_symmetry_have_different_roles(study):
    configured = study(
        "study.controls=[{kind: weight_asymmetric, kappa: 0}, {kind: block_fixed, block: 1}, "
        "parameter_matched]"
    )
    roles = {setting.label: setting.role for setting in configured.settings()}
    assert roles["weight_asymmetric, kappa=0"] == "breaks_symmetry"
    assert roles["parameter_matched"] == "keeps_symmetry"
    assert roles["block_fixed"] == "breaks_symmetry"


def test_unused_keys_of_a_kind_create_no_setting(study):
    kinds = '"architecture.symmetry.kind": [standard, weight_asymmetric]'
    vary = f'{{{kinds}, "architecture.symmetry.kappa": [0, 0.5, 1]}}'
    configured = study(f"study.vary={vary}", "study.controls=[]")
    assert [setting.kind for setting in configured.settings()].count("standard") == 1
    assert len(configured.settings()) == 4


def test_whole_sections_can_vary(study):
    configured = study(
        'study.vary={"inference": [{name: map, num_steps: 5}, {name: mean_field_vi, num_steps: '
        "7}]}",
        "study.controls=[]",
    )
    assert [setting.configs[0].inference.num_steps for setting in configured.settings()] == [5, 7]


def test_labels_of_methods_contain_their_differing_settings(study):
    laplace = "{name: laplace, structure: diagonal}, {name: laplace, structure: last_layer}"
    configured = study(
        f'study.vary={{"inference": [{{name: map}}, {laplace}, {{name: sgld}}]}}',
        "study.controls=[]",
    )
    assert [setting.context for setting in configured.settings()] == [
        "map",
        "laplace, structure=diagonal",
        "laplace, structure=last_layer",
        "sgld",
    ]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("study.sedes=3", "seeds"),
        ("study.pairs.across=all", "across_seeds"),
        ("study.vary.seed=[1]", "study.seeds"),
        ("study.seeds=0", "study.seeds"),
        ("study.controls=[unmatched]", "study.controls"),
        ("study.controls=[{block: 2}]", "kind"),
        ("study.controls=[{kind: block_fixed, blok: 2}]", "block"),
        ("seed=3", "study.seeds"),
        ("inference.num_step=3", "num_steps"),
        ('study.vary={"architecture.width": [[3]]}', "widths"),
        ('study.vary={"inference.num_steps": []}', "study.vary"),
        ('study.vary={"architecture.symmetry.kind": [asymmetric]}', "unknown kind"),
    ],
)
def test_invalid_studies_are_refused_with_a_suggestion(study, override, words):
    with pytest.raises(ConfigError, match=words):
        study(override)


def test_a_study_is_not_a_fit_and_a_fit_is_not_a_study(tmp_path, study):
    from bnn_symm.runs import load_config

    study()
    with pytest.raises(ConfigError, match="run_study"):
        load_config(tmp_path / "study.yaml")
    (tmp_path / "fit.yaml").write_text("inference: {num_steps: 3}")
    with pytest.raises(ConfigError, match="no section `study`"):
        load_study(tmp_path / "fit.yaml")


@pytest.mark.thorough
def test_keys_depend_on_all_relevant_settings_only(study):
    before = keys(study())
    assert len(set(before)) == 8
    assert keys(study()) == before
    assert (
        keys(study("checkpoint.every=1", "save.max_megabytes=1", "threads=1"))
        == keys(study("threads=1"))
        == before
    )
    # A default that is written out is no other fit.
    assert keys(study("inference.learning_rate=0.02", "inference.name=mean_field_vi")) == before
    for override in (
        "inference.num_steps=21",
        "prior.scale=2",
        "data.split_seed=1",
        "data.limit=199",
        "dtype=float64",
    ):
        assert not set(keys(study(override))) & set(before), override
    grown = keys(study("study.seeds=3"))
    assert set(before) < set(grown)
    masks = keys(study("architecture.symmetry.seed=1"))
    assert [key in before for key in masks] == [True] * 2 + [
        False
    ] * 6  # a standard network has none


def test_keys_depend_on_the_data_not_on_their_name(study, tmp_path):
    rows = "a,b,y\n" + "".join(f"{i},{i * i},{i % 7}.5\n" for i in range(60))
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text(rows)
    (tmp_path / "three.csv").write_text(rows.replace("3,9", "3,10"))
    section = {"vary": {"architecture.activation": ["relu", "tanh"]}, "seeds": 1}
    one, two, three = (
        keys(study(data={"name": str(tmp_path / name), "target": "y"}, study=section))
        for name in ("one.csv", "two.csv", "three.csv")
    )
    assert one == two
    assert not set(one) & set(three)


@pytest.mark.thorough
def test_pairs_across_and_within_seeds(study):
    plan = plan_study(study("study.seeds=4"))
    assert len(plan.pairs) == 4 * 6
    plan = plan_study(study("study.seeds=4", "study.pairs.across_seeds=disjoint"))
    assert len(plan.pairs) == 4 * 2
    plan = plan_study(study("study.pairs={across_seeds: none, within_seed: true}"))
    labels = {fit.key: plan.settings[fit.setting].label for fit in plan.fits}
    # Only the control that starts elsewhere has weights that mean what a standard network's do.
    assert {(labels[pair.first], labels[pair.second]) for pair in plan.pairs} == {
        ("standard", "init_matched")
    }
    assert len(plan.pairs) == 2


def test_asymmetric_settings_have_no_symmetry_and_controls_have_one(study):
    from bnn_symm.architectures import build_network

    for setting in study(
        "architecture.widths=[16,16]", "study.controls=[init_matched, parameter_matched]"
    ).settings():
        net = build_network(
            setting.configs[0].architecture, input_shape=(64,), num_outputs=10, seed=0
        )
        order = symmetry_group(net, input_shape=(64,)).log10_order
        assert (order == 0) == (setting.role == "asymmetric")
