"""The Java client: it builds, its own tests pass, and its example calls the running service."""

from __future__ import annotations

import hashlib
import re

import pytest
from tests.faults.proxy import fault_proxy
from toolchains.clients.conftest import ROOT, run
from toolchains.clients.programs import PIECE_BYTES, assert_survives, run_commands
from toolchains.clients.stubs import assert_same

JAVA = ROOT / "clients" / "java"
EXAMPLE = JAVA / "example" / "src" / "main" / "java" / "io" / "camserve" / "example" / "Example.java"
# Less than the slide has, on the heap and beside it: an upload that held it whole would fail.
MEMORY = ("-Xmx40m", "-XX:MaxDirectMemorySize=24m")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def built():
    """The class path of the example, whose build runs the client's own tests."""
    run("mvn", "--batch-mode", "--no-transfer-progress", "--quiet", "package", cwd=JAVA)
    return f"{JAVA}/example/target/classes:{JAVA}/example/target/lib/*"


@pytest.fixture
def example(built, stack, environment, pictures):
    """Runs the example in the folder of the pictures and returns what it printed."""

    def call(*arguments, address=f"grpc://{stack.grpc_target}"):
        java = ("java", *MEMORY, "-cp", built, "io.camserve.example.Example")
        return run(*java, *arguments, cwd=pictures, environment=environment | {"CAM_ADDRESS": address})

    return call


def test_buf_makes_of_the_protos_what_maven_compiled(built):
    run("make", "proto-java", cwd=ROOT)
    assert_same(JAVA / "client" / "target" / "generated-sources" / "protobuf", JAVA / "target" / "stubs")


def test_an_image_is_classified_and_its_heatmap_written(example, stack, tmp_path):
    edge = stack.edge_url.replace("http", "grpc")
    for number, (photo, address) in enumerate(
        [("photo.jpg", f"grpc://{stack.grpc_target}"), ("photo.jpg", edge), ("large.png", edge)]
    ):
        heatmap = tmp_path / f"{number}.png"
        said = example("infer", photo, str(heatmap), address=address)
        assert len(said.splitlines()) == 3
        assert photo != "photo.jpg" or said.startswith("star 0.9")
        assert heatmap.read_bytes().startswith(b"\x89PNG")


def test_connections_are_encrypted(built, encrypted, pictures, tmp_path):
    java = ("java", *MEMORY, "-cp", built, "io.camserve.example.Example")
    for address in encrypted["CAM_ENCRYPTED"].split()[1:]:
        told = encrypted | {"CAM_ADDRESS": address}
        said = run(*java, "infer", "photo.jpg", str(tmp_path / "a.png"), cwd=pictures, environment=told)
        assert said.startswith("star 0.9")


def test_an_image_for_a_job_is_waited_for(example, tmp_path):
    said = example("infer", "slide.tif", str(tmp_path / "slide.png"))
    assert len(said.splitlines()) == 3
    assert (tmp_path / "slide.png").read_bytes().startswith(b"\x89PNG")


def test_fifty_megabytes_are_uploaded_in_less_memory_than_that(example, pictures):
    slide = (pictures / "slide.tif").read_bytes()
    *told, stored = example("upload", "slide.tif").splitlines()
    sent = [int(line.split()[0]) for line in told]
    assert sent == sorted(sent)
    assert len(sent) > 50
    assert told[-1] == f"{len(slide)} of {len(slide)} bytes"
    assert stored.split()[1] == hashlib.sha256(slide).hexdigest()


def test_an_upload_goes_on_where_its_connection_broke(built, stack, environment, pictures):
    host, port = stack.grpc_target.rsplit(":", 1)
    with fault_proxy(host, int(port)) as proxy:
        command = ("java", *MEMORY, "-cp", built, "io.camserve.example.Example", "upload")
        through = environment | {"CAM_ADDRESS": f"grpc://127.0.0.1:{proxy.port}"}
        assert assert_survives(command, pictures / "slide.tif", through, proxy) >= PIECE_BYTES


def test_every_image_of_a_batch_has_an_outcome(example, pictures):
    (pictures / "broken.jpg").write_bytes(b"no image")
    said = example("batch", "photo.jpg", "other.jpg", "broken.jpg", "slide.tif")
    outcomes = dict(line.split() for line in said.splitlines())
    assert outcomes.keys() == {"photo.jpg", "other.jpg", "broken.jpg", "slide.tif"}
    assert (outcomes["photo.jpg"], outcomes["other.jpg"]) == ("star", "ring")
    assert outcomes["broken.jpg"] == "image.invalid_format"


def test_a_job_is_waited_for_and_its_event_verified(example, receiver_port):
    *_, one, other, event = example("job", str(receiver_port), "photo.jpg", "other.jpg").splitlines()
    assert (one, other, event) == ("photo.jpg star", "other.jpg ring", "job.succeeded true 2")


def test_a_refusal_has_its_code_status_and_request(example):
    assert re.fullmatch(r"model\.not_found 404 [0-9a-f-]{36}\n", example("refused", "photo.jpg"))


def test_the_readme_shows_what_the_example_does():
    source = "".join(EXAMPLE.read_text().split())
    snippets = re.findall(r"^```java\n(.*?)^```", (JAVA / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert snippets
    for snippet in snippets:
        for part in snippet.split("\n\n"):
            assert "".join(part.split()) in source, part


def test_the_commands_of_the_readme_run(built, stack, tmp_path):
    # What is installed would stay in the folder of whoever runs this.
    install = "mvn --file clients/java/pom.xml install"
    assert install in (JAVA / "README.md").read_text()
    assert "star 0.9" in run_commands(JAVA / "README.md", stack, tmp_path, without=install)


def test_the_dependency_of_the_readme_is_the_client():
    (shown,) = re.findall(r"^```xml\n(.*?)^```", (JAVA / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    parent, client = ((JAVA / folder / "pom.xml").read_text() for folder in ("", "client"))
    for part in shown.splitlines()[1:-1]:
        assert part.strip() in parent + client
