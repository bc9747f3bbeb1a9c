"""Generates the pages that the code and the protos tell; `make docs` runs it, a test compares."""

from __future__ import annotations

from pathlib import Path

from camserve_server.base.config import PREFIX, Settings
from camserve_server.base.errors import CATALOGUE
from docs.openapi import document, page

DOCS = Path(__file__).parent
ERRORS_PROTO = DOCS.parent / "protos" / "camserve" / "v1" / "errors.proto"

SETTINGS_HEAD = """\
# Settings

Defaults, then `camserve.toml` in the working directory (or the file that `CAMSERVE_CONFIG` names), then the
environment, then flags. `camserve config` prints those in force. A value that is not allowed stops the start and names
itself. In the file the names are lowercase and without `CAMSERVE_`.

| variable | default | what it does |
|---|---|---|
"""

ERRORS_HEAD = """\
# Errors

Every error, whoever makes it, is `{"error": {"type", "code", "message", "status", "details"?, "request_id"}}` over
REST. Over gRPC it is the canonical code with `google.rpc.Status` details: `camserve.v1.ErrorObject`,
`google.rpc.ErrorInfo` and, where trying again helps, `google.rpc.RetryInfo`; errors of the edge itself, and those of
gRPC about a method that there is not, carry code and message only. The request id finds the call in the logs. JSON that
does not fit the request, such as two sources of one image or broken base64, is `json.malformed`: the edge's transcoder
refuses it; on GET and DELETE it is `param.invalid`. `/oauth2/token` answers in the form of RFC 6749 instead, but for
what the edge refuses (405, 413, 415).

| code | HTTP | gRPC | when |
|---|---|---|---|
"""


def settings_page() -> str:
    """Returns the page of every setting."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "bundled" if name == "models_dir" else field.default
        shown = "" if default is None or default in ((), {}) else f"`{default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |\n")
    return SETTINGS_HEAD + "".join(rows)


def errors_page() -> str:
    """Returns the page of every error."""
    lines = ERRORS_PROTO.read_text().splitlines()
    rows = []
    for reason, entry in CATALOGUE.items():
        value = reason.value.replace(".", "_", 1)
        comment = next(lines[i - 1] for i, line in enumerate(lines) if line.strip().startswith(f"{value} ="))
        when = comment.partition(f"{entry.grpc}. ")[2]
        rows.append(f"| `{reason.value}` | {entry.status} | {entry.grpc} | {when} |\n")
    return ERRORS_HEAD + "".join(rows)


def reference_page() -> str:
    """Returns the page of the REST surface."""
    return page.page(document.document())


PAGES = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "api/openapi.json": document.text,
    "api/index.html": reference_page,
}

if __name__ == "__main__":
    for file, make in PAGES.items():
        (DOCS / file).write_text(make())
