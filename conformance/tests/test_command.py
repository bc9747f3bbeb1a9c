"""The command: its exit codes, its reports, and that they keep secrets."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conformance.tests.altering import header, on, status
from conformance.tests.conftest import Deployment
from conformance.tests.proxy import Exchange, faulty_proxy
from tests.conftest import free_ports

from camserve_conformance.options import Options
from camserve_conformance.outcomes import State
from camserve_conformance.report import as_junit, as_text
from camserve_conformance.runner import CannotRunError, run

pytestmark = pytest.mark.timeout(180)


async def _command(*arguments: str, token: str = "") -> tuple[int, str]:
    """Runs the command as a user does; returns its exit code and what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CAM_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "camserve_conformance",
        *arguments,
        env=inherited | ({"CAM_TOKEN": token} if token else {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


async def test_a_deployment_that_conforms_is_0(options: Options) -> None:
    code, printed = await _command(options.url, "--only", "models,errors.no_error", token=options.token)
    assert code == 0, printed
    assert "the deployment conforms" in printed


async def test_a_token_without_a_scope_says_nothing_of_the_deployment(deployment: Deployment, options: Options) -> None:
    narrow = deployment.stack.token(tenant="narrow", scopes=("jobs.read", "inference.read"))
    code, printed = await _command(options.url, token=narrow)
    assert code == 2, printed
    assert "lacks the scopes inference.write, jobs.write, webhooks.read, webhooks.write" in printed


async def test_client_credentials_are_enough(options: Options) -> None:
    named = ["--client-id", options.client_id, "--client-secret", options.client_secret]
    code, printed = await _command(options.url, *named, "--only", "models")
    assert code == 0, printed


async def test_a_violation_is_1_and_tells_everything_but_secrets(
    deployment: Deployment, proxied: Options, tmp_path: Path
) -> None:
    reports = tmp_path / "report.json", tmp_path / "report.xml"
    named = ["--only", "surface.models", "--json", str(reports[0]), "--junit", str(reports[1])]
    async with faulty_proxy(deployment.proxy_port, deployment.stack.edge_url) as proxy:
        proxy.alter = on("GET /v1/models", status(203))
        code, printed = await _command(proxied.url, *named, token=proxied.token)
    assert code == 1, printed
    for told in (
        "GET /v1/models answers 200.",
        "the status is 203, not 200",
        f"GET {proxied.url}/v1/models",
        "request id",
    ):
        assert told in printed
    document = json.loads(reports[0].read_text())
    (check,) = (each for each in document["checks"] if each["state"] == "violated")
    assert check["request_id"] == check["answer"]["headers"]["request-id"]
    assert document["counts"]["violated"] == document["exit_code"] == 1
    suite = ElementTree.parse(reports[1]).find("testsuite")
    assert suite is not None
    assert suite.get("failures") == "1"
    for text in (printed, *(report.read_text() for report in reports)):
        assert proxied.token not in text
        assert "authorization: Bearer ***" in text or '"authorization": "Bearer ***"' in text


async def test_secrets_of_answers_are_masked(deployment: Deployment, proxied: Options) -> None:
    async with faulty_proxy(deployment.proxy_port, deployment.stack.edge_url) as proxy:
        proxy.alter = on("POST /.*", status(299))
        names = ("webhooks.created", "auth.issue_form", "auth.issue_basic", "surface.presign")
        report = await run(replace(proxied, only=names))
    assert report.exit_code == 1
    for text in (as_text(report), as_junit(report)):
        assert proxied.client_secret not in text
        assert "whsec_" not in text
        assert "eyJ" not in text
        assert "token=" not in text.replace("token=***", "")


async def test_what_could_not_be_run_is_2_and_told_apart(deployment: Deployment, proxied: Options) -> None:
    async with faulty_proxy(deployment.proxy_port, deployment.stack.edge_url) as proxy:
        proxy.alter = on("GET /v1/models", status(503))
        code, printed = await _command(proxied.url, "--only", "infer.top_k,health", token=proxied.token)
    assert code == 2, printed
    assert "NOT RUN   infer.top_k: GET" in printed
    assert "1 not run" in printed


async def test_what_needs_an_option_is_skipped_and_says_which(options: Options) -> None:
    code, printed = await _command(options.url, "--only", "auth.scope,models.shape", token=options.token)
    assert code == 0, printed
    assert "SKIPPED   needs --narrow-token" in printed
    assert "\n  auth.scope" in printed


async def test_space_around_tokens_is_not_part_of_them(options: Options) -> None:
    named = ["--narrow-token", f" {options.narrow_token}\r\n", "--only", "models,auth.scope"]
    code, printed = await _command(options.url, *named, token=f"{options.token}\n")
    assert code == 0, printed


@pytest.mark.parametrize("token", ["tök.en", "to ken", "to\nken"])
async def test_a_token_that_no_header_takes_is_a_usage_error_that_does_not_show_it(token: str) -> None:
    for given in ({"token": token}, {}):
        code, printed = await _command("http://127.0.0.1:1", *([] if given else ["--token", token]), **given)
        assert code == 2
        assert printed.splitlines()[-1].endswith("error: argument --token: it must be of visible ASCII characters")
        assert token not in printed


async def test_a_request_that_cannot_be_sent_is_told_without_its_token(options: Options) -> None:
    with pytest.raises(CannotRunError, match="GET /v1/limits could not be sent") as raised:
        await run(replace(options, token="opaque\n"))
    assert "opaque" not in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["http://127.0.0.1:99999"],
        ["127.0.0.1:8080"],
        ["http://127.0.0.1:port"],
        ["http://127.0.0.1:1", "--grpc", "127.0.0.1:99999"],
        ["http://127.0.0.1:1", "--grpc", "grpc://127.0.0.1"],
        ["http://127.0.0.1:1", "--receive", "127.0.0.1:99999"],
        ["http://127.0.0.1:1", "--receive-url", "127.0.0.1:9000"],
    ],
)
async def test_what_is_no_address_is_a_usage_error(arguments: list[str]) -> None:
    code, printed = await _command(*arguments, token="a.b.c")
    assert code == 2
    assert " error: argument " in printed.splitlines()[-1]


