"""The advice for a run of any method names settings that the method has."""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
import torch

from bnn_symm.advice import for_command_line
from bnn_symm.analyses.convergence.report import describe_method
from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.diagnostics import Mixing, mixing, sampler_statistics, verdicts
from bnn_symm.diagnostics.convergence.interpretation import run_sentence, run_verdict
from bnn_symm.inference import HMC, NUTS, AnyMethod, Automatic, CyclicalSGHMC, Method
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.runs import load_config


@pytest.fixture(autouse=True)
def on_the_command_line():
    """Word advice for the command line, where settings have their full keys."""
    with for_command_line():
        yield


# A run stores the methods that `auto` chose.
METHODS = [kind for kind in get_args(get_args(AnyMethod)[0]) if kind is not Automatic]


@pytest.fixture(scope="module")
def found() -> Mixing:
    """Return the views of four chains of independent draws."""
    data = load_dataset("iris", dtype=torch.float64)
    net = build_network(
        MLPConfig(widths=()), input_shape=data.input_shape, num_outputs=3, seed=0
    ).double()
    model = BayesianModel(net, Prior(), Categorical())
    draws = torch.randn(
        4, 40, model.num_parameters, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return mixing(SamplePosterior.from_draws(model, draws), data.test, per_draw=False)


def readings(found: Mixing) -> Iterator[Mixing]:
    """Yield the same views with every status that has its own advice."""

    def function(**changes) -> Mixing:
        return dataclasses.replace(found, function=dataclasses.replace(found.function, **changes))

    failed = function(status="fail")
    assert found.function_modes is not None
    yield dataclasses.replace(found, frozen=(1,))
    yield function(status="pass", threshold=1.3)
    yield function(status="too few draws", threshold=1.05, ess_wanted=400.0)
    for status in ("fail", "undefined"):
        yield dataclasses.replace(failed, chainwise=found.chainwise.with_status(status, "why"))
    for count in (1, 4):
        modes = dataclasses.replace(found.function_modes, labels=np.arange(4) % count)
        settled = dataclasses.replace(found.chainwise, status="pass", threshold=1.01)
        yield dataclasses.replace(failed, chainwise=settled, function_modes=modes)
    for chains, draws in itertools.product((1, 4), (1, 3, 40)):
        yield function(status="undefined", reason="why", num_chains=chains, num_draws=draws)


def endings() -> Iterator[dict | None]:
    """Yield ends of curves that have sentences of their own."""
    known = {
        "level": 1.0,
        "standard_error": 0.1,
        "spread": 1.0,
        "rows": 40,
        "learning_rate_ended": True,
    }
    yield None
    for flatness, drift, way in itertools.product(
        ("reached", "not reached", "unclear", "too short"), (-1, 1), (0, 9)
    ):
        drifts = {"drift": drift, "drift_low": drift - 0.5, "drift_high": drift + 0.5}
        yield {**known, **drifts, "flatness": flatness, "way": way, "start": {"step": 900_000}}


def advice(method: Method, found: Mixing) -> Iterator[str]:
    """Yield all sentences about a run of a method."""
    stats = {
        "diverging": np.ones((4, 40), dtype=bool),
        "energy": np.random.default_rng(0).standard_normal((4, 40)).cumsum(1),
        "acceptance_rate": np.full((4, 40), 0.1),
        "n_steps": np.full((4, 40), 2**20),
    }
    target, depth = (
        getattr(method, name, None) for name in ("target_accept_prob", "max_tree_depth")
    )
    sampler = sampler_statistics(stats, target=target, max_tree_depth=depth)
    assert sampler is not None
    yield from sampler.problems if target is not None else ()
    for view in readings(found):
        if method.is_sampler or view.function.num_draws == 1:  # others have no chains of more
            yield verdicts(view, method=method).next or ""
    own = {"run": "runs/a", "steps": 4000, **describe_method(method)}
    for status, settled in itertools.product(
        ("complete", "interrupted", "running", "failed"), endings()
    ):
        run = {**own, "status": status}
        yield run_sentence(run, run_verdict(run, settled))[1] or ""


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind().name)
def test_every_setting_that_is_advised_is_one_of_the_method(kind, found):
    method = kind()
    sentences = "\n".join(advice(method, found))
    known = {field.name for field in dataclasses.fields(method)}
    assert method.longer_fit_override() in sentences
    assert set(re.findall(r"inference\.(\w+)", sentences)) <= known
    typed = set(re.findall(r"inference\.[\w.]+=[\w.]+", sentences))
    assert typed
    for setting in typed:
        load_config(None, [f"inference.name={method.name}", setting])


def test_more_draws_are_more_cycles_where_draws_come_by_cycles(found):
    draw_more = dataclasses.replace(
        found, function=dataclasses.replace(found.function, status="pass", threshold=1.3)
    )
    for method, setting in (
        (NUTS(), "--set inference.num_draws=1000"),
        (CyclicalSGHMC(draws_per_cycle=7), "--set inference.num_cycles=143"),
        (None, "1000 draws per chain"),
    ):
        assert verdicts(draw_more, method=method).next == f"draw more ({setting})"


def test_chains_of_another_tool_are_advised_without_settings_of_ours(found):
    sentences = [verdicts(view).next or "" for view in readings(found)]
    sentences += sampler_statistics({"diverging": np.ones((4, 40), dtype=bool)}).problems
    assert {match for text in sentences for match in re.findall(r"inference\.\S+", text)} == {
        "inference.name=nuts"
    }
    longer = "run longer, until R-hat passes (twice the warm-up, and 80 draws per chain)"
    assert {"sample 4 chains or more", longer} <= set(sentences)


def test_a_warm_up_that_there_was_none_of_is_not_doubled():
    assert HMC(num_warmup=0).longer_fit_override() == "inference.num_warmup=100"
    assert HMC(num_warmup=70).longer_fit_override() == "inference.num_warmup=140"
    assert CyclicalSGHMC(cycle_steps=500).longer_fit_override() == "inference.cycle_steps=1000"
