"""The REST API's page and document in the site, where the repository has them too."""

from __future__ import annotations

from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_FOLDER = "docs/api"
# Where the edge serves the document that lies beside the page here.
_SERVED = 'href="/v1/openapi.json"'


def setup(app: Sphinx) -> ExtensionMetadata:
    """Links to the page where other files would be offered as downloads."""
    # Before Sphinx looks what there is to download.
    app.connect("doctree-read", _link, priority=100)
    app.connect("build-finished", _copy)
    return {"version": "1", "parallel_read_safe": True}


def _link(app: Sphinx, doctree: nodes.document) -> None:
    page = app.env.docname
    for node in list(doctree.findall(addnodes.download_reference)):
        file = normpath(join(dirname(page), node["reftarget"]))
        if file.startswith(f"{_FOLDER}/"):
            node.replace_self(nodes.reference("", "", *node.children, refuri=relpath(file, dirname(page) or ".")))


def _copy(app: Sphinx, failure: Exception | None) -> None:
    if failure or app.builder.format != "html":
        return
    folder = Path(app.outdir) / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted((Path(app.srcdir) / _FOLDER).iterdir()):
        text = file.read_text()
        if file.suffix == ".html":
            if _SERVED not in text:
                raise ValueError(f"{file} does not link to the document")
            text = text.replace(_SERVED, 'href="openapi.json"')
        (folder / file.name).write_text(text)