async def test_a_grpc_port_that_is_closed_is_2(options: Options) -> None:
    closed = f"127.0.0.1:{free_ports(1)[0]}"
    code, printed = await _command(options.url, "--grpc", closed, "--only", "health", token=options.token)
    assert code == 2
    (line,) = printed.splitlines()
    assert line.startswith("could not be run: gRPC camserve.v1.HealthService/GetHealth got no answer: UNAVAILABLE")


@pytest.mark.parametrize("option", ["--json", "--junit"])
async def test_a_report_that_cannot_be_written_is_told_before_the_run(tmp_path: Path, option: str) -> None:
    report = tmp_path / "missing" / "report"
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    code, printed = await _command(url, option, str(report), token="a.b.c")
    assert code == 2
    assert printed == f"could not be run: [Errno 2] No such file or directory: '{report}'\n"


async def test_runs_beside_one_another_are_not_in_each_others_way_at_the_token_endpoint(options: Options) -> None:
    # A client that was wrong ten times in a minute gets 429.
    for _ in range(11):
        report = await run(replace(options, grpc="", only=("auth.unknown_client",)))
        assert report.exit_code == 0, as_text(report)


@pytest.mark.parametrize("pause_s", [1, 600])
async def test_a_caller_who_is_to_come_later_does_or_says_so(
    deployment: Deployment, proxied: Options, pause_s: int
) -> None:
    refusals = 0

    def refuse_once(exchange: Exchange) -> None:
        nonlocal refusals
        refusals += 1
        if refusals == 1:
            exchange.status = 429
            exchange.headers["retry-after"] = str(pause_s)

    async with faulty_proxy(deployment.proxy_port, deployment.stack.edge_url) as proxy:
        proxy.alter = on("POST /oauth2/token", refuse_once)
        report = await run(replace(proxied, only=("auth.unknown_client",)))
    (outcome,) = report.outcomes
    if pause_s == 1:
        assert outcome.state is State.PASSED, outcome.why
    else:
        assert (outcome.state, report.exit_code) == (State.BLOCKED, 2)
        assert "/oauth2/token answered 429" in outcome.why


@pytest.mark.parametrize("token", ["", "not.a.token"])
async def test_a_deployment_that_does_not_answer_or_know_the_token_is_2(options: Options, token: str) -> None:
    url = options.url if token else f"http://127.0.0.1:{free_ports(1)[0]}"
    code, printed = await _command(url, "--timeout", "5", token=token or options.token)
    assert code == 2
    assert printed.startswith("could not be run: ")


async def test_checks_are_listed_with_their_sentences() -> None:
    code, printed = await _command("--list", "--only", "models", "--except", "*@grpc")
    assert code == 0
    assert "models.golden" in printed
    assert "`golden` is passed, failed or none." in printed
    assert "@grpc" not in printed


async def test_no_address_and_no_token_are_2() -> None:
    assert (await _command())[0] == 2
    assert (await _command("http://127.0.0.1:1"))[0] == 2


async def test_a_missing_header_is_told_with_the_answers_headers(deployment: Deployment, proxied: Options) -> None:
    async with faulty_proxy(deployment.proxy_port, deployment.stack.edge_url) as proxy:
        proxy.alter = on("GET /v1/models", header("request-id", None))
        report = await run(replace(proxied, only=("headers.request_id",)))
    assert "request id  (none)" in as_text(report)
