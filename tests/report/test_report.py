import base64
import html
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.errors import InvalidRun
from bnn_symm.formatting import mean_and_interval, plus_minus
from bnn_symm.report.html.rendering import write_report, write_study_report
from bnn_symm.report.html.study_data import read_study
from bnn_symm.report.html.study_settings import context_views
from bnn_symm.report.plots.studies.styles import styles_of
from bnn_symm.report.text.study import study_text
from tests.report.synthetic_study import write_study

pytestmark = pytest.mark.thorough

WIDTHS = ("widths=[16, 16]", "widths=[32, 32]")
# Hostile as a name, to HTML, to XML comments and to mathematical text.
LABEL = " <script>alert(1)</script> -- $x^$ & \"'"
CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)


class Page(HTMLParser):
    """Parser of the elements of a page that tests check."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.headings, self._open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append([int(tag[1]), ""])

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open and re.fullmatch("h[1-6]", self._open[-1]):
            self.headings[-1][1] += data

    def all(self, tag):
        return [own for name, own in self.elements if name == tag]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return the directory and the page of a study with one context and five seeds."""
    path = write_study(tmp_path_factory.mktemp("study") / "digits")
    return path, write_study_report(path).read_text()


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """Return the same with two contexts, three seeds, failures, chains and a hostile name."""
    path = tmp_path_factory.mktemp("contexts") / "grid"
    write_study(path, contexts=WIDTHS, seeds=3, failures=True, sampler=True, label=LABEL, kinds=3)
    return path, write_report(path).read_text()


@pytest.fixture
def undrawn(monkeypatch):
    """Skip drawing, which takes most of the time."""
    monkeypatch.setattr("bnn_symm.report.html.page.svg_text", lambda figure: "<svg/>")


def without_terms(text):
    """Return a page without the marks of terms."""
    return re.sub('<a class="term".*?>|</?abbr.*?>|(?<=</abbr>)</a>', "", text)


def summary_of(path):
    return json.loads((path / "summary.json").read_text())


def test_conclusions_come_first_and_commands_last(study):
    titles = [title for _, title in Page(study[1]).headings]
    assert titles[1:] == [
        *(
            "Conclusions",
            "Convergence",
            "Time to the target",
            "Scores",
            "Barriers",
            "Calibration",
            "R-hat",
        ),
        *("Parameters and symmetries", "All comparisons", "Settings", "Provenance", "Commands"),
        "Glossary",
    ]
    own = summary_of(study[0])
    text = without_terms(study[1])
    first, second = text.index('<p class="headline">'), text.index("<h2>Conclusions</h2>")
    assert first < text.index("<picture") < second  # one figure under the headline
    assert text[first:second].count("<img ") == 1
    for conclusion in own["conclusions"]:
        assert html.escape(conclusion["sentence"], quote=False) in study[1]


def test_every_context_has_a_section_with_its_parts_behind_an_overview(contexts):
    page = Page(contexts[1])
    assert [title for level, title in page.headings if level == 2] == [
        *("Overview", *WIDTHS, "Failures", "Settings", "Provenance", "Commands", "Glossary"),
    ]
    parts = [title for level, title in page.headings if level == 3]
    assert Counter(parts)["Conclusions"] == 2
    assert Counter(parts)["R-hat"] == 2


@pytest.mark.parametrize("name", ["study", "contexts"])
def test_page_has_no_resources_and_no_scripts(name, request):
    _, text = request.getfixturevalue(name)
    page = Page(text)
    assert not page.all("script")
    assert not [key for _, own in page.elements for key in own if key.startswith("on")]
    sources = [
        value
        for _, own in page.elements
        for key, value in own.items()
        if key in ("src", "href", "srcset")
    ]
    assert {source.partition(":")[0] for source in sources if not source.startswith("#")} == {
        "data"
    }
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("name", ["study", "contexts"])
def test_page_is_accessible_to_screen_readers(name, request):
    page = Page(request.getfixturevalue(name)[1])
    assert page.all("html")[0]["lang"] == "en"
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1  # none is left out on the way down
    names = [own["id"] for _, own in page.elements if "id" in own]
    assert len(names) == len(set(names))
    assert {own["href"][1:] for own in page.all("a")} <= set(names)
    assert all(own.get("scope") in ("col", "row") for own in page.all("th"))
    images = page.all("img")
    assert len(images) >= 6
    assert all(len(own["alt"]) > 80 and re.search(r"\d", own["alt"]) for own in images)


