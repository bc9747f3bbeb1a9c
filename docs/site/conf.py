"""How Sphinx makes the site: `make docs-site`. The sources are the Markdown files as a code host shows them."""

from __future__ import annotations

import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]

project = _PROJECT["name"]
release = version = _PROJECT["version"]
extensions = ["myst_parser", "docs.site.navigation", "docs.site.files"]

# The source folder is the repository, so that links between pages are the same here and there.
include_patterns = ["README.md", "CHANGELOG.md", "SECURITY.md", "docs/**.md", "clients/*/README.md", "envoy/README.md"]
exclude_patterns = [
    ".*",
    "build",
    "gen",
    "models",
    "protos",
    "server",
    "tests",
    "toolchains",
    "training",
    "**/node_modules",
]
root_doc = "docs/README"
nitpicky = True

# As on a code host: headings have anchors, and so do links name them.
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"camserve {version}"
html_favicon = "../../clients/web/site/icon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
# Whoever opens the folder comes to the map of the pages.
html_additional_pages = {"index": "moved.html"}
templates_path = ["templates"]

linkcheck_timeout = 10
linkcheck_retries = 2
# The reader's own service, and names that are nobody's.
linkcheck_ignore = [r"http://127\.0\.0\.1[:/]", r"https://[a-z.]*example\.com"]
