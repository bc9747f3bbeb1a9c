"""Sends a corpus of hostile images to a running stack: `python -m tests.hostile.corpus FOLDER`.

The folder holds `fuzz.tar.gz` and `fuzz.jsonl`, which lists for every file the answers that count as right. Ends with 1
when an answer is another one, takes too long, or the service is not well afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tarfile
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tests.conftest import start_stack, stop_stack
from tests.images import star_png

CONNECTIONS = 16
SLOW_S = 20.0


@dataclass
class Findings:
    """What came of a run."""

    answers: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    seconds: float = 0.0


async def run(edge_url: str, headers: dict[str, str], entries: list[dict], files: dict[str, bytes]) -> Findings:
    """Sends all files, so many at a time as there are connections."""
    findings = Findings()
    waiting = iter(entries)
    limits = httpx.Limits(max_connections=CONNECTIONS)
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=edge_url, headers=headers, timeout=60, limits=limits) as client:

        async def caller() -> None:
            for entry in waiting:
                await _send(client, entry, files[entry["file"]], findings)

        await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
        findings.seconds = time.monotonic() - began
        good = await client.post("/v1/infer?model=shapes", content=star_png(), headers={"content-type": "image/png"})
        health = await client.get("/v1/health")
        if good.status_code != 200 or health.json()["status"] != "serving":
            findings.wrong.append(f"afterwards: {good.status_code}, health {health.text}")
    return findings


async def _send(client: httpx.AsyncClient, entry: dict, data: bytes, findings: Findings) -> None:
    began = time.monotonic()
    try:
        answer = await client.post(
            "/v1/infer?model=shapes", content=data, headers={"content-type": "application/octet-stream"}
        )
    except httpx.HTTPError as error:
        findings.wrong.append(f"{entry['file']}: {error!r}")
        return
    took_s = time.monotonic() - began
    findings.answers[answer.status_code] += 1
    findings.slowest_s = max(findings.slowest_s, took_s)
    right = {int(code) for part in entry["accept"].split("|") for code in ((200, 202) if part == "ok" else (part,))}
    if answer.status_code not in right or took_s > SLOW_S:
        findings.wrong.append(f"{entry['file']}: {answer.status_code} after {took_s:.1f} s, right is {entry['accept']}")


def main() -> int:
    """Runs the corpus against a stack of its own and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    entries = [json.loads(line) for line in (folder / "fuzz.jsonl").read_text().splitlines()]
    with tarfile.open(folder / "fuzz.tar.gz") as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
    with tempfile.TemporaryDirectory() as data_dir:
        stack = start_stack(Path(data_dir))
        try:
            findings = asyncio.run(run(stack.edge_url, stack.headers(), entries, files))
        finally:
            stop_stack(stack)
    answers = ", ".join(f"{count:,} x {code}" for code, count in sorted(findings.answers.items()))
    print(f"{len(entries):,} files at {CONNECTIONS} connections in {findings.seconds:.1f} s: {answers}")
    print(f"slowest answer {findings.slowest_s:.2f} s, wrong {len(findings.wrong)}")
    print("\n".join(findings.wrong))
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