def test_every_figure_is_an_image_without_a_date(contexts):
    for own in Page(contexts[1]).all("img"):
        kind, _, content = own["src"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        text = base64.b64decode(content).decode()
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "<dc:date>" not in text


def test_names_of_users_are_escaped(contexts):
    assert "<script>alert" not in contexts[1]
    assert html.escape(LABEL, quote=False).split(" $")[0] in contexts[1]


def test_equal_data_give_equal_bytes(study, tmp_path):
    copy = write_study(tmp_path / "digits")
    again = write_report(copy, tmp_path / "page.html").read_text()
    # Commands name the directory at hand, not the one that the summary was written in.
    assert again.replace(str(copy), "DIR") == study[1].replace(str(study[0]), "DIR")


def test_page_has_the_dates_of_the_study_and_no_others(study):
    assert set(re.findall(r"\b20\d\d-\d\d-\d\d", study[1])) == {"2026-01-02"}


def test_tables_have_the_numbers_of_the_summary(study):
    own = summary_of(study[0])["settings"]
    text = study[1]
    for setting in own:
        for measure in ("test_nll", "test_ece", "elbo", "naive", "aligned"):
            mean, _, spread = mean_and_interval(setting["measures"][measure]).partition(" (")
            assert f">{mean}<small>{spread.rstrip(')')}</small></td>" in text, (
                setting["label"],
                measure,
            )
        assert f"{setting['num_parameters']:,}" in text
        assert setting["certificate"] in text


def test_alternative_texts_have_the_main_numbers(study):
    alts = [own["alt"] for own in Page(study[1]).all("img")]
    standard = summary_of(study[0])["settings"][0]["measures"]
    assert "weight_asymmetric: " in alts[0]
    assert "standard: gradient evaluations 10, median elbo -5,606" in alts[1]
    title = measure_of("test_nll").title
    assert f"standard: {title} {mean_and_interval(standard['test_nll'])}" in alts[2]
    assert f"standard: path naive, height {mean_and_interval(standard['naive'])}" in alts[3]


def test_failures_are_listed_with_a_warning(contexts):
    path, text = contexts
    failures = summary_of(path)["failures"]
    assert len(failures) == 6  # a fit of three, and its two pairs, in both contexts
    assert "6 of its fits or pairs failed" in text
    assert f"This study is incomplete; resume it with: bnn-symm compare --resume {path}" in text
    for failure in failures:
        assert failure["key"] in text
    assert "2 of 3" in text


def test_regression_has_its_own_scores(tmp_path, undrawn):
    text = write_report(write_study(tmp_path / "boats", seeds=2, regression=True)).read_text()
    assert "test RMSE" in text
    assert "test CRPS" in text
    assert "test accuracy" not in text


def test_one_seed_has_means_and_a_reason_for_missing_intervals(tmp_path, undrawn):
    path = write_study(tmp_path / "single", seeds=1)
    text = write_report(path).read_text()
    reason = summary_of(path)["settings"][0]["measures"]["test_nll"]["reason"]
    assert f"all settings: {reason}" in text
    assert "Barriers" not in [title for _, title in Page(text).headings]


def test_a_study_without_results_has_a_page(tmp_path):
    text = write_report(write_study(tmp_path / "new", bare=True)).read_text()
    assert "No curves: no fit exists" in text
    assert "0 of 30 fits" in text
    assert not Page(text).all("img")


def test_missing_tables_of_pairs_and_missing_curves_are_accepted(study, tmp_path, undrawn):
    path = shutil.copytree(study[0], tmp_path / "copy")
    shutil.rmtree(path / "pairs")
    page = Page(write_report(path).read_text())
    assert len(page.all("img")) == len(Page(study[1]).all("img")) - 1  # of curves
    (path / "pairs.parquet").unlink()
    write_report(path)


def test_curve_is_the_mean_over_pairs_above_the_chord(study):
    data = read_study(study[0])
    setting = data.summary["settings"][0]
    curve = data.curve_of(setting, "naive")
    pairs = pd.read_parquet(study[0] / "pairs.parquet")
    own = pairs[pairs.setting == "standard"].naive
    middle = curve["tau"].index(0.5)
    assert curve["mean"][middle] == pytest.approx(own.mean(), abs=1e-9)
    assert curve["high"][middle] == pytest.approx(own.max(), abs=1e-9)
    assert curve["low"][middle] == pytest.approx(own.min(), abs=1e-9)
    assert curve["mean"][0] == curve["mean"][-1] == pytest.approx(0, abs=1e-12)
    assert data.curve_of(setting, "aligned")["mean"][middle] < 0.3 * curve["mean"][middle]


def test_rows_of_tables_are_plain_with_none_for_missing_values(study):
    data = read_study(study[0])
    assert data.fits[0]["test_rmse"] is None
    assert {type(value) for row in data.fits for value in row.values()} <= {
        str,
        int,
        float,
        bool,
        type(None),
    }
    assert data.values_of(data.summary["settings"][1], "test_nll") == [
        row["test_nll"] for row in data.fits if row["setting"] == "weight_asymmetric"
    ]


def test_baseline_is_first_and_controls_last_whatever_the_order(study):
    own = summary_of(study[0])
    views = context_views({**own, "settings": own["settings"][::-1]})
    roles = [setting["role"] for setting in views[0].own]
    assert roles == ["baseline", "asymmetric", *["keeps_symmetry"] * 3, "breaks_symmetry"]


def test_a_setting_has_one_style_in_all_contexts_and_no_two_share_one(study, contexts):
    (first,) = context_views(summary_of(study[0]))
    for view in context_views(summary_of(contexts[0])):
        assert view.own_styles == first.own_styles[:3]
    looks = [(style.color, str(style.dash), style.marker) for style in first.own_styles]
    assert all(len(set(part)) == len(looks) for part in zip(*looks, strict=True))


def test_neighboring_styles_differ_in_grayscale():
    styles = styles_of([("standard", ""), *((str(number), "") for number in range(9))])
    gray = [
        np.dot([int(s.color[i : i + 2], 16) for i in (1, 3, 5)], [0.299, 0.587, 0.114])
        for s in styles
    ]
    assert min(abs(np.diff(gray))) > 10  # of 255


def test_text_and_grounds_have_the_contrast_of_level_aa(study):
    style = study[1][study[1].index("<style>") : study[1].index("</style>")]
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for block in (light, dark):
        colors = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for ink in ("ink", "soft", "link", "yes", "other", "open", "no"):
            for ground in ("ground", "shade"):
                assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)
        assert contrast(colors["warn-ink"], colors["warn"]) >= 4.5


