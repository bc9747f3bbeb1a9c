"""A deployment with a certificate of its own authority."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.certificates import certificate
from tests.conftest import Stack

from camserve_conformance.options import Options
from camserve_conformance.report import as_text
from camserve_conformance.runner import CannotRunError, run

pytestmark = pytest.mark.timeout(180)


async def test_encrypted_ways_are_checked_too(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "127.0.0.1")
    stack = make_stack(tls_cert=cert, tls_key=key, grpc_tls_cert=cert, grpc_tls_key=key)
    edge, port = (f"127.0.0.1:{at.rpartition(':')[2]}" for at in (stack.edge_url, stack.grpc_target))
    names = ("models", "objects", "codes.body_too_large")
    options = Options(url=f"https://{edge}", token=stack.token(), grpc=f"grpcs://{port}", ca=cert, only=names)
    through_edge = replace(options, grpc=f"grpcs://{edge}", grpc_edge=True)
    unverified = replace(options, grpc="", ca=None, insecure=True, excepted=("*@grpc",))
    for each in (options, through_edge, unverified):
        report = await run(each)
        assert report.exit_code == 0, as_text(report)
    with pytest.raises(CannotRunError, match="CERTIFICATE_VERIFY_FAILED"):
        await run(replace(unverified, insecure=False))
