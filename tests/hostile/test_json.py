"""JSON that is legal and means harm."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from tests.conftest import Stack
from tests.hostile.conftest import Beside, Memory

ARRAYS = 9_990_000
MOST_GROWTH_MB = 400

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
