"""Configure the documentation: `make docs` builds docs/_build/html/index.html, offline.

Tutorials are the notebooks, with the outputs that they were saved with. The reference of commands,
configuration keys and names is written by `reference_pages` from the program itself.
"""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference_pages

import bnn_symm

reference_pages.write(Path(__file__).parent / "reference")

project = "bnn_symm"
author = "the developers of bnn_symm"
copyright = author
release = version = bnn_symm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"
exclude_patterns = ["_build"]
suppress_warnings = ["mystnb.unknown_mime_type"]

# Docstrings write code in single backticks, as in Markdown.
default_role = "code"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# The inventories of other projects are on their sites: name them to link to their documentation.
if os.environ.get("BNN_SYMM_DOCS_ONLINE"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "pyro": ("https://docs.pyro.ai/en/stable", None),
        "arviz": ("https://python.arviz.org/en/stable", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
    }

html_theme = "pydata_sphinx_theme"
html_title = "bnn_symm"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": []}
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

# Outside code, these characters of formulas and shapes, (point, *feature) or |w|, are no markup.
_CODE_OR_EMPHASIS = re.compile(r"(``.*?``|`.*?`|(?<![\w(,*])\*\w[^*]*\w\*(?!\w))")


def _escape_formulas(_app, _what, _name, _object, _options, lines):
    in_code = False
    for number, line in enumerate(lines):
        in_code = line.strip().startswith(">>>") or (in_code and bool(line.strip()))
        if not in_code:
            parts = _CODE_OR_EMPHASIS.split(line)
            parts[::2] = [re.sub(r"(?<!\\)([*|])", r"\\\1", part) for part in parts[::2]]
            lines[number] = "".join(parts)


def _keep_intervals_together(_app, _name, source):
    """Replace the spaces of `1.2 +- 0.3` in tables, so that a narrow column breaks elsewhere."""
    source[0] = "\n".join(
        re.sub(r"(?<=\d) \+- (?=\d)", "\N{NO-BREAK SPACE}+-\N{WORD JOINER}\N{NO-BREAK SPACE}", line)
        if line.startswith("|")
        else line
        for line in source[0].split("\n")
    )


def setup(app):
    """Escape formulas before napoleon reads docstrings, whose output has markup of its own."""
    app.connect("source-read", _keep_intervals_together)
    app.connect("autodoc-process-docstring", _escape_formulas, priority=100)
