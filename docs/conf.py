"""How Sphinx builds the site: `sphinx-build -W --keep-going docs build/docs`, where the package is installed"""

import contextlib
import inspect
import io
import os
import re
import tempfile
from enum import Enum
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")

import fastridge

HERE = Path(__file__).parent

project = "fastridge"
author = "The fastridge developers"
copyright = author
release = version = fastridge.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_parser", "sphinx_gallery.gen_gallery"]
templates_path = ["_templates"]
exclude_patterns = ["_templates"]

myst_heading_anchors = 3
default_role = "py:obj"
autosummary_generate = True
autodoc_mock_imports = ["dask", "distributed"]
autodoc_typehints = "none"  # the docstrings say more
numpydoc_show_class_members = False
numpydoc_attributes_as_param_list = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "ignore_pattern": "quickstart|criteria|groups",
    "within_subsection_order": "ExampleTitleSortKey",
    "backreferences_dir": None,
    "download_all_examples": False,
    "min_reported_time": 60,
    "show_signature": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "fastridge"
html_theme_options = {"logo": {"text": "fastridge"}, "show_prev_next": False, "navigation_with_keys": False}
html_show_copyright = False
html_sidebars = {"results": []}  # wide tables
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["fastridge.css"]


def draw(app):
    """Run the code of every page that saves pictures, and keep those in pictures/, where the page shows them"""
    folder = HERE / "pictures"
    folder.mkdir(exist_ok=True)
    for page in sorted(HERE.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if ".savefig(" not in text:
            continue
        names = {}
        with tempfile.TemporaryDirectory() as elsewhere, contextlib.chdir(elsewhere), contextlib.redirect_stdout(io.StringIO()):
            for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M):
                exec(block, names)
            for picture in Path().glob("*.png"):
                (folder / picture.name).write_bytes(picture.read_bytes())


LINKS = {
    "../bench/RESULTS.md": "results.md",
    "RESULTS.md": "results.md",
    "README.md": "benchmarks.md",
    "../docs/": "",
}
"""Of files beside docs/, and the pages that include them."""


def include(app, docname, source):
    """Put in files from beside docs/, and turn links between them into links between pages"""
    text = re.sub(r"^```\{include\} (\S+)\n```", lambda found: (HERE / found[1]).read_text("utf-8"), source[0], flags=re.M)
    for beside, page in LINKS.items():
        text = text.replace(f"]({beside}", f"]({page}")
    source[0] = text


def escape(app, what, name, thing, options, lines):
    """Attributes of fitted estimators, such as coef_, are no links; objectives are formulas"""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            line = f"``{line.strip()}``" if line.startswith("minimise over ") else line
            lines[i] = re.sub(r"(?<![\\`\w.])([A-Za-z]\w*)_(?![\w`])", r"\1\\_", line)


def sign(app, what, name, thing, options, signature, annotation):
    """Classes are called with the parameters of their __init__"""
    if what == "class" and not issubclass(thing, Enum) and inspect.isfunction(thing.__init__):
        parameters = list(inspect.signature(thing.__init__).parameters.values())[1:]
        public = [parameter for parameter in parameters if not parameter.name.startswith("_")]
        plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in public]
        return str(inspect.Signature(plain)), None
    return None


def setup(app):
    """Called by Sphinx"""
    app.connect("builder-inited", draw)
    app.connect("source-read", include)
    app.connect("autodoc-process-signature", sign)
    app.connect("autodoc-process-docstring", escape, priority=600)  # after numpydoc
