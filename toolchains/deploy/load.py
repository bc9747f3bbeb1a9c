"""Callers who keep calling while something is replaced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from tests.images import star_png


@contextmanager
def calling(url: str, headers: dict[str, str], threads: int = 2) -> Iterator[list[str]]:
    """Gives what was answered: `ok`, or what went wrong."""
    heard: list[str] = []
    stop = threading.Event()

    def call() -> None:
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            while not stop.is_set():
                try:
                    answer = client.post(
                        "/v1/infer?model=shapes&grad_cam.enabled=true",
                        content=star_png(),
                        headers={"content-type": "image/png"},
                    )
                    heatmap = client.get(answer.json()["heatmap"]["url"]) if answer.status_code == 200 else answer
                    heard.append("ok" if heatmap.status_code == 200 else f"{heatmap.status_code} {heatmap.text[:300]}")
                except httpx.HTTPError as error:
                    heard.append(repr(error))
                stop.wait(0.05)

    callers = [threading.Thread(target=call) for _ in range(threads)]
    for caller in callers:
        caller.start()
    try:
        yield heard
    finally:
        stop.set()
        for caller in callers:
            caller.join()
