"""Encrypted connections, to the edge and to the gRPC port."""

from __future__ import annotations

import pytest
from clients.python.tests.pictures import STAR, noise
from tests.certificates import certificate

from camserve_client import AsyncClient, Backoff, CamserveError

pytestmark = pytest.mark.timeout(120)


async def test_every_way_may_be_encrypted(make_stack, tmp_path):
    cert, key = certificate(tmp_path, "127.0.0.1")
    stack = make_stack(tls_cert=cert, tls_key=key, grpc_tls_cert=cert, grpc_tls_key=key)
    edge, port = (f"localhost:{at.rpartition(':')[2]}" for at in (stack.edge_url, stack.grpc_target))
    for address in (f"https://{edge}", f"grpcs://{edge}", f"grpcs://{port}"):
        async with AsyncClient(address, token=stack.token(), ca_file=cert) as client:
            assert (await client.infer(STAR, model="shapes")).top.id == "star"
            assert (await client.infer(noise(900), model="shapes")).classes
        # Nobody public vouches for it.
        async with AsyncClient(address, token=stack.token(), timeout_s=1, backoff=Backoff(first_s=0.05)) as client:
            with pytest.raises(CamserveError) as refused:
                await client.models()
            assert refused.value.code in ("connection.failed", "timeout.exceeded")
