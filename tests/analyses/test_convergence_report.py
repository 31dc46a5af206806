import dataclasses
import json

import numpy as np
import pytest

from bnn_symm.analyses.convergence.report import describe_convergence
from bnn_symm.analyses.convergence.seed_groups import group_by_seed, pair_by_seed
from bnn_symm.analyses.convergence.target import TargetRequest, parse_target
from bnn_symm.diagnostics.convergence.interpretation import (
    RunVerdict,
    SpeedVerdict,
    comparison_verdict,
    run_verdict,
)
from bnn_symm.errors import ConfigError
from bnn_symm.inference import MCDropout
from bnn_symm.io.atomic import json_text
from bnn_symm.randomness import numpy_generator
from bnn_symm.report.plots.convergence import plot_convergence
from bnn_symm.report.text.convergence import convergence_text
from bnn_symm.runs import load_config
from bnn_symm.runs.directory.run_directory import RunDirectory
from tests.golden import golden
from tests.runs.fits import GAP, IRIS, METHODS, fit, overrides

STEPS = 4000


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Stand for a run whose history and configuration a test writes."""
    return fit(tmp_path_factory.mktemp("runs") / "template", [*GAP, *METHODS["map"]])


@pytest.fixture
def planted(template, tmp_path):
    """Return a factory of runs with the objective 100 + 900 exp(-step / tau) and noise."""

    def make(
        name,
        keys=(),
        *,
        tau=300.0,
        noise=1.0,
        drift=0.0,
        rows=200,
        status="complete",
        stop=1.0,
        **columns,
    ):
        seed = int(dict(key.split("=", 1) for key in keys).get("seed", 0))
        step = STEPS * np.arange(1, rows + 1) // rows
        values = 100 + 900 * np.exp(-step / tau) + drift * step / STEPS
        values = values + noise * numpy_generator(seed, name).standard_normal(rows)
        history = [
            {
                "chain": 0,
                "step": int(s),
                "epoch": float(s),
                "seconds": 0.001 * s,
                "gradient_evaluations": int(s),
            }
            | {
                "objective": float(v),
                "nll": float(v) / 100,
                **{key: column(s) for key, column in columns.items()},
            }
            for s, v in zip(step, values, strict=True)
            if s <= stop * STEPS
        ]
        return written(name, history, keys, status)

    def written(name, history, keys=(), status="complete"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
        config = load_config(None, ["inference.name=map", f"inference.num_steps={STEPS}", *keys])
        record = {**template.record, "status": status}
        return dataclasses.replace(
            template, directory=RunDirectory(folder), config=config, record=record
        )

    make.written = written
    return make


def words(content):
    """Return the whole content, which must be JSON without NaN."""
    assert "NaN" not in json_text(content)
    return convergence_text(content)


def kind(content):
    """Return the kind of the verdict on the first run."""
    run = content["runs"][0]
    return run_verdict(run, run["end"]).kind


# -- one run


def test_a_converged_run_is_timed_on_every_clock(planted):
    content = describe_convergence([planted("a")])
    (run,) = content["runs"]
    assert run["converged"] is True
    assert kind(content) is RunVerdict.FLAT
    assert run["end"]["level"] == pytest.approx(100, abs=1.0)
    truth = 300 * np.log(20)
    for clock, unit in (
        ("step", 1.0),
        ("epoch", 1.0),
        ("gradient_evaluations", 1.0),
        ("seconds", 0.001),
    ):
        assert run["reached"][clock]["time"] == pytest.approx(truth * unit, rel=0.05)
    assert run["area"]["step"] == pytest.approx(run["area"]["seconds"])
    assert "reached after" in words(content)


def test_a_falling_objective_is_advised_to_run_longer(planted):
    content = describe_convergence([planted("a", drift=-400.0)])
    assert content["runs"][0]["converged"] is False
    assert kind(content) is RunVerdict.FALLING
    assert content["runs"][0]["end"]["drift"] == pytest.approx(-100, abs=9)
    assert content["next"] == [f"num_steps={2 * STEPS}"]
    assert "no run has certainly converged" in words(content)


def test_a_rising_objective_is_advised_a_smaller_learning_rate(planted):
    content = describe_convergence([planted("a", drift=400.0)])
    assert kind(content) is RunVerdict.RISING
    assert content["next"] == ["learning_rate=0.001"]
    words(content)


def test_a_decayed_learning_rate_is_reported(planted):
    content = describe_convergence(
        [planted("a", learning_rate=lambda step: 0.01 * (1 - step / STEPS))]
    )
    assert kind(content) is RunVerdict.FLAT_BY_DECAY


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [0, 1, 2, 5])
@pytest.mark.parametrize("status", ["complete", "interrupted", "failed", "running"])
def test_few_rows_are_answered_in_words(planted, rows, status, tmp_path):
    runs = [planted("a", rows=200, status=status, stop=rows / 200)]
    content = describe_convergence(runs)
    text = words(content)
    assert content["runs"][0]["converged"] in (None, False)
    assert content["runs"][0]["rows"] == rows
    if rows == 0:
        assert kind(content) is RunVerdict.NO_OBJECTIVE
    elif status == "failed":
        assert kind(content) is RunVerdict.DIVERGED
    elif status == "interrupted":
        assert f"resume_run({str(runs[0].path)!r})" in text
    assert plot_convergence(content, tmp_path / "c.png") == (rows > 0)


def test_a_diverged_run_is_censored_at_the_longest_budget(planted):
    good = [planted(f"good-{seed}", [f"seed={seed}"]) for seed in range(3)]
    bad = planted("bad", ["seed=3"], stop=0.1, status="failed")
    content = describe_convergence([*good, bad])
    speed = content["groups"][0]["speed"]["step"]
    assert (speed["num_runs"], speed["num_censored"], speed["tau"]) == (4, 1, STEPS)
    assert content["runs"][3]["converged"] is False
    assert "step" not in content["runs"][3]["area"]
    assert "1 diverged" in words(content)
    # One without a single row is not dropped either.
    empty = planted("empty", ["seed=4"], stop=0.0, status="failed")
    assert (
        describe_convergence([*good, bad, empty])["groups"][0]["speed"]["step"]["num_censored"] == 2
    )


def test_an_interrupted_run_is_censored_where_it_is(planted):
    runs = [planted(f"r{seed}", [f"seed={seed}"]) for seed in range(2)]
    runs.append(planted("cut", ["seed=2"], stop=0.1, status="interrupted"))
    content = describe_convergence(runs)
    cut = content["runs"][2]
    assert cut["reached"]["step"] == pytest.approx(
        {"time": 400.0, "censored": True, "low": None, "high": None, "budget": 400.0}
    )
    assert cut["converged"] is None
    words(content)


def test_a_sampler_that_settles_and_one_that_does_not(planted):
    def chains(drift, start):
        rows = []
        for chain in range(4):
            noise = numpy_generator(0, "sampler", chain).standard_normal(60)
            for i in range(60):
                phase = "warmup" if i < 30 else "sampling"
                value = 50 + 400 * np.exp(-i / start) + 3 * noise[i] + drift * i / 60
                clocks = {
                    "step": 20 * (i + 1),
                    "seconds": float(i + 1),
                    "gradient_evaluations": 200 * (i + 1),
                }
                rows.append({"chain": chain, "phase": phase, "objective": float(value), **clocks})
        return rows

    keys = ["inference.num_warmup=600", "inference.num_draws=600"]
    fitted = {}
    for name, drift, start in (("settles", 0.0, 2.0), ("drifts", 60.0, 2.0), ("late", 0.0, 9.0)):
        run = planted.written(name, chains(drift, start), status="complete")
        config = load_config(None, ["inference.name=nuts", *keys])
        fitted[name] = dataclasses.replace(run, config=config)
    content = describe_convergence([fitted["settles"]])
    assert content["runs"][0]["converged"] is True
    assert kind(content) is RunVerdict.STATIONARY
    assert content["groups"][0]["target"]["kind"] == "band"
    assert content["groups"][0]["target"]["level"] == pytest.approx(50, abs=1.5)
    assert not content["runs"][0]["reached"]["gradient_evaluations"]["censored"]
    assert "slowest of 4 chains" in words(content)
    late = describe_convergence([fitted["late"]])["runs"][0]["end"]["start"]["step"]
    assert late > content["runs"][0]["end"]["start"]["step"]
    drifting = describe_convergence([fitted["drifts"]])
    assert drifting["runs"][0]["converged"] is False
    assert kind(drifting) is RunVerdict.DRIFTING
    assert drifting["next"] == ["num_warmup=1200"]


def cyclical(planted, name, *, cycles, drift=0.0, way=0.0, explored=1.0, status="complete"):
    """Return 4 chains with cycles of 10 rows, of which the last 4 sample at 50 plus a drift."""
    rows = []
    for chain in range(4):
        noise = numpy_generator(0, "cyclical", chain).standard_normal((cycles, 10))
        for cycle, i in np.ndindex(cycles, 10):
            if cycle == cycles - 1 and i >= 10 * explored:
                continue
            step, sampling = 100 * cycle + 10 * (i + 1), i >= 6
            level = 50 + drift * cycle + way * np.exp(-cycle)
            value = level + (2 * (9 - i) if sampling else 300 - 50 * i) + 3 * noise[cycle, i]
            phase = "sampling" if sampling else "exploration"
            clocks = {"step": step, "seconds": float(step), "gradient_evaluations": step}
            rows.append({"chain": chain, "phase": phase, "objective": float(value), **clocks})
    keys = [
        "inference.name=cyclical_sghmc",
        "inference.cycle_steps=100",
        f"inference.num_cycles={cycles}",
    ]
    run = planted.written(name, rows, status=status)
    return dataclasses.replace(run, config=load_config(None, keys))


def test_a_sampler_that_goes_in_cycles_is_judged_by_their_ends(planted):
    few = describe_convergence([cyclical(planted, "few", cycles=4)])
    assert few["runs"][0]["converged"] is None
    assert kind(few) is RunVerdict.CHAINS_TOO_SHORT
    assert few["runs"][0]["end"]["rows"] == 4
    # The band is that of rows that sample, of mean 53 and standard deviation sqrt(9 + 5), not of
    # the whole curve.
    aim = few["groups"][0]["target"]
    assert aim["level"] == pytest.approx(53, abs=2)
    assert aim["half_width"] == pytest.approx(2 * 14**0.5, rel=0.4)
    words(few)

    level = describe_convergence([cyclical(planted, "level", cycles=40)])
    assert level["runs"][0]["converged"] is True
    assert kind(level) is RunVerdict.CYCLES_STATIONARY
    assert level["next"] == []

    drifting = describe_convergence([cyclical(planted, "drifting", cycles=40, drift=-5.0)])
    assert drifting["runs"][0]["converged"] is False
    assert kind(drifting) is RunVerdict.DRIFTING
    assert drifting["next"] == ["cycle_steps=200"]

    late = describe_convergence([cyclical(planted, "late", cycles=40, way=200.0)])
    assert kind(late) is RunVerdict.CYCLES_STATIONARY_LATE
    assert 100 < late["runs"][0]["end"]["start"]["step"] <= 1000
    assert late["next"] == ["cycle_steps=200"]


def test_a_sampler_that_was_stopped_while_it_explored_is_answered(planted):
    for status in ("interrupted", "failed"):
        content = describe_convergence(
            [cyclical(planted, status, cycles=1, explored=0.4, status=status)]
        )
        assert content["runs"][0]["rows"] == 16
        assert kind(content) is not RunVerdict.NO_OBJECTIVE
        words(content)


# -- several


def rates(planted, number=6, slow=600.0):
    return [
        planted(
            f"{rate}-{seed}",
            [f"seed={seed}", f"inference.learning_rate={rate}"],
            tau=tau * (1 + 0.1 * seed),
        )
        for rate, tau in (("0.02", 300.0), ("0.01", slow))
        for seed in range(number)
    ]


@pytest.mark.thorough
def test_groups_are_compared_paired_by_seed(planted, tmp_path):
    content = describe_convergence(rates(planted))
    assert [group["label"] for group in content["groups"]] == [
        "learning_rate=0.02",
        "learning_rate=0.01",
    ]
    assert (content["quantity"], content["reference"]) == ("objective", "best")
    test = content["comparisons"][0]
    assert (test["paired"], test["num_pairs"], test["clock"]) == (True, 6, "gradient_evaluations")
    assert test["p_value"] == test["smallest_p"] == pytest.approx(1 / 32)
    assert test["ratio"]["value"] == pytest.approx(0.5, abs=0.03)
    assert test["area_difference"] < 0
    assert test["area_p_value"] == pytest.approx(1 / 32)
    words(content)
    picture = tmp_path / "convergence.png"
    assert plot_convergence(content, picture)
    assert picture.stat().st_size > 10_000


def test_a_rate_of_dropout_that_nothing_reads_makes_no_group(planted):
    runs = [
        planted(f"r{rate}", [f"seed={rate}", f"architecture.dropout=0.{rate}"])
        for rate in (0, 1, 2)
    ]
    content = describe_convergence(runs)
    assert [group["label"] for group in content["groups"]] == ["all runs"]
    used = dataclasses.replace(
        runs[1], config=dataclasses.replace(runs[1].config, inference=MCDropout(num_steps=STEPS))
    )
    assert len(describe_convergence([*runs, used])["groups"]) == 2


def test_too_few_pairs_are_reported(planted):
    content = describe_convergence(rates(planted, number=4))
    verdict = comparison_verdict(["fast", "slow"], content["comparisons"][0], 1)
    assert verdict.kind is SpeedVerdict.TOO_FEW
    assert (verdict.numbers["least"], verdict.numbers["needed"]) == (0.125, 6)
    assert words(content) + "\n" == golden("convergence")


def test_runs_that_share_no_seed_are_not_paired(planted):
    first = [
        planted(f"a{seed}", [f"seed={seed}", "inference.learning_rate=0.02"]) for seed in range(3)
    ]
    second = [planted(f"b{seed}", [f"seed={seed + 3}"], tau=600.0) for seed in range(3)]
    (test, *_) = describe_convergence([*first, *second])["comparisons"]
    assert not test["paired"]


def test_different_objectives_are_timed_by_the_training_nll(planted):
    runs = [planted("a"), planted("b", ["prior.scale=2.0"])]
    content = describe_convergence(runs)
    assert (content["quantity"], content["reference"]) == ("nll", "best")
    assert "training NLL" in words(content)
    # Without one in common, each goes its own way.
    for run in runs:
        lines = [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]
        (run.path / "history.jsonl").write_text(
            "".join(json.dumps({**row, "nll": None}) + "\n" for row in lines)
        )
    content = describe_convergence(runs)
    assert (content["quantity"], content["reference"]) == ("objective", "own")
    assert "fast does not mean good" in words(content)


def test_a_target_as_a_value(planted):
    runs = [
        planted(f"r{seed}", [f"seed={seed}"], validation_nll=lambda step: 1 - step / STEPS)
        for seed in range(3)
    ]
    content = describe_convergence(runs, target="validation_nll=0.25")
    assert content["runs"][0]["reached"]["step"]["time"] == pytest.approx(0.75 * STEPS, abs=1.0)
    assert "validation nll = 0.25" in words(content)
    never = describe_convergence(runs, target="validation_nll=-1")
    assert never["groups"][0]["speed"]["step"]["median"]["value"] is None
    assert "0 of 3" in words(never)


def test_a_quantity_that_goes_nowhere_has_no_way(planted, tmp_path):
    content = describe_convergence(
        [planted("a", elbo=lambda step: -5.0 - 1e-3 * (step % 40))], target="elbo=95%"
    )
    assert content["runs"][0]["reached"] is None
    assert "does not improve" in words(content)
    assert plot_convergence(content, tmp_path / "c.png")


def test_a_quantity_that_no_history_has_is_refused(planted):
    with pytest.raises(
        ConfigError, match=r"no history has validation_nll; logged: objective, nll; raise data"
    ):
        describe_convergence([planted("a")], target="validation_nll=0.3")


# -- targets and groups


def test_the_syntax_of_targets():
    assert parse_target(None) == TargetRequest()
    assert parse_target("0.9") == TargetRequest(fraction=0.9)
    assert parse_target("90%") == TargetRequest(fraction=0.9)
    assert parse_target("elbo=95%") == TargetRequest(quantity="elbo", fraction=0.95)
    assert parse_target("elbo = -1.5e3") == TargetRequest(quantity="elbo", value=-1500.0)
    for text, message in (
        ("", "expected a fraction"),
        ("fast", "expected a fraction"),
        ("nll=low", "expected a fraction"),
        ("=0.3", "expected a fraction"),
        ("1.5", "between 0 and 1"),
        ("nll=120%", "between 0 and 1"),
        ("validation_nl=0.3", "did you mean 'validation_nll'"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_target(text)


def test_groups_differ_in_more_than_seeds():
    keys = (
        ["seed=0"],
        ["seed=1", "architecture.symmetry.kind=weight_asymmetric", "architecture.symmetry.seed=5"],
        ["seed=1", "checkpoint.every=60"],
        ["seed=0", "data.split_seed=1"],
        ["seed=0", "architecture.symmetry.kind=weight_asymmetric", "architecture.symmetry.seed=4"],
    )
    groups = group_by_seed([load_config(None, own) for own in keys])
    assert [group.members for group in groups] == [(0, 2), (1, 4), (3,)]
    assert [group.label for group in groups] == [
        "split_seed=0, standard",
        "split_seed=0, weight_asymmetric",
        "split_seed=1, standard",
    ]
    # Paired by seed, whatever the seeds of the masks.
    assert pair_by_seed(groups[0], groups[1]) == [(0, 4), (2, 1)]
    assert pair_by_seed(groups[1], groups[2]) == [(4, 3)]
    # A seed that stands for two runs makes no pair.
    twice = group_by_seed(
        [load_config(None, own) for own in (["seed=0"], ["seed=0"], ["seed=0", "prior.scale=2.0"])]
    )
    assert pair_by_seed(*twice) == []


# -- real fits


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["local", "map", "deep_ensemble", "nuts"])
def test_every_method_is_answered(method, tmp_path):
    run = fit(tmp_path / "run", overrides(method))
    text = words(describe_convergence([run]))
    assert text.startswith("convergence: ")


@pytest.mark.parametrize("method", ["map", "local"])
def test_rows_of_classifications_have_the_validation_accuracy(method, tmp_path):
    run = fit(tmp_path / "run", [*IRIS, *METHODS[method], "data.validation_fraction=0.2"])
    accuracies = [row["validation_accuracy"] for row in run.directory.read_history()]
    assert all(0 <= value <= 1 for value in accuracies)
    # Of the same predictions as at the end: for MAP, of the one draw.
    if method == "map":
        assert accuracies[-1] == pytest.approx(run.metrics["validation"]["accuracy"])
    content = describe_convergence([run], target="validation_accuracy=0")
    assert content["runs"][0]["at_first_row"]
