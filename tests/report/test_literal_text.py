"""Test that figures draw names literally and tick labels as matplotlib formats them."""

import pytest
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.png import save_png
from bnn_symm.report.plots.figures.svg import svg_text

pytestmark = pytest.mark.thorough

NAMES = [r"$\bad{$", "$", "$x_{$", r"\frac{", "a$b$c", "${", "中文 שלום 🦆", "\x07 bell", "a\nb"]


def _figure(name: str) -> Figure:
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    axes.plot([1, 10, 1000], [1, 2, 3], label=name)
    axes.set_xscale("log")
    axes.set_yticks([1, 2, 3], [name, name, "plain"])
    axes.set_title(name)
    axes.set_xlabel(name)
    axes.annotate(name, (10, 2))
    axes.text(10, 2, name)
    figure.colorbar(ScalarMappable(), ax=axes, label=name)
    figure.suptitle(name)
    figure.legend(loc="outside lower center")
    return figure


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_can_be_drawn(tmp_path, name):
    save_png(_figure(name), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert svg_text(_figure(name)).endswith("</svg>\n")


def test_powers_of_ten_remain_formulas():
    figure = Figure()
    axes = figure.add_subplot()
    axes.loglog([1, 1e6], [1, 1e6])
    svg_text(figure)
    (tick,) = [
        label for label in axes.get_xticklabels() if label.get_text() == r"$\mathdefault{10^{2}}$"
    ]
    assert tick.get_parse_math()
