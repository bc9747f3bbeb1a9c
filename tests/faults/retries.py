"""The client of docs/reliability.md: repeats what may be repeated, under the same key."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import httpx

# The key of a call whose replica died is free again within 30 s.
GIVE_UP_S = 60.0
_AGAIN = (429, 502, 503, 504)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


async def call(client: httpx.AsyncClient, rng: random.Random, verb: str, path: str, **request: Any) -> httpx.Response:
    """Returns the first answer that trying again would not change; a POST needs its `Idempotency-Key` in the headers.

    After a minute it returns the last answer, or raises what broke the last connection.
    """
    ends = time.monotonic() + GIVE_UP_S
    longest_s = _FIRST_PAUSE_S
    while True:
        told_s = 0.0
        try:
            answer = await client.request(verb, path, **request)
            if not _may_help(answer) or time.monotonic() > ends:
                return answer
            told_s = float(answer.headers.get("retry-after", 0))
            if told_s > GIVE_UP_S:
                return answer
        except httpx.TransportError:
            if time.monotonic() > ends:
                raise
        await asyncio.sleep(told_s + rng.uniform(0, longest_s))
        longest_s = min(2 * longest_s, _LONGEST_PAUSE_S)


def _may_help(answer: httpx.Response) -> bool:
    if answer.status_code == 409:
        return bool(answer.json()["error"]["code"] == "idempotency.in_progress")
    return answer.status_code in _AGAIN
