"""Configuration of the documentation site; `make docs` builds it into build/docs without a network."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # site_pages
sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks, which no wheel holds

import eaf_inference

project = "eaf-inference"
author = "the eaf-inference developers"
copyright = f"2026, {author}"
version = release = eaf_inference.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "site_pages",
]
exclude_patterns = ["kubernetes", "_build", "**.ipynb_checkpoints"]
suppress_warnings = ["config.cache"]
default_role = "code"  # single backticks in docstrings

# Notebooks are shown with the outputs that are stored in them.
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "gfm"
nb_ipywidgets_js = {}  # they would come from the network
# A notebook's widget is stored as a picture beside it.
nb_mime_priority_overrides = [("*", "application/vnd.jupyter.widget-view+json", None)]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_default_options = {
    "members": True,
    "special-members": "__call__",
    "exclude-members": "__init__",  # the classes are made by functions, which are documented
    "member-order": "bysource",
}
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # numpydoc's sections say them, with shapes and units
autodoc_class_signature = "separated"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = False

# Links to pages, headings, settings (`confval`) and API names are checked. Other projects' names are not resolved,
# because that would need a network.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!eaf_inference|eaf_facility).*")]
linkcheck_ignore = [r"https?://.*\.example\.org.*", r"https?://(localhost|127\.0\.0\.1).*"]

html_title = "eaf-inference"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static", "../node_modules/mermaid/dist/mermaid.min.js"]
html_css_files = ["site.css"]
html_sidebars = {"get-started": []}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_nav_level": 1,
    "navigation_depth": 3,
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "navbar_align": "left",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_exclude = ".linenos, .gp, .go"
