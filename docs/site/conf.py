"""How the site looks, and what Sphinx makes of the Markdown and the docstrings."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import equimodal

project = "equimodal"
author = copyright = "The equimodal developers"  # noqa: A001
release = version = equimodal.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",
]

# Pages are written for GitHub first: `$...$` and ```math are equations, anchors are GitHub's.
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # generated pages begin below their first heading

html_theme = "furo"
html_title = f"equimodal {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/mark.svg"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .go"

autodoc_inherit_docstrings = False  # an overridden hook is documented where it is declared
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
maximum_signature_line_length = 88
toc_object_entries = False  # each page has a copy of the whole tree: names in it take minutes
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "py:obj"  # a link where the name is known, code where it is not