def contrast(first, second):
    """Return the ratio of relative luminances as defined by WCAG 2."""

    def luminance(color):
        parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_digits_follow_the_interval():
    assert (
        mean_and_interval({"mean": 0.15234, "low": 0.1402, "high": 0.1644})
        == "0.152 (0.140 to 0.164)"
    )
    assert (
        mean_and_interval({"mean": -1901.94, "low": -1925.2, "high": -1878.7})
        == "-1,902 (-1,925 to -1,879)"
    )
    assert plus_minus({"mean": 0.15234, "low": 0.1402, "high": 0.1644}) == "0.152 +- 0.012"
    assert mean_and_interval({"mean": 0.15234, "low": None, "high": None}) == "0.1523"
    base_rate = {"mean": 1.0986122887, "low": 1.0986122886, "high": 1.0986122888}
    assert mean_and_interval(base_rate) == "1.0986 (1.0986 to 1.0986)"
    assert (
        mean_and_interval(None)
        == mean_and_interval({"mean": None, "low": None, "high": None})
        == "-"
    )


def test_text_for_the_terminal_has_the_headline_first_and_fits(study, contexts):
    for path, _ in (study, contexts):
        own = summary_of(path)
        text = study_text(own)
        assert max(map(len, text.splitlines())) <= 120
        words = " ".join(text.split())
        assert words.startswith(" ".join(own["headline"].split())[:100])
        assert words.count("Faster convergence: ") == len(own["contexts"])
        assert "failed: " in text if own["failures"] else "failed: " not in text
    line = next(
        line
        for line in study_text(summary_of(study[0])).splitlines()
        if line.startswith("standard ")
    )
    nll = plus_minus(summary_of(study[0])["settings"][0]["measures"]["test_nll"])
    assert line.split("  ")[0] == "standard"
    assert "8,970" in line
    assert nll in line


