"""Figures have colors for a dark ground."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from bnn_symm.report.plots.axes import BLUE, NAVY, ORANGE, RED
from bnn_symm.report.plots.comparisons.matrices import barrier_matrix_figure
from bnn_symm.report.plots.figures.dark_colors import GROUND, dark_color
from bnn_symm.report.plots.figures.svg import svg_text
from bnn_symm.report.plots.studies.styles import styles_of
from tests.report.test_report import contrast

STYLES = styles_of([("standard", ""), *((str(number), "") for number in range(9))])


@pytest.mark.parametrize("color", [RED, BLUE, NAVY, ORANGE, *(own.color for own in STYLES)])
def test_lines_are_visible_on_the_dark_ground(color):
    assert contrast(dark_color(color), GROUND) > 2.2
    assert re.fullmatch("#[0-9a-f]{6}", dark_color(color))


def test_lightness_is_reversed():
    grays = [f"#{number:02x}{number:02x}{number:02x}" for number in range(0, 255, 10)]
    dark = [int(dark_color(own)[1:3], 16) for own in grays]
    assert (np.diff(dark) < 0).all()
    assert dark_color("#ffffff") == GROUND


def test_the_ground_is_that_of_the_page():
    from importlib.resources import files

    style = files("bnn_symm.report.html").joinpath("templates/page.css.j2").read_text()
    assert f"--ground: {GROUND};" in style


def test_every_color_of_a_figure_has_a_dark_one():
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=RED)
    axes.fill_between([0, 1], [0, 1], color="0.8", alpha=0.5)
    text = svg_text(figure)
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"(fill|stroke): #", text.partition("</style>")[2])
    used = set(re.findall(r"var\(--c([0-9a-f]{6})", text))
    defined = dict(re.findall(r"--c([0-9a-f]{6}): (#[0-9a-f]{6})", text))
    assert used == set(defined)
    assert defined[RED[1:]] == dark_color(RED)
    assert "prefers-color-scheme: dark" in text


def test_matrices_are_drawn_as_paths_whose_colors_follow():
    matrix = {"label": "a", "seeds": [0, 1], "naive": [(0, 1, 0.5)], "aligned": [(0, 1, 0.1)]}
    assert "<image" not in svg_text(barrier_matrix_figure([matrix]))
