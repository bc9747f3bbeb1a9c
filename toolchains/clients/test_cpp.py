"""The C++ client: it builds, its own tests pass, and its examples call the running service."""

from __future__ import annotations

import pytest
from tests.faults.proxy import fault_proxy
from toolchains.clients.conftest import ROOT, run
from toolchains.clients.programs import assert_infers, assert_refused, assert_survives, assert_uploads, run_commands

CPP = ROOT / "clients" / "cpp"
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def built():
    """The folder of the built examples."""
    folder = CPP / "build"
    run("cmake", "-S", str(CPP), "-B", str(folder), cwd=CPP)
    run("cmake", "--build", str(folder), cwd=CPP)
    return folder


@pytest.fixture(params=["the service's own port", "the edge"])
def environment_of_a_way(request, environment, stack):
    """What the examples are told, to go either way."""
    direct = request.param == "the service's own port"
    return environment | {"CAM_ADDRESS": stack.grpc_target if direct else stack.edge_url.removeprefix("http://")}


def test_its_own_tests_pass(built):
    run("ctest", "--output-on-failure", cwd=built)


def test_an_image_is_classified_and_its_heatmap_written(built, environment_of_a_way, pictures, tmp_path):
    assert_infers(built / "infer", pictures, environment_of_a_way, tmp_path / "heatmap.png")


def test_connections_are_encrypted(built, encrypted, pictures, tmp_path):
    for address in encrypted["CAM_ENCRYPTED"].split()[1:]:
        told = encrypted | {"CAM_ADDRESS": address.removeprefix("grpcs://")}
        assert_infers(built / "infer", pictures, told, tmp_path / "heatmap.png")


def test_a_refusal_has_its_code_status_and_request(built, environment_of_a_way, pictures):
    assert_refused(built / "infer", pictures, environment_of_a_way)


def test_fifty_megabytes_are_uploaded_in_less_memory_than_that(built, environment_of_a_way, pictures):
    assert_uploads(built / "upload", pictures / "slide.tif", environment_of_a_way)


def test_an_upload_begins_anew_when_its_connection_broke(built, stack, environment, pictures):
    host, port = stack.grpc_target.rsplit(":", 1)
    with fault_proxy(host, int(port)) as proxy:
        through = environment | {"CAM_ADDRESS": f"127.0.0.1:{proxy.port}"}
        assert assert_survives([built / "upload"], pictures / "slide.tif", through, proxy) > 0


def test_the_readme_shows_the_example():
    example = (CPP / "examples" / "upload.cc").read_text()
    begin, end = example.index("  try {"), example.index("  } catch")
    assert example[begin:end] in (CPP / "README.md").read_text()


def test_the_commands_of_the_readme_run(built, stack, tmp_path):
    assert "star 0.9" in run_commands(CPP / "README.md", stack, tmp_path, without="apt-get ")
