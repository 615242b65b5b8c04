"""Sphinx's configuration; docs/site/build.py runs it, on pages that it gathers and makes."""

import stargz

project = "stargz"
version = release = stargz.__version__
copyright = "the stargz authors"

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4  # as GitHub names them, which the pages' links rely on

smartquotes = False  # which make one dash of an option's two
highlight_language = "none"
python_maximum_signature_line_length = 80
toc_object_entries = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_title = f"stargz {version}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