def test_settings_without_comparisons_are_shown_side_by_side(tmp_path, undrawn):
    """Test one joint table, on the terminal and on the page."""
    methods = ("map", "nuts", "laplace, structure=diagonal")
    path = write_study(tmp_path / "methods", contexts=methods, seeds=3, regression=True, kinds=1)
    summary = json.loads((path / "summary.json").read_text())
    text = study_text(summary)
    assert text.startswith("3 settings are compared; none of them breaks the symmetry")
    header, _, *rows = text.split("\n\n")[1].splitlines()
    assert header.split("  ")[0] == "setting"
    keys = ("test_nll", "test_rmse", "test_coverage_90", "seconds")
    assert all(measure_of(key).label in header for key in keys)
    assert [row.split("  ")[0] for row in rows] == list(methods)
    assert plus_minus(summary["settings"][1]["measures"]["test_coverage_90"]) in rows[1]
    page = Page(write_study_report(path).read_text())
    titles = [title for _, title in page.headings]
    assert titles.index("Side by side") < min(titles.index(method) for method in methods)
    assert "Conclusions" not in titles
    assert "Overview" not in titles


def test_what_is_neither_a_study_nor_a_run_is_refused(tmp_path):
    with pytest.raises(InvalidRun, match="neither a study nor a run"):
        write_report(tmp_path)
    with pytest.raises(InvalidRun, match="there is no directory"):
        write_report(tmp_path / "none")
    (tmp_path / "study.yaml").write_text("study: {}\n")
    with pytest.raises(
        InvalidRun, match=r"without summary\.json; resume it with: bnn-symm compare --resume"
    ):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "got a list, expected an object"),
        ('{"name": "x"}', "has no study_schema"),
        ('{"study_schema": 2}', "reads up to 1; upgrade"),
        (
            '{"study_schema": 1, "contexts": [], "settings": []}',
            "damaged: it has no comparisons, conclusions",
        ),
    ],
)
def test_damaged_summaries_are_refused_with_a_reason(tmp_path, content, message):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InvalidRun, match=message):
        write_report(tmp_path)


@pytest.mark.parametrize("column", ["test_nll", "elbo", "seed"])
def test_a_table_whose_numbers_are_lists_is_refused(column, study, tmp_path):
    path = shutil.copytree(study[0], tmp_path / "copy")
    frame = pd.read_parquet(path / "cells.parquet")
    frame[column] = [[1.0, 2.0]] * len(frame)
    frame.to_parquet(path / "cells.parquet")
    with pytest.raises(InvalidRun, match=rf"cells\.parquet is damaged: {column} is \[1"):
        write_report(path)


def test_a_damaged_table_is_refused(study, tmp_path):
    path = shutil.copytree(study[0], tmp_path / "copy")
    (path / "cells.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InvalidRun, match=r"cells\.parquet is damaged"):
        write_report(path)


HARNESS = """<script>
addEventListener("load", () => {
  const images = [...document.images].map(image => image.naturalWidth);
  const loaded = performance.getEntriesByType("resource").map(entry => entry.name.slice(0, 40));
  const wide = document.documentElement.scrollWidth - innerWidth;
  document.body.dataset.found = JSON.stringify({images, loaded, wide});
});
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1200, 500])
@pytest.mark.parametrize("name", ["study", "contexts"])
def test_a_browser_shows_every_image_without_errors(name, width, request, tmp_path):
    assert_shown(request.getfixturevalue(name)[1], width, tmp_path)


def assert_shown(text, width, folder):
    """Assert that a browser shows a page with all images, without errors, in the given width."""
    page = folder / "page.html"
    page.write_text(text.replace("</body>", f"{HARNESS}</body>"))
    shown = browse(page, width)
    found = json.loads(html.unescape(re.search(r'data-found="(.*?)"', shown.stdout)[1]))
    assert len(found["images"]) == len(Page(text).all("img"))
    assert min(found["images"]) > 100
    assert {source.partition(":")[0] for source in found["loaded"]} <= {"data"}
    assert found["wide"] <= 0  # tables scroll in themselves, the page does not
    assert "CONSOLE" not in shown.stderr


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_browser_harness_detects_errors(tmp_path):
    page = tmp_path / "page.html"
    broken = (
        '<img src="data:image/svg+xml;base64,PHN2Zw=="><img src="missing.png">'
        '<script>console.error("lost")</script>'
    )
    page.write_text(f"<!DOCTYPE html><body>{broken}{HARNESS}</body>")
    shown = browse(page, 1200)
    found = json.loads(html.unescape(re.search(r'data-found="(.*?)"', shown.stdout)[1]))
    assert found["images"] == [0, 0]
    assert "lost" in shown.stderr


def browse(page: Path, width: int):
    """Open a page without a network; return its document and its console messages."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'profile'}"]
    flags += [f"--window-size={width},2000", "--virtual-time-budget=5000", "--dump-dom"]
    return subprocess.run(
        [CHROMIUM, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
