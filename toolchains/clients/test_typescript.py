"""The TypeScript client: its stubs are fresh, its own tests pass against the running stack, and its README is true."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from toolchains.clients.conftest import ROOT, here, run
from toolchains.clients.stubs import assert_fresh

TYPESCRIPT = ROOT / "clients" / "typescript"
pytestmark = pytest.mark.timeout(600)
BROWSER = Path(__file__).parent / "browser"
# What a reader's project has; the examples say nothing of it.
PROJECT = {"type": "module", "private": True}
COMPILER = {"module": "nodenext", "target": "es2022", "strict": True, "types": ["node"]}


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (TYPESCRIPT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project of a reader's own, into which the client was installed as the README says."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text(json.dumps(PROJECT))
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": COMPILER, "include": ["*.ts"]}))
    (commands,) = snippets("sh")
    run("sh", "-ec", commands.replace("../camserve", str(ROOT)), cwd=folder)
    return folder


def test_regenerating_the_stubs_changes_nothing(tmp_path):
    assert_fresh(TYPESCRIPT, tmp_path)


def test_it_calls_the_service(project, environment):
    run("npm", "test", cwd=TYPESCRIPT)
    run("node", "--test", "build/test/live.js", cwd=TYPESCRIPT, environment=environment)


def test_it_calls_the_service_over_tls(project, encrypted):
    run("npx", "tsc", "--project", "tsconfig.test.json", cwd=TYPESCRIPT)
    run("node", "--test", "build/test/encrypted.js", cwd=TYPESCRIPT, environment=encrypted)


def test_the_example_of_the_readme_runs(project, stack, receiver_port, environment, pictures):
    example, _ = snippets("ts")
    shutil.copytree(pictures, project, dirs_exist_ok=True)
    at = here(example, stack, receiver_port).replace("listen(9000,", f"listen({receiver_port},")
    (project / "example.ts").write_text(at)
    run("npx", "tsc", cwd=project)
    said = run("node", "example.js", cwd=project, environment=environment)
    assert "star: 9" in said
    assert "100 % of img_" in said
    assert "other.jpg ring" in said
    assert "front succeeded 1 of 1" in said
    assert "job.succeeded true" in said
    assert "model.not_found 404 true" in said
    assert (project / "heatmap.png").read_bytes().startswith(b"\x89PNG")


def browsed(project, script, page_port, environment, pictures):
    """Runs a script in a page of another origin than the edge's, after files were chosen there."""
    chromium = shutil.which("chromium")
    assert chromium, "this test needs Debian's package chromium"
    files = [str(pictures / name) for name in ("photo.jpg", "slide.tif")]
    said = run("node", "drive.js", str(page_port), chromium, str(script), *files, cwd=BROWSER, environment=environment)
    return json.loads(said)


def test_the_example_for_browsers_runs_in_chromium(project, page_port, environment, pictures):
    _, example = snippets("ts")
    script = project / "page.ts"
    declared = "declare const sessionToken: string, EDGE: string;"
    script.write_text(example.replace("location.origin", "EDGE") + declared)
    run("npx", "tsc", "--noEmit", cwd=project)
    said = browsed(project, script, page_port, environment, pictures)
    assert (said["label"], said["width"]) == ("star", 160)


def test_a_browser_does_what_node_does(project, page_port, environment, pictures):
    script = shutil.copy(BROWSER / "everything.ts", project)
    assert browsed(project, script, page_port, environment, pictures)["report"] == {
        "upload": [True, True, True],
        "batch": ["a star", "b star", "c star"],
        "job": "succeeded",
        "refused": ["model.not_found", 404, True],
        "streamed": "star",
    }
