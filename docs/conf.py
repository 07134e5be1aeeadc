"""How the documentation is built: `sphinx-build -W docs docs/_build/html`."""

from sleighexec import __version__

project = "sleighexec"
author = "the sleighexec authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
default_role = "code"  # a single backtick in a docstring

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
add_module_names = False
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"sleighexec {release}"
html_show_copyright = False  # the LICENSE has it
html_static_path = ["_static"]
html_css_files = ["tables.css"]
