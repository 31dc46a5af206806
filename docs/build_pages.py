"""Build the documentation: one page per module and per guide, linked and searchable (`make docs`).

    python docs/build_pages.py [FOLDER]        default: docs/_build; open FOLDER/index.html

pdoc reads docstrings without changes: Markdown in Google sections, strings below fields, and names
that `bnn_symm.__all__` exports. Its warnings are errors. Nothing is fetched, and the pages work
without a server.
"""

import argparse
import importlib
import pkgutil
import re
import shutil
import types
import warnings
from pathlib import Path

import jinja2
import pdoc
import pdoc.doc
import pdoc.render
import pdoc.render_helpers

import bnn_symm

ROOT = Path(__file__).resolve().parent.parent

GUIDES = {
    "index": (ROOT / "README.md", "Read me"),
    "architecture": (ROOT / "ARCHITECTURE.md", "How it is built"),
    "changelog": (ROOT / "CHANGELOG.md", "What changed"),
    "benchmarks": (ROOT / "benchmarks" / "README.md", "Benchmarks"),
}
"""Page -> its file and its title. Every docs/*.md is a page as well, with its first heading."""


def build(folder: Path) -> list[str]:
    """Write all pages into a new folder, and return the names of the modules that have one.

    Raises:
        SystemExit: if the folder holds something that is not pages of an earlier build.
        UserWarning: for a docstring, annotation or module that pdoc cannot read.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "search.js").exists():
        raise SystemExit(
            f"{folder} is not empty and has no pages of an earlier build; name another folder"
        )
    _resolve_public_names()
    names = public_modules()
    for name in names:
        # Before warnings are errors: what libraries warn of when imported is not about our pages.
        importlib.import_module(name)
    guides = _guides()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pages = _pages(guides) | {name: pdoc.doc.Module.from_name(name) for name in names}
        pdoc.render.configure(
            docformat="google",
            include_undocumented=False,
            template_directory=ROOT / "docs" / "templates",
        )
        pdoc.render.env.filters["link"] = _link
        pdoc.render.env.globals["guides"] = {name: title for name, (_, title) in guides.items()}
        shutil.rmtree(folder, ignore_errors=True)
        for name, page in pages.items():
            file = folder / f"{name.replace('.', '/')}.html"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(pdoc.render.html_module(page, pages), encoding="utf-8")
        (folder / "search.js").write_text(pdoc.render.search_index(pages), encoding="utf-8")
    # The guides name pictures by their place in the repository.
    for picture in (ROOT / "docs").glob("*.png"):
        (folder / "docs").mkdir(exist_ok=True)
        shutil.copy(picture, folder / "docs" / picture.name)
    return names


def public_modules() -> list[str]:
    """Return the names of all modules without a leading underscore."""
    found = [module.name for module in pkgutil.walk_packages(bnn_symm.__path__, "bnn_symm.")]
    return ["bnn_symm", *sorted(name for name in found if "._" not in name)]


def _resolve_public_names() -> None:
    """Import all public names, since pdoc only reads the dictionary of the module."""
    for name in bnn_symm.__all__:
        setattr(bnn_symm, name, getattr(bnn_symm, name))


@jinja2.pass_context
def _link(context: jinja2.runtime.Context, spec: tuple[str, str], text: str | None = None) -> str:
    """Link a name as pdoc does; private base classes and inherited constructors stay text."""
    parts = spec[1].split(".")
    has_entry = parts[-1] != "__init__" and not any(re.match(r"_(?!_)", part) for part in parts)
    return pdoc.render_helpers.link(context, spec, text) if has_entry else (text or spec[1])


def _guides() -> dict[str, tuple[Path, str]]:
    found = {name: guide for name, guide in GUIDES.items() if guide[0].exists()}
    for path in sorted((ROOT / "docs").glob("*.md")):
        heading = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        found[path.stem] = (path, heading[1] if heading else path.stem)
    return found


def _pages(guides: dict[str, tuple[Path, str]]) -> dict[str, pdoc.doc.Module]:
    """Return the guides as modules, which pdoc renders, links and searches like all others."""
    page_of = {str(path.relative_to(ROOT)): name for name, (path, _) in guides.items()}
    pages = {}
    for name, (path, _) in guides.items():
        module = types.ModuleType(name, path.read_text(encoding="utf-8"))
        for file, page in page_of.items():
            text = str(module.__doc__).replace(f"`{file}`", f"[{file}]({page}.html)")
            module.__doc__ = text.replace(f"]({file})", f"]({page}.html)")
        module.__dict__["__docformat__"] = "markdown"
        pages[name] = pdoc.doc.Module(module)
    return pages


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "_build")
    target = parser.parse_args().folder
    print(f"{len(build(target))} modules: {target / 'index.html'}")
