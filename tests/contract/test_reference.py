"""The pages of docs/reference have everything that the protos have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs.openapi.comments import comments
from docs.pages import contract, reference

from camserve_server.base.errors import CATALOGUE
from camserve_server.rpc.server import internal_services, services

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "reference"


def test_every_proto_file_has_its_page():
    files = {path.stem for path in (ROOT / "protos" / "camserve" / "v1").glob("*.proto")}
    assert sorted(files) == sorted(file for files in contract.FILES.values() for file in files)
    assert {path.stem for path in PAGES.iterdir()} == {*contract.FILES, "README"}


def test_every_service_has_its_page():
    served = {service.full_name for service in [*services().values(), *internal_services().values()]}
    described = {contract.service(page).full_name for page in contract.FILES}
    assert described == {name for name in served if name.startswith("camserve.")}


@pytest.mark.parametrize("page", contract.FILES)
def test_every_rpc_and_message_has_a_heading(page):
    headings = re.findall(r"^#+ (.+)$", (PAGES / f"{page}.md").read_text(), re.MULTILINE)
    for method in contract.service(page).methods:
        assert method.name in headings
    for file in contract.files(page):
        for message in file.message_types_by_name:
            assert message in headings


def test_everything_that_has_a_comment_is_there_with_it():
    text = " ".join("\n".join(path.read_text() for path in PAGES.iterdir()).split())
    text = re.sub(r"\[(`[^`]+`)\]\(\.\./errors\.md[^)]*\)", r"\1", text.replace("\\", ""))
    told = {name: comment for name, comment in comments().items() if not name.startswith(contract.CATALOGUE)}
    assert len(told) > 500
    for name, comment in told.items():
        for paragraph in comment.replace("\\", "").split("\n\n"):
            assert " ".join(paragraph.split()) in text, name


def test_defaults_ranges_and_choices_are_those_of_the_protos():
    text = reference.page("inference")
    for row in (
        "| `top_k` | optional int32 | 1 to 1000; default `5` |",
        "| `alpha` | optional double | 0 to 1; default `0.5` |",
        "| `model` | string | required; 1 to 128 characters |",
        "| `heatmap` | string | `inline`, `url`; default `url` |",
        "| `image` | [`ImageInput`](#imageinput) | required |",
        "| `queued` | 1 | The job waits for its turn. |",
    ):
        assert row in text


def test_an_rpc_says_who_may_call_it_and_what_it_costs():
    create = reference.page("jobs").partition("## CreateJob")[2].partition("\n## ")[0]
    for row in (
        "| REST | `POST /v1/jobs` |",
        "| success | `202` |",
        "| scopes | `jobs.write` |",
        "| idempotency key | remembered under `create_job` |",
        "| cost | one request, one concurrent call, its images |",
    ):
        assert row in create
    assert "| scopes | none: public |" in reference.page("health")
    assert "| scopes | any valid token |" in reference.page("limits")


def test_every_error_is_in_the_section_of_its_status():
    text = (ROOT / "docs" / "errors.md").read_text()
    for reason, entry in CATALOGUE.items():
        section = text.partition(f"## {entry.status} {entry.type}\n")[2].partition("\n## ")[0]
        assert f"| `{reason.value}` | {entry.grpc} | " in section
