"""Test progress bars, which are shown on a terminal and hidden in a pipe."""

import contextlib
import io
import re

import pytest

from bnn_symm.inference import MAP, NUTS, ChEESHMC
from bnn_symm.report.progress import ProgressBars


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Return a terminal that is wide enough for one line per bar."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def row(chain: int, step: int, phase: str = "warmup", **more):
    numbers = {
        "acceptance_rate": 0.6 + 0.2 * chain,
        "step_size": 0.1,
        "divergences": chain,
        "objective": 1.0,
    }
    return {"chain": chain, "step": step, "phase": phase, **numbers, **more}


def shown(terminal: Terminal, method, rows, **options) -> list[str]:
    """Return the final text of the bars without colors."""
    # Here and not in the fixture, after which pytest puts its own stderr in place.
    with contextlib.redirect_stderr(terminal), ProgressBars(method, **options) as bars:
        for one in rows:
            bars.on_history(one)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n")
    lines = [
        " ".join(re.sub("[━╸╺]+", " ", line).split()) for line in plain.splitlines() if line.strip()
    ]
    return lines[-len(bars._tasks) :]


def test_chains_of_one_batch_have_one_bar(terminal):
    method = NUTS(num_chains=3, num_warmup=20, num_draws=80)
    rows = [row(0, 20), row(2, 20), row(1, 20), row(1, 40, "sampling")]
    (line,) = shown(terminal, method, rows)
    assert line.startswith("3 chains 80/300 ")
    # Chain 0 is still in warmup; acceptance rates 0.6, 0.8 and 1.0; divergences 0 + 1 + 2.
    assert line.endswith("warmup accepted 0.8 step 0.1 diverged 3")
    assert "chain 0" not in terminal.getvalue()


def test_the_bar_shows_sampling_once_all_chains_sample(terminal):
    method = ChEESHMC(num_chains=4, num_warmup=20, num_draws=80)
    rows = [
        row(chain, step, phase)
        for step, phase in ((20, "warmup"), (100, "sampling"))
        for chain in range(4)
    ]
    (line,) = shown(terminal, method, rows)
    assert line.startswith("4 chains 400/400 ")
    assert " sampling " in line


def test_a_chain_alone_is_one_chain(terminal):
    (line,) = shown(terminal, NUTS(num_chains=1, num_warmup=20, num_draws=80), [row(0, 20)])
    assert line.startswith("1 chain 20/100 ")


def test_chains_in_separate_processes_have_separate_bars(terminal):
    method = NUTS(engine="pyro", num_chains=2, num_warmup=20, num_draws=80)
    first, second = shown(terminal, method, [row(0, 20), row(1, 40, "sampling")])
    assert first.startswith("chain 0 20/100 ")
    assert second.startswith("chain 1 40/100 ")
    assert second.endswith("sampling accepted 0.8 step 0.1 diverged 1")


def test_bars_of_a_warm_start_are_labeled_by_method(terminal):
    method = NUTS(num_chains=2, num_warmup=20, num_draws=80)
    rows = [{"chain": 0, "stage": 1, "step": 50, "objective": 3.0}, row(0, 20), row(1, 20)]
    first, second = shown(terminal, method, rows, warm_start=[MAP(num_steps=50)])
    assert first.startswith("map: fit 0 50/50 ")
    assert first.endswith("objective 3")
    assert second.startswith("nuts: 2 chains 40/200 ")


def test_nothing_is_shown_in_a_pipe(monkeypatch):
    pipe = io.StringIO()
    monkeypatch.setattr("sys.stderr", pipe)
    with ProgressBars(NUTS(num_chains=2)) as bars:
        bars.on_history(row(0, 20))
    assert pipe.getvalue() == ""
