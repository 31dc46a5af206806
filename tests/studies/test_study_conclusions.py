"""Test the conclusions of synthetic studies with known effects."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from bnn_symm.analyses.convergence.comparisons import compare_groups
from bnn_symm.analyses.convergence.seed_groups import SeedGroup
from bnn_symm.diagnostics.convergence.convergence import TimeToTarget
from bnn_symm.io.atomic import json_text
from bnn_symm.randomness import numpy_generator
from bnn_symm.studies.results.comparisons import compare_settings, summarize_settings
from bnn_symm.studies.results.conclusions import conclude
from bnn_symm.studies.results.narrative import Answer, Cause, ControlVerdict
from tests.golden import golden

ROLES = {
    **{"standard": "baseline", "weight_asymmetric": "asymmetric", "sigma_asymmetric": "asymmetric"},
    **dict.fromkeys(("init_matched", "parameter_matched", "block_fixed"), "keeps_symmetry"),
}
ALL_CONTROLS = ("init_matched", "parameter_matched", "block_fixed")


def noise(*key, size):
    return numpy_generator(0, "study", *key).standard_normal(size)


class Synthetic:
    """A study with kinds in one or several contexts, and values that the test sets."""

    def __init__(self, kinds, *, num_seeds=5, contexts=("all runs",)):
        self.num_seeds = num_seeds
        self.settings, self.cells, self.pairs = [], [], []
        self.contexts = [
            {"label": label, "convergence": None, "convergence_reason": None} for label in contexts
        ]
        for number, context in enumerate(contexts):
            for name in kinds:
                kind, _, kappa = name.partition(", kappa=")
                label = name if len(contexts) == 1 else f"{context}, {name}"
                keys = {"architecture.symmetry.kappa": float(kappa)} if kappa else {}
                self.settings.append(
                    {
                        **{"label": label, "context": number, "kind": kind, "differences": keys},
                        "role": "breaks_symmetry" if kappa == "0" else ROLES[kind],
                        "log10_order": 0.0 if kind == "weight_asymmetric" else 89.0,
                    }
                )
                rows = {"setting": label, "context": context, "status": "complete"}
                self.cells += [{**rows, "seed": seed} for seed in range(num_seeds)]
                self.pairs += [
                    {
                        **rows,
                        "other_setting": label,
                        "relation": "across_seeds",
                        "seed": i,
                        "other_seed": j,
                    }
                    for i, j in itertools.combinations(range(num_seeds), 2)
                ]

    def set_nested(self, measure, values, *, sd=0.01, context=None):
        """Means by kind; seeds share half of their noise, as equal seeds do."""
        rows = self.pairs if measure in ("naive", "aligned") else self.cells
        for row in rows:
            own = row["setting"].split(", ", 1)[1] if len(self.contexts) > 1 else row["setting"]
            if own in values and context in (None, row["context"]):
                seeds = (row["seed"], row["other_seed"]) if "other_seed" in row else (row["seed"],)
                shared = sum(noise(measure, s, size=1)[0] for s in seeds)
                alone = noise(measure, own, row["context"], *seeds, size=1)[0]
                row[measure] = float(values[own] + sd * (shared + alone) / 2)
        return self

    def times(self, by_kind, *, budget=1000.0):
        """Times to the target by kind and seed, of which None was never there; as
        `describe_convergence` has them."""
        groups, times = [], []
        for number, setting in enumerate(self.settings):
            if setting["label"] in by_kind:
                own = by_kind[setting["label"]]
                members = tuple(range(len(times), len(times) + len(own)))
                seeds = tuple((seed, 0) for seed in range(len(own)))
                groups.append(
                    (
                        number,
                        SeedGroup(
                            label=setting["label"], differences={}, members=members, seeds=seeds
                        ),
                    )
                )
                for seed, time in enumerate(own):
                    late = time is None
                    times.append(
                        TimeToTarget(
                            time=budget if late else time,
                            censored=late,
                            low=None,
                            high=None,
                            budget=budget,
                        )
                    )
                    row = next(
                        r
                        for r in self.cells
                        if (r["setting"], r["seed"]) == (setting["label"], seed)
                    )
                    row |= {
                        "gradients_to_target": budget if late else time,
                        "to_target_censored": late,
                    }
        comparisons = compare_groups(
            [group for _, group in groups], {"gradient_evaluations": times}, {}
        )
        self.contexts[0]["convergence"] = {
            "groups": [{"setting": number, "label": group.label} for number, group in groups],
            "comparisons": comparisons,
        }
        return self

    def concluded(self):
        """Settings, comparisons, conclusions and headline; all of it must be JSON, in words without
        a defect."""
        settings = summarize_settings(self.settings, self.cells, self.pairs)
        comparisons = compare_settings(
            self.settings, self.cells, self.pairs, contexts=self.contexts
        )
        conclusions, headline = conclude(settings, self.contexts, comparisons)
        answers = [one.to_dict() for one in conclusions]
        text = json_text({"s": settings, "c": comparisons, "q": answers, "h": headline})
        assert "NaN" not in text
        for sentence in [headline, *(one["sentence"] for one in (*comparisons, *answers))]:
            assert sentence
            assert sentence[0] != " "
            for defect in ("None", "nan", "inf ", "  ", "..", "-0 %", " - "):
                assert defect not in sentence, sentence
        return settings, comparisons, conclusions, headline

    def answer(self, question, setting="weight_asymmetric", context=0):
        _, _, conclusions, _ = self.concluded()
        found = [
            one
            for one in conclusions
            if (one.question, one.context) == (question, context)
            and self.settings[one.setting]["label"].endswith(setting)
        ]
        return found[0] if found else None


def verdict_of(found, name):
    """Return the verdict on a control."""
    return next(control for control in found.controls if control.name == name).verdict


def with_controls(*more):
    return Synthetic(("standard", "weight_asymmetric", *ALL_CONTROLS, *more))


# -- effects and their causes


def test_an_effect_of_a_symmetric_control_is_not_explained_by_the_symmetry():
    study = with_controls().set_nested(
        "test_nll",
        {
            "standard": 0.5,
            "weight_asymmetric": 0.3,
            "init_matched": 0.31,
            "parameter_matched": 0.5,
            "block_fixed": 0.3,
        },
    )
    found = study.answer("nll")
    assert (found.answer, found.strength, found.cause) == (Answer.SUPPORTED, "strong", Cause.NO)
    assert found.to_dict()["explained_by"] == [2, 4]
    shares = {control.name: control.share["value"] for control in found.explained_by}
    assert shares == pytest.approx({"init_matched": 0.95, "block_fixed": 0.99}, abs=0.01)
    assert f"{study.concluded()[3]}\n\n{found.sentence}\n" == golden("conclusion")


def test_an_effect_of_no_symmetric_control_is_explained_by_the_symmetry():
    values = {
        "standard": 0.5,
        "weight_asymmetric": 0.3,
        "init_matched": 0.49,
        **dict.fromkeys(ALL_CONTROLS[1:], 0.5),
    }
    found = with_controls().set_nested("test_nll", values).answer("nll")
    assert (found.answer, found.cause, found.explained_by) == (Answer.SUPPORTED, Cause.YES, [])
    assert {control.verdict for control in found.controls} == {ControlVerdict.LACKS}


def test_a_partly_explained_effect():
    values = {
        "standard": 0.5,
        "weight_asymmetric": 0.3,
        "init_matched": 0.44,
        **dict.fromkeys(ALL_CONTROLS[1:], 0.5),
    }
    found = with_controls().set_nested("test_nll", values).answer("nll")
    assert found.cause is Cause.PARTLY
    assert verdict_of(found, "init_matched") is ControlVerdict.SHOWS_PART


def test_the_remainder_of_an_explained_effect_is_mentioned():
    values = {
        "standard": 0.5,
        "weight_asymmetric": 0.3,
        "init_matched": 0.36,
        **dict.fromkeys(ALL_CONTROLS[1:], 0.5),
    }
    found = with_controls().set_nested("test_nll", values).answer("nll")
    assert (found.cause, found.to_dict()["explained_by"]) == (Cause.NO, [2])
    assert "the remainder has another cause" in found.sentence


def test_an_opposite_effect():
    values = {
        "standard": 0.9,
        "weight_asymmetric": 0.8,
        "init_matched": 0.8,
        "parameter_matched": 0.9,
    }
    found = with_controls().set_nested("test_accuracy", values).answer("accuracy")
    assert (found.answer, found.cause) == (Answer.OPPOSITE, Cause.NO)
    assert found.to_dict()["answer"] == "not supported, opposite effect"


def planted_p(study, p):
    """Set differences from standard whose paired t-test has this p-value, without an effect of
    controls."""
    spread = noise("planted", size=5)
    spread = (spread - spread.mean()) / spread.std(ddof=1)
    effect = stats.t.isf(p / 2, 4) / np.sqrt(5)
    for row in study.cells:
        seed = row["seed"]
        row["test_nll"] = 2.0 + 0.3 * seed
        if row["setting"] == "weight_asymmetric":
            row["test_nll"] += 0.01 * float(spread[seed] - effect)
        elif row["setting"] != "standard":
            row["test_nll"] += 0.5 * (-1) ** seed * (1 + seed % 3)
    return study


@pytest.mark.parametrize(
    ("p", "strength"),
    [(0.009, "strong"), (0.011, "moderate"), (0.049, "moderate"), (0.051, "weak"), (0.11, "none")],
)
def test_strength_of_the_evidence(p, strength):
    found = planted_p(Synthetic(("standard", "weight_asymmetric")), p).answer("nll")
    assert found.strength == strength
    assert found.answer is (Answer.SUPPORTED if strength != "none" else Answer.NOT_SUPPORTED)


@pytest.mark.parametrize(
    ("p", "strength"), [(0.001, "strong"), (0.0049, "moderate"), (0.04, "weak"), (0.06, "none")]
)
def test_evidence_is_weaker_among_many_comparisons(p, strength):
    study = planted_p(with_controls(), p)
    assert study.answer("nll").strength == strength
    own = study.concluded()[1][0]
    assert own["p_adjusted"] == pytest.approx(7 * p)


def test_an_effect_within_the_margin_is_absent():
    found = (
        with_controls()
        .set_nested("test_nll", {"standard": 0.5, "weight_asymmetric": 0.5}, sd=0.002)
        .answer("nll")
    )
    assert (found.answer, found.strength, found.cause) == (
        Answer.NOT_SUPPORTED,
        "none",
        Cause.NOT_ASSESSED,
    )
    assert found.to_dict()["because_of_symmetry"] == "not assessed"


def test_an_uncertain_effect_is_inconclusive():
    study = Synthetic(("standard", "weight_asymmetric")).set_nested(
        "test_nll", {"standard": 0.5, "weight_asymmetric": 0.48}, sd=0.2
    )
    found = study.answer("nll")
    assert (found.answer, found.strength) == (Answer.INCONCLUSIVE, "none")
    assert found.to_dict()["answer"] == "inconclusive"


def test_equal_values_in_every_seed_are_no_gain():
    study = Synthetic(("standard", "weight_asymmetric"))
    for row in study.cells:
        row["test_nll"] = 0.5 + 0.01 * row["seed"]
    found = study.answer("nll")
    assert found.answer is Answer.NOT_SUPPORTED


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_too_few_seeds_are_inconclusive(num_seeds):
    study = Synthetic(("standard", "weight_asymmetric", "init_matched"), num_seeds=num_seeds)
    study.set_nested("test_nll", {"standard": 0.5, "weight_asymmetric": 0.3, "init_matched": 0.3})
    study.set_nested("naive", {"standard": 0.9, "weight_asymmetric": 0.1, "init_matched": 0.9})
    found = study.answer("nll")
    assert (found.answer, found.strength) == (Answer.INCONCLUSIVE, "none")
    assert f"{num_seeds} seed" in found.sentence
    assert f"{num_seeds} seed" in study.concluded()[3]


def test_insignificant_controls_leave_the_cause_inconclusive():
    study = Synthetic(("standard", "weight_asymmetric", "init_matched"))
    study.set_nested("test_nll", {"standard": 0.5, "weight_asymmetric": 0.3})
    study.set_nested("test_nll", {"init_matched": 0.42}, sd=0.5)
    found = study.answer("nll")
    assert (found.answer, found.cause) == (Answer.SUPPORTED, Cause.INCONCLUSIVE)
    assert verdict_of(found, "init_matched") is ControlVerdict.UNCLEAR
    assert "parameter_matched and block_fixed were not run" in found.sentence


def test_without_controls_the_cause_is_inconclusive():
    study = Synthetic(("standard", "weight_asymmetric")).set_nested(
        "test_nll", {"standard": 0.5, "weight_asymmetric": 0.3}
    )
    found = study.answer("nll")
    assert found.cause is Cause.INCONCLUSIVE
    assert "init_matched, parameter_matched and block_fixed were not run" in found.sentence


def test_a_control_that_was_not_run_leaves_the_cause_inconclusive():
    study = Synthetic(("standard", "weight_asymmetric", "init_matched"))
    study.set_nested("test_nll", {"standard": 0.5, "weight_asymmetric": 0.3, "init_matched": 0.5})
    found = study.answer("nll")
    assert (found.answer, found.cause) == (Answer.SUPPORTED, Cause.INCONCLUSIVE)
    assert verdict_of(found, "init_matched") is ControlVerdict.LACKS


def test_a_control_with_failed_fits_is_no_evidence():
    study = with_controls().set_nested(
        "test_nll",
        {"standard": 0.5, "weight_asymmetric": 0.3, "init_matched": 0.5, "parameter_matched": 0.5},
    )
    for row in study.cells:
        if row["setting"] == "block_fixed":
            row |= {"status": "failed", "test_nll": 0.3}
    found = study.answer("nll")
    assert found.cause is Cause.INCONCLUSIVE
    assert verdict_of(found, "block_fixed") is ControlVerdict.NO_RESULT


def test_breaking_the_symmetry_alone_may_not_suffice():
    values = {"standard": 0.5, "weight_asymmetric": 0.3, **dict.fromkeys(ALL_CONTROLS, 0.5)}
    study = with_controls("weight_asymmetric, kappa=0")
    found = study.set_nested("test_nll", {**values, "weight_asymmetric, kappa=0": 0.5}).answer(
        "nll"
    )
    assert found.cause is Cause.PARTLY
    assert verdict_of(found, "weight_asymmetric, kappa=0") is ControlVerdict.LACKS
    found = study.set_nested("test_nll", {**values, "weight_asymmetric, kappa=0": 0.3}).answer(
        "nll"
    )
    assert found.cause is Cause.YES
    assert verdict_of(found, "weight_asymmetric, kappa=0") is ControlVerdict.SHOWS


def test_gates_have_no_control_that_shares_them():
    study = Synthetic(("standard", "sigma_asymmetric", "init_matched"))
    study.set_nested("test_nll", {"standard": 0.5, "sigma_asymmetric": 0.3, "init_matched": 0.5})
    found = study.answer("nll", "sigma_asymmetric")
    assert (found.answer, found.cause) == (Answer.SUPPORTED, Cause.INCONCLUSIVE)
    assert found.controls == []


# -- barriers


def barriers(block_naive, block_aligned):
    study = with_controls()
    naive = {
        "standard": 0.98,
        "weight_asymmetric": 0.05,
        "init_matched": 0.97,
        "parameter_matched": 0.96,
    }
    study.set_nested("naive", {**naive, "block_fixed": block_naive})
    return study.set_nested("aligned", {**naive, "standard": 0.1, "block_fixed": block_aligned})


def test_a_barrier_explained_by_the_symmetry():
    found = barriers(0.9, 0.1).answer("connected")
    assert (found.answer, found.strength, found.cause) == (Answer.SUPPORTED, "strong", Cause.YES)
    assert verdict_of(found, "block_fixed") is ControlVerdict.LACKS
    assert "removes 0.799 nats, 94 % of its excess" in found.sentence
    assert "After alignment, the barrier of standard is 0.0984 nats." in found.sentence


def test_the_barrier_after_alignment_within_blocks_is_not_explained_by_the_symmetry():
    found = barriers(0.9, 0.7).answer("connected")
    assert found.cause is Cause.PARTLY
    assert verdict_of(found, "block_fixed") is ControlVerdict.SHOWS_PART
    found = barriers(0.9, 0.9).answer("connected")
    assert found.cause is Cause.INCONCLUSIVE
    assert verdict_of(found, "block_fixed") is ControlVerdict.UNCLEAR
    study = barriers(0.9, 0.1)
    for row in study.pairs:
        del row["aligned"]
    found = study.answer("connected")
    assert found.cause is Cause.INCONCLUSIVE
    assert "alignment within its blocks was not measured" in found.sentence


def test_alignment_of_standard_networks():
    study = barriers(0.9, 0.1)
    found = study.answer("aligned", "standard")
    assert (found.answer, found.strength, found.cause) == (Answer.SUPPORTED, "strong", Cause.YES)
    assert "all pairs of 5 seeds, p " in found.sentence
    study = (
        Synthetic(("standard",))
        .set_nested("naive", {"standard": 0.9})
        .set_nested("aligned", {"standard": 0.9})
    )
    assert study.answer("aligned", "standard").answer in (Answer.NOT_SUPPORTED, Answer.INCONCLUSIVE)
    assert "the study has no asymmetric network" in study.concluded()[3]


def test_a_barrier_of_zero_is_mentioned():
    study = Synthetic(("standard", "weight_asymmetric"))
    study.set_nested("naive", {"standard": 0.0, "weight_asymmetric": 0.0}, sd=0.02)
    found = study.answer("connected")
    assert "The barrier of standard is indistinguishable from zero." in found.sentence


def test_the_interval_of_a_barrier_is_over_seeds_not_pairs():
    settings, comparisons, _, _ = barriers(0.9, 0.1).concluded()
    own = settings[0]["measures"]["naive"]
    assert (own["n"], own["kind"]) == (5, "pairs of seeds")
    assert own["low"] < own["mean"] < own["high"]
    assert {one["n"] for one in comparisons} == {5}
    assert {one["sign_flip_p"] for one in comparisons} == {None}


# -- speed


def test_speed_agrees_with_the_convergence_comparisons():
    base = np.linspace(90, 110, 10)
    study = Synthetic(("standard", "weight_asymmetric", "init_matched"), num_seeds=10)
    study.times(
        {
            "standard": base.tolist(),
            "weight_asymmetric": (base * np.linspace(0.24, 0.26, 10)).tolist(),
            "init_matched": (base * np.linspace(0.24, 0.27, 10)).tolist(),
        }
    )
    _, comparisons, _, _ = study.concluded()
    (one,) = [c for c in comparisons if (c["first"], c["second"]) == (1, 0)]
    test = study.contexts[0]["convergence"]["comparisons"][0]
    assert (test["first"], test["second"]) == (0, 1)
    logarithms = np.log(np.linspace(0.24, 0.26, 10))
    assert one["ratio"]["value"] == pytest.approx(math.exp(logarithms.mean()))
    assert one["difference"]["mean"] == pytest.approx(logarithms.mean())
    assert one["p_value"] == pytest.approx(stats.ttest_1samp(logarithms, 0).pvalue)
    assert one["sign_flip_p"] == test["p_value"] == 2 / 2**10
    found = study.answer("speed")
    assert (found.answer, found.strength, found.cause) == (Answer.SUPPORTED, "strong", Cause.NO)
    assert verdict_of(found, "init_matched") is ControlVerdict.SHOWS


def test_censored_times_are_compared():
    base = np.linspace(90, 110, 10).tolist()
    study = Synthetic(("standard", "weight_asymmetric", "init_matched"), num_seeds=10)
    study.times(
        {
            "standard": [None] * 10,
            "weight_asymmetric": base,
            "init_matched": [*base[:8], None, None],
        }
    )
    settings, _, _, _ = study.concluded()
    assert settings[0]["measures"]["gradients_to_target"]["reason"].startswith(
        "10 of 10 never reach the target"
    )
    assert settings[1]["measures"]["gradients_to_target"]["mean"] == pytest.approx(100)
    found = study.answer("speed")
    assert (found.answer, found.cause) == (Answer.SUPPORTED, Cause.NO)


def test_five_uncensored_seeds_suffice_for_a_speed():
    base = np.linspace(90, 110, 5)
    study = Synthetic(("standard", "weight_asymmetric"))
    study.times(
        {"standard": (4 * base + [1, -1, 0, 2, 1]).tolist(), "weight_asymmetric": base.tolist()}
    )
    found = study.answer("speed")
    assert (found.answer, found.strength) == (Answer.SUPPORTED, "strong")
    assert "so few" not in found.sentence


def test_five_partly_censored_seeds_are_inconclusive_and_the_needed_number_is_given():
    base = np.linspace(90, 110, 5)
    study = Synthetic(("standard", "weight_asymmetric", "init_matched"))
    late = [*(4 * base[:4]).tolist(), None]
    study.times(
        {"standard": late, "weight_asymmetric": base.tolist(), "init_matched": base.tolist()}
    )
    found = study.answer("speed")
    assert found.answer is Answer.INCONCLUSIVE
    assert "so few differing seeds, p is at least 0.19: fit at least 7 seeds" in found.sentence


def test_without_convergence_the_reason_is_given():
    study = Synthetic(("standard", "weight_asymmetric")).set_nested(
        "test_nll", {"standard": 0.5, "weight_asymmetric": 0.3}
    )
    assert study.answer("speed") is None
    study.contexts[0]["convergence_reason"] = "no history has an objective"
    found = study.answer("speed")
    assert found.answer is Answer.INCONCLUSIVE
    assert "no history has an objective" in found.sentence


def test_neither_ever_reaches_the_target():
    study = Synthetic(("standard", "weight_asymmetric"))
    study.times({"standard": [None] * 5, "weight_asymmetric": [None] * 5})
    found = study.answer("speed")
    assert found.answer is Answer.INCONCLUSIVE
    assert "neither ever reaches the target" in found.sentence


# -- what may be missing


def test_a_missing_standard_network_is_reported_with_the_key_to_add():
    study = Synthetic(("weight_asymmetric", "init_matched"))
    for measure in ("test_nll", "naive"):
        study.set_nested(measure, {"weight_asymmetric": 0.3, "init_matched": 0.5})
    found = study.answer("nll")
    assert found.answer is Answer.INCONCLUSIVE
    assert "add `standard` to study.vary.architecture.symmetry.kind" in found.sentence
    assert study.concluded()[3] == "No comparison: the study has no standard network."


def test_without_a_complete_fit_the_study_is_inconclusive():
    study = Synthetic(("standard", "weight_asymmetric"))
    for row in (*study.cells, *study.pairs):
        row["status"] = "failed"
    _, comparisons, conclusions, headline = study.concluded()
    assert (comparisons, conclusions) == ([], [])
    assert headline == "Inconclusive: no fit is complete."


def test_a_measure_of_one_setting_only():
    study = Synthetic(("standard", "weight_asymmetric")).set_nested("test_nll", {"standard": 0.5})
    found = study.answer("nll")
    assert found.answer is Answer.INCONCLUSIVE
    assert "weight_asymmetric" in found.sentence
    assert "standard" not in found.sentence


def test_failed_seeds_are_excluded_from_both_settings():
    study = Synthetic(("standard", "weight_asymmetric"), num_seeds=6)
    study.set_nested("test_nll", {"standard": 0.5, "weight_asymmetric": 0.3})
    study.cells[0] |= {"status": "failed", "test_nll": float("nan")}
    study.cells[7]["test_nll"] = float("nan")
    _, comparisons, _, _ = study.concluded()
    assert [one["n"] for one in comparisons] == [4]
    assert study.answer("nll").answer is Answer.SUPPORTED


def test_infinite_scores_have_no_mean():
    study = Synthetic(("standard", "weight_asymmetric")).set_nested(
        "test_nll", {"standard": 0.5, "weight_asymmetric": 0.3}
    )
    study.cells[0]["test_nll"] = float("inf")
    settings, _, _, _ = study.concluded()
    assert settings[0]["measures"]["test_nll"]["reason"] == "infinite in 1 of 5"
    found = study.answer("nll")
    assert found.answer is Answer.INCONCLUSIVE
    assert "infinite in 1 of 5" in found.sentence


def test_questions_depend_on_the_available_measures():
    study = with_controls()
    values = {"standard": 3.0, "weight_asymmetric": 2.0, **dict.fromkeys(ALL_CONTROLS, 3.0)}
    study.set_nested("test_rmse", values).set_nested("rhat_function_max", values).set_nested(
        "elbo", values
    )
    _, comparisons, conclusions, _ = study.concluded()
    assert [one.question for one in conclusions] == ["elbo", "accuracy", "mixing"]
    assert [one.answer for one in conclusions] == [
        Answer.OPPOSITE,
        Answer.SUPPORTED,
        Answer.SUPPORTED,
    ]
    assert conclusions[1].to_dict()["title"] == "Lower test RMSE"
    assert {one["measure"]: one["better"] for one in comparisons}["elbo"] == "higher"


# -- several comparisons


def test_compared_pairs_and_adjusted_p_values():
    study = with_controls("weight_asymmetric, kappa=0")
    study.set_nested("test_nll", {setting["label"]: 0.5 for setting in study.settings})
    _, comparisons, _, _ = study.concluded()
    pairs = [(one["first"], one["second"]) for one in comparisons]
    assert pairs == [*((i, 0) for i in range(1, 6)), *((1, j) for j in range(2, 6))]
    assert {one["num_comparisons"] for one in comparisons} == {9}
    ordered = sorted(comparisons, key=lambda one: one["p_value"])
    assert ordered[0]["p_adjusted"] == pytest.approx(min(1.0, 9 * ordered[0]["p_value"]))
    assert ordered[-1]["p_adjusted"] >= ordered[-1]["p_value"]


@pytest.mark.thorough
def test_false_positive_rate_of_a_whole_study():
    alarms, many = 0, 150
    for number in range(many):
        study = Synthetic(("standard", "weight_asymmetric", *ALL_CONTROLS))
        for row in study.cells:
            row["test_nll"] = float(noise("null", number, row["setting"], row["seed"], size=1)[0])
        comparisons = compare_settings(study.settings, study.cells, study.pairs)
        alarms += any(one["p_adjusted"] < 0.05 for one in comparisons)
    # Holm keeps the chance of any alarm at 5 %; three Monte Carlo errors of 1.8 % each.
    assert alarms / many < 0.05 + 3 * 0.018


def test_contexts_have_separate_conclusions_and_a_joint_headline():
    contexts = ("widths=[16]", "widths=[64]", "widths=[256]")
    study = Synthetic(("standard", "weight_asymmetric", *ALL_CONTROLS), contexts=contexts)
    base = {"standard": 0.5, "weight_asymmetric": 0.3, **dict.fromkeys(ALL_CONTROLS, 0.5)}
    for context in contexts[:2]:
        study.set_nested("test_nll", base, context=context)
    study.set_nested("test_nll", {**base, "init_matched": 0.3}, context=contexts[2])
    study.set_nested("test_ece", dict.fromkeys(base, 0.05), sd=0.05)
    causes = [study.answer("nll", context=i).cause for i in range(3)]
    assert causes == [Cause.YES, Cause.YES, Cause.NO]
    _, comparisons, conclusions, headline = study.concluded()
    assert {one["context"] for one in comparisons} == {0, 1, 2}
    # No context's label in the sentences: it stands above them.
    sentences = [*(one["sentence"] for one in comparisons), *(one.sentence for one in conclusions)]
    assert not any("widths" in sentence for sentence in sentences)
    assert headline + "\n" == golden("headline")


# -- invariances


def everything():
    study = barriers(0.9, 0.1)
    study.set_nested(
        "test_nll",
        {"standard": 0.5, "weight_asymmetric": 0.3, "init_matched": 0.31, "parameter_matched": 0.5},
    )
    study.set_nested("test_accuracy", {"standard": 0.9, "weight_asymmetric": 0.9}, sd=0.02)
    return study


@pytest.mark.parametrize("number", range(3))
def test_conclusions_do_not_depend_on_the_order_of_rows(number):
    study, shuffled = everything(), everything()
    generator = numpy_generator(number, "shuffle")
    shuffled.cells = [shuffled.cells[i] for i in generator.permutation(len(shuffled.cells))]
    shuffled.pairs = [shuffled.pairs[i] for i in generator.permutation(len(shuffled.pairs))]
    assert study.concluded() == shuffled.concluded()


@pytest.mark.parametrize("number", range(3))
def test_conclusions_do_not_depend_on_seed_numbers(number):
    study, renumbered = everything(), everything()
    seeds = [int(seed) for seed in 10 + numpy_generator(number, "seeds").permutation(5)]
    for row in (*renumbered.cells, *renumbered.pairs):
        row["seed"] = seeds[row["seed"]]
        if "other_seed" in row:
            row["other_seed"] = seeds[row["other_seed"]]
    for a, b in zip(study.concluded()[1], renumbered.concluded()[1], strict=True):
        assert a["sentence"] == b["sentence"]
        assert a["p_value"] == pytest.approx(b["p_value"], rel=1e-9)
        assert a["difference"] == pytest.approx(b["difference"], rel=1e-9)
    assert study.concluded()[2:] == renumbered.concluded()[2:]


def test_rows_read_from_a_table_give_the_same_conclusions():
    pandas = pytest.importorskip("pandas")
    study, read = everything(), everything()
    read.cells = pandas.DataFrame(read.cells).to_dict("records")
    read.pairs = pandas.DataFrame(read.pairs).to_dict("records")
    assert study.concluded() == read.concluded()
