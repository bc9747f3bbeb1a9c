"""The command line: `python -m camserve_conformance URL`."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx

from camserve_conformance import VERSION
from camserve_conformance.options import Options
from camserve_conformance.outcomes import Outcome, State
from camserve_conformance.report import as_json, as_junit, as_text, mask
from camserve_conformance.runner import CannotRunError, Report, run, selected
from camserve_conformance.signin import sign_in

_COULD_NOT_RUN = 2
_PORTS = 65536


def main(arguments: list[str] | None = None) -> int:
    """Runs the kit; returns 0 when the deployment conforms, 1 when it does not, 2 when that could not be told."""
    parser = _parser()
    given = parser.parse_args(arguments)
    options = _options(given)
    if given.list:
        for check in selected(options):
            print(f"{check.name:<44} {check.sentence}")
        return 0
    if not given.url:
        parser.error("the address of a deployment is missing")
    if not options.token and not options.has("client"):
        parser.error("a token is missing: --token, CAM_TOKEN, or --client-id and --client-secret")
    try:
        for path in filter(None, (given.json, given.junit)):
            # Before the run, which takes a while; what a former one wrote stays until this one has ended.
            path.open("a").close()
        report = asyncio.run(_run(options, _progress(given.quiet)))
        print(as_text(report), end="")
        if given.json:
            given.json.write_text(as_json(report))
        if given.junit:
            given.junit.write_text(as_junit(report))
    except (CannotRunError, OSError) as error:
        print(mask(options)(f"could not be run: {error}"), file=sys.stderr)
        return _COULD_NOT_RUN
    return report.exit_code


async def _run(options: Options, progress: Callable[[Outcome, int], None] | None) -> Report:
    if not options.token:
        options = replace(options, token=await sign_in(options))
    return await run(options, progress)


def _progress(quiet: bool) -> Callable[[Outcome, int], None] | None:
    if quiet or not sys.stderr.isatty():
        return None
    ended = 0
    bad = 0

    def show(outcome: Outcome, total: int) -> None:
        nonlocal ended, bad
        ended += 1
        bad += outcome.state is State.VIOLATED
        line = f"{ended} of {total}, {bad} violated: {outcome.check.name}"
        end = "\r\033[K" if ended == total else ""
        print(f"\r\033[K{line[:78]}{end}", end="", file=sys.stderr, flush=True)

    return show


def _options(given: argparse.Namespace) -> Options:
    return Options(
        url=(given.url or "").rstrip("/"),
        token=given.token,
        other_token=given.other_token,
        narrow_token=given.narrow_token,
        expired_token=given.expired_token,
        slow_token=given.slow_token,
        client_id=given.client_id,
        client_secret=given.client_secret,
        grpc=given.grpc,
        grpc_edge=given.grpc_edge,
        public_url=given.public_url,
        model=given.model,
        receive=given.receive,
        receive_url=given.receive_url,
        origin=given.origin,
        insecure=given.insecure,
        ca=given.ca,
        check_timeout_s=given.timeout,
        within_s=given.within,
        concurrency=given.concurrency,
        only=_names(given.only),
        excepted=_names(given.excepted),
    )


def _names(given: list[str]) -> tuple[str, ...]:
    return tuple(name for each in given for name in each.split(",") if name)


def _positive(kind: type[float] | type[int]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("it must be above 0")
        return value

    return read


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if text and not (host and port.isdecimal() and int(port) < _PORTS):
        raise argparse.ArgumentTypeError("it must be HOST:PORT")
    return text


def _target(text: str) -> str:
    _address(text.removeprefix("grpcs://").removeprefix("grpc://"))
    return text


def _url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise argparse.ArgumentTypeError(f"it is no address: {error}") from error
    if text and not (url.scheme in ("http", "https") and url.host and (url.port or 0) < _PORTS):
        raise argparse.ArgumentTypeError("it must be http://HOST:PORT or https://HOST:PORT")
    return text


def _token(text: str) -> str:
    """Reads a token, with the space that a file or a variable has around it; another's text is not shown."""
    token = text.strip()
    if not re.fullmatch("[!-~]*", token):
        raise argparse.ArgumentTypeError("it must be of visible ASCII characters")
    return token


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camserve_conformance",
        usage="%(prog)s [options] URL",
        description="Checks a deployment of camserve against its public contract.",
        epilog="Ends with 0 when the deployment conforms, 1 when it does not, 2 when that could not be told.",
    )
    add = parser.add_argument

    def add_secret(name: str, variable: str, text: str) -> None:
        add(name, type=_token, default=os.environ.get(variable, ""), metavar="TOKEN", help=f"{text} ({variable})")

    add("url", nargs="?", type=_url, metavar="URL", help="the deployment's REST address")
    add("--version", action="version", version=VERSION)
    add(
        "--grpc",
        type=_target,
        default="",
        metavar="HOST:PORT",
        help="check native gRPC too; grpc:// or grpcs:// may stand before it",
    )
    add("--grpc-edge", action="store_true", help="that gRPC address leads through the edge")
    add_secret("--token", "CAM_TOKEN", "a token with every scope but admin")
    add_secret("--other-token", "CAM_OTHER_TOKEN", "a token of a second tenant: isolation is checked")
    add_secret("--narrow-token", "CAM_NARROW_TOKEN", "a token of the first tenant with the scope jobs.read only")
    add_secret("--expired-token", "CAM_EXPIRED_TOKEN", "a token that was valid once")
    add_secret("--slow-token", "CAM_SLOW_TOKEN", "a token of a tenant with a burst of at most 100, which is used up")
    add(
        "--client-id",
        type=str.strip,
        default=os.environ.get("CAM_CLIENT_ID", ""),
        help="a client of the token endpoint (CAM_CLIENT_ID)",
    )
    add(
        "--client-secret",
        type=str.strip,
        default=os.environ.get("CAM_CLIENT_SECRET", ""),
        help="its secret (CAM_CLIENT_SECRET)",
    )
    add("--model", default="", help="the model to ask; default: the first one that is ready")
    add(
        "--public-url",
        type=_url,
        default="",
        metavar="URL",
        help="what the deployment's links begin with; default: URL",
    )
    add("--receive", type=_address, default="", metavar="HOST:PORT", help="where to wait for events of webhooks")
    add(
        "--receive-url",
        type=_url,
        default="",
        metavar="URL",
        help="how the deployment reaches that; default: http://HOST:PORT",
    )
    add("--origin", default="", help="an origin that the deployment allows browsers to call from")
    add("--ca", type=Path, help="authorities to trust (PEM) instead of the public ones")
    add("--insecure", action="store_true", help="over REST, trust any certificate")
    add(
        "--only",
        action="append",
        default=[],
        metavar="NAMES",
        help="sections or checks, apart by commas; * is any text",
    )
    add("--except", action="append", default=[], metavar="NAMES", dest="excepted", help="leave these out")
    add("--list", action="store_true", help="list the checks and end")
    add("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    add("--junit", type=Path, metavar="FILE", help="write the report as JUnit XML too")
    add("--timeout", type=_positive(float), default=60.0, metavar="S", help="seconds for one check, 60 by default")
    add("--within", type=_positive(float), default=900.0, metavar="S", help="seconds for the whole run, 900 by default")
    add("--concurrency", type=_positive(int), default=4, metavar="N", help="calls and checks at once, 4 by default")
    add("--quiet", action="store_true", help="no progress, also on a terminal")
    return parser
