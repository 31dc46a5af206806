"""The pages of the documentation contain every public name with its docstring."""

import html
import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import bnn_symm

ROOT = Path(__file__).parent.parent


class _Page(HTMLParser):
    """The text, the element ids and the links of a page."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.words = set(), set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids.add(attributes.get("id"))
        if tag == "a" and attributes.get("href"):
            self.links.add(attributes["href"])

    def handle_data(self, data):
        self.words += data.split()

    @property
    def text(self):
        # Markup may separate a word from its punctuation.
        return "".join(self.words)


def plain(docstring):
    """Return the first sentence as it appears on a page, without Markdown."""
    sentence = " ".join(docstring.strip().split("\n\n")[0].split())
    return re.sub(r"[`*\\\s]", "", html.unescape(sentence))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    pytest.importorskip("pdoc", reason="pdoc is not installed: pip install --group docs")
    folder = tmp_path_factory.mktemp("pages")
    # In a separate process, because the type checks of the tests change every signature.
    command = [sys.executable, str(ROOT / "docs" / "build_pages.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_public_name_has_an_entry_with_its_docstring(pages):
    page = _Page(pages / "bnn_symm.html")
    text = re.sub(r"[`*\\]", "", page.text)
    for name in bnn_symm.__all__:
        if inspect.ismodule(getattr(bnn_symm, name)):
            continue  # a namespace has a separate page
        docstring = getattr(bnn_symm, name).__doc__
        assert name in page.ids, name
        assert plain(docstring) in text, name


@pytest.mark.slow
def test_every_public_module_has_a_page(pages):
    package = ROOT / "bnn_symm"
    for module in package.rglob("*.py"):
        parts = module.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            assert (pages / Path(*parts).with_suffix(".html")).exists(), module


@pytest.mark.slow
def test_no_link_within_the_pages_is_broken(pages):
    found = {path: _Page(path) for path in pages.rglob("*.html")}
    broken = []
    for path, page in found.items():
        for link in page.links:
            file, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            target = (path.parent / file).resolve() if file else path
            if target not in found or (anchor and anchor not in found[target].ids):
                broken.append(f"{path.relative_to(pages)}: {link}")
    assert not broken, broken[:20]


@pytest.mark.slow
def test_guides_are_pages_with_their_pictures(pages):
    for name in ("index", "architecture", *(path.stem for path in (ROOT / "docs").glob("*.md"))):
        source = (pages / f"{name}.html").read_text(encoding="utf-8")
        for picture in re.findall(r'<img src="([^":]+)"', source):
            assert (pages / picture).exists(), f"{name}: {picture}"
    assert (pages / "search.js").stat().st_size > 100_000


@pytest.mark.slow
def test_settings_show_their_keys_and_defaults(pages):
    text = _Page(pages / "bnn_symm" / "inference" / "variational" / "mean_field_vi.html").text
    assert "num_steps:int=4000" in text
    assert "*args" not in text


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    pytest.importorskip("pdoc", reason="pdoc is not installed: pip install --group docs")
    (tmp_path / "mine.txt").write_text("mine")
    command = [sys.executable, str(ROOT / "docs" / "build_pages.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "name another folder" in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"
