"""The Rust client: its stubs are fresh, its own tests pass, and its examples call the running service."""

from __future__ import annotations

import filecmp

import pytest
from tests.faults.proxy import fault_proxy
from toolchains.clients.conftest import ROOT, run
from toolchains.clients.programs import (
    PIECE_BYTES,
    assert_infers,
    assert_refused,
    assert_survives,
    assert_uploads,
    run_commands,
)

RUST = ROOT / "clients" / "rust"
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def built():
    """The folder of the built examples."""
    run("cargo", "build", "--quiet", "--examples", cwd=RUST)
    return RUST / "target" / "debug" / "examples"


@pytest.fixture(params=["the service's own port", "the edge"])
def environment_of_a_way(request, environment, stack):
    """What the examples are told, to go either way."""
    direct = request.param == "the service's own port"
    address = f"grpc://{stack.grpc_target}" if direct else stack.edge_url.replace("http", "grpc")
    return environment | {"CAM_ADDRESS": address}


def test_regenerating_the_stubs_changes_nothing(tmp_path):
    run("cargo", "run", "--quiet", "--package", "camserve-codegen", "--", str(tmp_path), cwd=RUST)
    committed = RUST / "src" / "gen"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in committed.iterdir())
    assert filecmp.cmpfiles(committed, tmp_path, names, shallow=False)[0] == names


def test_its_own_tests_pass_and_nothing_is_to_be_mended():
    run("cargo", "test", "--quiet", "--lib", cwd=RUST)
    run("cargo", "fmt", "--check", "--package", "camserve-client", "--package", "camserve-codegen", cwd=RUST)
    run("cargo", "clippy", "--quiet", "--all-targets", "--", "--deny=warnings", cwd=RUST)


def test_an_image_is_classified_and_its_heatmap_written(built, environment_of_a_way, pictures, tmp_path):
    assert_infers(built / "infer", pictures, environment_of_a_way, tmp_path / "heatmap.png")


def test_connections_are_encrypted(built, encrypted, pictures, tmp_path):
    for address in encrypted["CAM_ENCRYPTED"].split()[1:]:
        assert_infers(built / "infer", pictures, encrypted | {"CAM_ADDRESS": address}, tmp_path / "heatmap.png")


def test_a_refusal_has_its_code_status_and_request(built, environment_of_a_way, pictures):
    assert_refused(built / "infer", pictures, environment_of_a_way)


def test_fifty_megabytes_are_uploaded_in_less_memory_than_that(built, environment_of_a_way, pictures):
    assert_uploads(built / "upload", pictures / "slide.tif", environment_of_a_way)


def test_an_upload_goes_on_where_its_connection_broke(built, stack, environment, pictures):
    host, port = stack.grpc_target.rsplit(":", 1)
    with fault_proxy(host, int(port)) as proxy:
        through = environment | {"CAM_ADDRESS": f"127.0.0.1:{proxy.port}"}
        assert assert_survives([built / "upload"], pictures / "slide.tif", through, proxy) >= PIECE_BYTES


def test_the_readme_shows_the_example():
    assert (RUST / "examples" / "upload.rs").read_text().partition("\n\n")[2] in (RUST / "README.md").read_text()


def test_the_commands_of_the_readme_run(built, stack, tmp_path):
    assert "star 0.9" in run_commands(RUST / "README.md", stack, tmp_path)
