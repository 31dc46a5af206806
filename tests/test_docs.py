"""The documentation builds without warnings, is complete, and its commands exist."""

import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import bnn_symm
from bnn_symm.cli.program import build_parser, main
from bnn_symm.inference import automatic
from bnn_symm.runs.configuration.examples import find_example
from tests.report.test_report import CHROMIUM, browse

ROOT = Path(__file__).parent.parent
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [path for path in TEXTS if "_build" not in path.parts]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(path: Path) -> list[list[str]]:
    """Return the words of every command of this program in the code blocks of a text."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^\s*(?:\$ )?(?:CUDA\w+=\d )?bnn-symm (.+)$", text, re.MULTILINE)
    words = [shlex.split(line.rstrip(";").split("; done")[0], comments=True) for line in found]
    return [line for line in words if not any("|" in word for word in line)]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_text_parses(path):
    if path.name in ("command_line.md", "examples.md") and path.parent.name == "reference":
        pytest.skip("generated from the program")
    for words in commands(path):
        options = build_parser().parse_args([word for word in words if word not in (">", "<")])
        config = getattr(options, "config", None)
        if config is not None and Path(config).suffix == "" and config != "CONFIG":
            find_example(config)


def test_texts_have_commands():
    assert len([words for path in TEXTS for words in commands(path)]) > 60


def test_the_readme_fits_one_screen_and_its_lines_fit_100_columns():
    assert len(README.encode()) <= 8_000
    assert [line for line in README.splitlines() if len(line) > 100 and "|" not in line] == []
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.thorough
def test_the_python_of_the_readme_runs(tmp_path):
    code, output = re.search(r"```python\n([^`]*)```\n\n((?:    .*\n)+)", README).groups()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = [line.split(" ", 1) for line in output.replace("    ", "").splitlines()]
    printed = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [text for _, text in printed] == [text for _, text in expected]
    # The last digits depend on the processor.
    for (number, _), (value, _) in zip(expected, printed, strict=True):
        assert float(value) == pytest.approx(float(number), abs=0.1)


def test_the_method_of_the_guide_for_contributors_can_be_fitted():
    from bnn_symm.inference.optimization import map as module
    from bnn_symm.randomness import torch_generator
    from bnn_symm.testing import linear_regression

    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = text.partition("## Method\n")[2].split("```python\n")[1].split("```")[0]
    names = {**vars(module), "torch_generator": torch_generator}
    exec(code, names)
    fitted = names["NoisyMAP"](num_steps=20).fit(*linear_regression(), seed=0)
    assert bool(fitted.mean().isfinite().all())


@pytest.mark.thorough
def test_the_commands_of_the_readme_for_a_table_run(tmp_path, monkeypatch):
    from sklearn.datasets import load_diabetes

    # The methods are the default ones with fewer chains and steps, as a whole fit takes minutes.
    # That `auto` runs its stages is tested in test_automatic, the bias of unadjusted chains in
    # test_mclmc, at larger energy variances. No test fits at these settings: benchmarks/tables.py
    # measured them.
    fewer = {"_CHAINS": 2, "_MEMBER_STEPS": 40, "_LONGER_WARMUP": 10, "_MORE_DRAWS": 10}
    for name, number in fewer.items():
        assert getattr(automatic, name) > number
        monkeypatch.setattr(automatic, name, number)
    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame.to_csv(tmp_path / "patients.csv", index=False)
    frame.drop(columns="target").head(3).to_csv(tmp_path / "new_patients.csv", index=False)
    section = README.partition("## Fit your own table")[2].partition("\n## ")[0]
    lines = re.findall(r"^    bnn-symm (.+)$", section, re.MULTILINE)
    assert len(lines) == 5
    monkeypatch.chdir(tmp_path)
    for line in lines:
        assert main(shlex.split(line, comments=True)) == 0, line
    assert (tmp_path / "runs" / "patients" / "report.html").exists()
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 4


class Page(HTMLParser):
    """The element ids and the links of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids.add(attributes.get("id") or attributes.get("name") or "")
        if link := attributes.get("href" if tag in ("a", "link") else "src"):
            self.links.add(link)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built in another process, because type checks of tests change signatures."""
    pytest.importorskip("sphinx", reason="sphinx is not installed: pip install --group docs")
    folder = tmp_path_factory.mktemp("site")
    # A copy, because the build writes the generated pages beside the others.
    ignored = shutil.ignore_patterns("_build")
    source = shutil.copytree(ROOT / "docs", folder / "docs", ignore=ignored)
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    (folder / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "README.md", folder / "benchmarks")
    options = ["--fail-on-warning", "--keep-going", "--quiet"]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(folder / "html")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.thorough
def test_no_link_is_broken(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 50
    broken = []
    for path, page in pages.items():
        if "_modules" in path.parts or "_static" in path.parts:
            continue  # of Sphinx itself
        for link in page.links:
            target, anchor = urldefrag(unquote(link))
            if re.match(r"\w+:|//", link) or path.name in ("genindex.html", "search.html"):
                continue
            there = (path.parent / target.partition("?")[0]).resolve() if target else path
            known = pages.get(there)
            if not there.exists() or (anchor and known is not None and anchor not in known.ids):
                broken.append((str(path.relative_to(site)), link))
    assert broken == []


@pytest.mark.thorough
def test_every_public_name_has_an_entry(site):
    ids = {name for path in (site / "reference" / "api").glob("*.html") for name in Page(path).ids}
    entries = {name.rpartition(".")[2] for name in ids}
    for name in bnn_symm.__all__:
        value = getattr(bnn_symm, name)
        if inspect.ismodule(value):
            assert f"module-{value.__name__}" in ids, name
        elif name not in ("__version__", "BnnSymmError"):
            assert name in entries, name


@pytest.mark.thorough
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_every_page_without_errors(site, width, tmp_path):
    harness = """<script>addEventListener("load", () => {
      const images = Array.from(document.images).filter(image => !image.closest("template"));
      const wide = document.documentElement.scrollWidth - innerWidth;
      document.body.dataset.found = JSON.stringify(
        {missing: images.filter(image => !image.naturalWidth).map(image => image.src),
         unnamed: images.filter(image => !image.alt).length, wide});
    });</script></body>"""
    pages = [
        *site.glob("*/index.html"),
        *site.glob("tutorials/*.html"),
        *site.glob("results/*.html"),
    ]
    pages += [site / "index.html", site / "reference" / "configuration.html"]
    assert len(pages) > 15
    for path in pages:
        page = path.with_name(f"shown-{path.name}")
        page.write_text(path.read_text(encoding="utf-8").replace("</body>", harness))
        shown = browse(page, width)
        page.unlink()
        found = json.loads(
            re.search(r"data-found=\"(.*?)\"", shown.stdout)[1].replace("&quot;", '"')
        )
        assert found["missing"] == [], path
        assert found["wide"] <= 0, path
        # The theme reports which color mode it chose.
        messages = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
        assert all("pydata-sphinx-theme.js" in line for line in messages), (path, messages)
