"""JSON that is legal and means harm."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json

import httpx
import pytest
from tests.conftest import Stack
from tests.hostile.conftest import ANSWERED_WITHIN_S, EDGE, Beside, Memory, target_of
from tests.images import encoded

ARRAYS = 9_990_000
MOST_GROWTH_MB = 400
CALLERS, CALLS_EACH = 100, 3
LEAVING = 20

JOB = '{"model": "shapes", "inputs": [{"id": "a", "image": {"bytes": "aGVsbG8="}}], "metadata": %s}'
DOCUMENTS = {
    "20 MB of nested arrays": JOB % ('{"a": ' + "[" * ARRAYS + "]" * ARRAYS + "}"),
    "20 MB of nested objects": JOB % ('{"a": ' * 2_800_000 + "1" + "}" * 2_800_000),
    "20 MB of arrays that never end": JOB % ('{"a": ' + "[" * 2 * ARRAYS),
    "20 MB of empty inputs": '{"model": "shapes", "inputs": [' + "{}," * 6_600_000 + "{}]}",
    "a list of empty arrays": JOB % ('{"a": [' + "[]," * 300_000 + "1]}"),
    "a hundred thousand names": JOB % ("{" + ",".join(f'"{number}": 1' for number in range(100_000)) + "}"),
    "the same name a hundred thousand times": JOB % ("{" + '"a": 1,' * 100_000 + '"a": 2}'),
    "a hundred thousand unknown fields": "{"
    + "".join(f'"x{number}": 1,' for number in range(100_000))
    + '"model": "shapes"}',
    "a number of a million digits": JOB % ('{"a": ' + "9" * 1_000_000 + "}"),
    "a number past every double": JOB % '{"a": 1e999999999}',
    "half of a character": JOB % '{"a": "\\ud800"}',
    "a name that is half of a character": JOB % '{"\\udfff": 1}',
    "not a number": JOB % '{"a": NaN}',
    "the same model twice": '{"model": "shapes", "model": "other", "inputs": [], "inputs": [1]}',
    "arrays for a number": '{"model": "shapes", "classify": {"top_k": ' + "[" * 100_000 + "]" * 100_000 + "}}",
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
async def test_hostile_json_is_refused_and_harms_nobody(
    hostile_stack: Stack, beside: Beside[httpx.Response], memory: Memory, document: str
) -> None:
    headers = hostile_stack.headers(tenant="hostile")
    async with httpx.AsyncClient(base_url=hostile_stack.edge_url, headers=headers, timeout=50, trust_env=False) as api:
        sending = api.post("/v1/jobs", content=document.encode(), headers={"content-type": "application/json"})
        try:
            answer = await beside(asyncio.ensure_future(sending))
        except (httpx.ReadError, httpx.WriteError):  # refused while it was still being sent
            answer = None
    assert memory.grown_mb < MOST_GROWTH_MB
    if answer is None:
        assert len(document) > 1 << 20
        return
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["code"] in (
        "json.malformed",
        "param.invalid",
        "param.out_of_range",
        "body.too_large",
        "batch.empty",
        "batch.too_large",
    )
    assert len(answer.content) < 2048


def document(stack: Stack, tenant: str, image: bytes) -> bytes:
    """Returns a call for that image, as it goes over HTTP/1.1."""
    asked = {"model": "shapes", "image": {"bytes": base64.b64encode(image).decode()}, "grad_cam": {"enabled": True}}
    body = json.dumps(asked).encode()
    head = f"POST /v1/infer HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {stack.token(tenant=tenant)}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def status_of(port: int, request: bytes) -> int | None:
    """Returns the status of the answer, None where the connection ends: a refusal before the whole body has left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            writer.write(request)
            line = await reader.readline()
    except ConnectionError:
        return None
    finally:
        writer.close()
    return int(line.split()[1]) if line else None


async def test_of_many_images_in_json_at_once_every_one_has_an_answer(
    hostile_stack: Stack, beside: Beside[list[list[int | None]]]
) -> None:
    port = target_of(hostile_stack, EDGE).port
    request = document(hostile_stack, "voluble", encoded(2000, 2000, "JPEG", quality=90))

    async def caller() -> list[int | None]:
        return [await status_of(port, request) for _ in range(CALLS_EACH)]

    statuses = {status for own in await beside(asyncio.gather(*(caller() for _ in range(CALLERS)))) for status in own}
    assert 200 in statuses
    assert statuses <= {200, 429, 503, None}


async def test_images_in_json_whose_callers_leave_hold_no_place(hostile_stack: Stack) -> None:
    port = target_of(hostile_stack, EDGE).port
    request = document(hostile_stack, "fleeting", encoded(2200, 2200, "BMP"))
    for _ in range(LEAVING):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()
    async with asyncio.timeout(ANSWERED_WITHIN_S):
        while await status_of(port, request) != 200:
            await asyncio.sleep(0.5)
