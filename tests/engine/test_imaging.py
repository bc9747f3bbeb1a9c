from __future__ import annotations

import asyncio
import dataclasses
import io
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.engine.decoding import pixels
from tests.engine.images import pillow, scene, shared, tiff
from tests.engine.pools import REQUEST, SETTINGS, reason, running, until
from tests.processes import wait_gone

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.engine.imaging import (
    DecodeRequest,
    ImagingPool,
    InputSpec,
    RenderRequest,
)

CAM = np.random.default_rng(3).random((7, 7), np.float32)


@pytest.fixture
async def pool() -> AsyncIterator[ImagingPool]:
    async with running(SETTINGS) as pool:
        yield pool


def resident_bytes(pid: int, field: str = "VmRSS") -> int:
    return int(status(pid)[field].split()[0]) << 10


def status(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def limits(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return {line[:26].strip(): line[26:].split()[0] for line in lines}


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def pids(pool: ImagingPool) -> set[int]:
    return {worker.pid for worker in pool.workers if worker.alive}


async def test_picture_is_decoded(pool: ImagingPool) -> None:
    data = pillow(scene(120, 80), "PNG")
    request = dataclasses.replace(REQUEST, base_side="input")
    with shared(data) as image, await pool.decode(image, request) as picture:
        np.testing.assert_array_equal(picture.pixels, pixels(data, 32, 24))
        assert (picture.width, picture.height, picture.media_type) == (120, 80, "image/png")
        assert (picture.draw_width, picture.draw_height, picture.view) == (120, 80, (0.0, 0.0, 1.0, 1.0))
        assert picture.base is not None
        assert bytes(picture.base.view()) == scene(120, 80).tobytes()
        assert picture.decode_ms > 0


async def test_tiff_is_corrected_in_a_worker_that_may_not_write_to_it(pool: ImagingPool) -> None:
    data = tiff(scene(120, 80), photometric="rgb", extratags=[(274, "H", 1, 0, True)])
    with shared(data) as image, await pool.decode(image, REQUEST) as picture:
        np.testing.assert_array_equal(picture.pixels, pixels(data, 32, 24))
        assert image.view()[:] == data


async def test_planes_of_a_tiff_are_read_without_a_copy_of_the_file_for_each() -> None:
    planes = np.repeat(scene(2000, 2000)[None, ..., 0], 12, axis=0)
    data = tiff(planes, photometric="minisblack", planarconfig="separate", tile=(256, 256), metadata=None)
    tight = dataclasses.replace(SETTINGS, workers=1, worker_memory_bytes=256 << 20, max_image_bytes=len(data))
    async with running(tight) as pool:
        with shared(data) as image, await pool.decode(image, REQUEST) as picture:
            np.testing.assert_array_equal(picture.pixels, pixels(tiff(planes[0]), 32, 24))


async def test_pixels_survive_the_close_of_their_picture(pool: ImagingPool) -> None:
    data = pillow(scene(120, 80), "PNG")
    with shared(data) as image:
        picture = await pool.decode(image, REQUEST)
    kept = picture.pixels
    picture.close()
    picture.close()
    np.testing.assert_array_equal(kept, pixels(data, 32, 24))


async def test_one_buffer_is_decoded_twice_at_once(pool: ImagingPool) -> None:
    with shared(pillow(scene(1200, 800), "PNG")) as image:
        first, second = await asyncio.gather(pool.decode(image, REQUEST), pool.decode(image, REQUEST))
    np.testing.assert_array_equal(first.pixels, second.pixels)


async def test_refusal_carries_its_reason_and_numbers() -> None:
    async with running(dataclasses.replace(SETTINGS, max_side_px=50)) as pool:
        with shared(pillow(scene(60, 40), "PNG")) as image, pytest.raises(ApiError) as caught:
            await pool.decode(image, REQUEST)
    assert caught.value.reason == Reason.IMAGE_TOO_LARGE
    assert caught.value.details == {"width": 60, "height": 40, "max_side_px": 50, "max_pixels": 268_435_456}


async def test_more_bytes_than_allowed_are_refused_with_both_numbers() -> None:
    async with running(dataclasses.replace(SETTINGS, max_image_bytes=1_000_000)) as pool:
        with shared(bytes(1_500_000)) as image, pytest.raises(ApiError) as caught:
            await pool.decode(image, REQUEST)
    assert caught.value.reason == Reason.UPLOAD_TOO_LARGE
    assert caught.value.details == {"limit_mb": 1.0, "actual_mb": 1.5}


async def test_heatmap_is_drawn(pool: ImagingPool) -> None:
    with shared(scene(200, 100).tobytes()) as base:
        request = RenderRequest(CAM, (0.0, 0.0, 1.0, 1.0), 200, 100, overlay=True, base=base)
        heatmap = await pool.render(request)
        array = await pool.render(dataclasses.replace(request, format="npy"))
    assert Image.open(io.BytesIO(heatmap.data)).size == (200, 100)
    assert np.load(io.BytesIO(array.data)).shape == (100, 200)
    assert (heatmap.raw_min, heatmap.raw_max) == (pytest.approx(CAM.min()), pytest.approx(CAM.max()))
    assert not heatmap.degenerate


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0}, {"height": 4097}, {"colormap": "beige"}, {"alpha": 1.5}, {"overlay": True},
        {"cam": np.zeros(3, np.float32)}, {"format": "gif"},
    ],
)  # fmt: skip
async def test_heatmap_request_outside_its_ranges_is_an_error(wrong: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"cam": CAM, "view": (0.0, 0.0, 1.0, 1.0), "width": 20, "height": 10}
    with pytest.raises(ValueError, match=r"."):
        await ImagingPool(SETTINGS).render(RenderRequest(**(fields | wrong)))


@pytest.mark.parametrize("kind", ["crash", "memory"])
async def test_broken_worker_costs_one_request(pool: ImagingPool, kind: Any) -> None:
    with shared(pillow(scene(), "PNG")) as image:
        broken = asyncio.create_task(pool.fault(kind))
        for _ in range(4):
            (await pool.decode(image, REQUEST)).close()
        assert await reason(broken) == Reason.IMAGE_REJECTED
        await until(lambda: pool.stats().alive == 2)
        await asyncio.gather(*(pool.decode(image, REQUEST) for _ in range(4)))


async def test_hanging_worker_is_killed_at_the_deadline_and_replaced() -> None:
    async with running(dataclasses.replace(SETTINGS, deadline_s=0.5)) as pool:
        before = pids(pool)
        with shared(pillow(scene(), "PNG")) as image:
            hanging = asyncio.create_task(pool.fault("hang"))
            (await pool.decode(image, REQUEST)).close()
            assert await reason(hanging) == Reason.IMAGE_REJECTED
            await until(lambda: pool.stats().alive == 2)
            (await pool.decode(image, REQUEST)).close()
        assert pool.stats().restarts == 1
        assert len(pids(pool) - before) == 1


async def test_a_picture_whose_worker_is_killed_is_decoded_by_another() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1)) as pool:
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGSTOP)
        with shared(pillow(scene(), "PNG")) as image:
            call = asyncio.create_task(pool.decode(image, REQUEST))
            await until(lambda: pool.stats().busy == 1)
            os.kill(pid, signal.SIGKILL)
            (await call).close()
        assert pool.stats().restarts == 1


async def test_a_picture_that_kills_two_workers_is_refused(pool: ImagingPool) -> None:
    assert await reason(pool.fault("crash")) == Reason.IMAGE_REJECTED
    await until(lambda: pool.stats().restarts == 2)


async def test_idle_workers_that_have_died_cost_no_request(pool: ImagingPool) -> None:
    for pid in pids(pool):
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
    with shared(pillow(scene(), "PNG")) as image:
        (await pool.decode(image, REQUEST)).close()


async def test_long_declarations_are_harmless(pool: ImagingPool) -> None:
    request = dataclasses.replace(
        REQUEST, declared_media_type="image/jpeg" + ";" * 100_000, file_name="/" * 99_999 + ".png"
    )
    with shared(pillow(scene(), "PNG")) as image:
        assert await reason(pool.decode(image, request)) == Reason.MEDIA_MISMATCH
    assert pool.stats().restarts == 0


async def test_closing_pool_fails_its_calls_as_draining() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1)) as pool:
        calls = [asyncio.create_task(pool.fault("hang")) for _ in range(2)]
        await until(lambda: pool.stats().queued == 1)
    assert [await reason(call) for call in calls] == [Reason.SERVICE_DRAINING] * 2


async def test_worker_killed_from_outside_is_replaced(pool: ImagingPool) -> None:
    before = pids(pool)
    os.kill(min(before), signal.SIGKILL)
    await until(lambda: len(pids(pool) - before) == 1 and pool.stats().alive == 2)
    assert pool.stats().restarts == 1


async def test_answer_to_a_cancelled_call_is_dropped_and_leaks_nothing(pool: ImagingPool) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with shared(pillow(scene(1500, 1000), "PNG")) as image:
        for _ in range(6):
            call = asyncio.create_task(pool.decode(image, dataclasses.replace(REQUEST, base_side="input")))
            await until(lambda: pool.stats().busy > 0)
            call.cancel()
            await asyncio.wait([call])
        await until(lambda: pool.stats().busy == 0 and pool.stats().alive == 2)
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_worker_is_replaced_after_its_share_of_requests() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1, recycle_requests=3)) as pool:
        before = pids(pool)
        with shared(pillow(scene(), "PNG")) as image:
            for _ in range(4):
                (await pool.decode(image, REQUEST)).close()
        assert pids(pool) != before
        assert pool.stats().restarts == 1


async def test_worker_that_keeps_memory_is_replaced() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1, recycle_resident_bytes=1 << 20)) as pool:
        before = pids(pool)
        with shared(pillow(scene(), "PNG")) as image:
            (await pool.decode(image, REQUEST)).close()
        await until(lambda: pids(pool) and pids(pool) != before)


async def test_base_beyond_the_budget_is_refused() -> None:
    budget = ByteBudget(1000)
    async with running(SETTINGS, budget=budget) as pool:
        with shared(pillow(scene(), "PNG")) as image:
            call = pool.decode(image, dataclasses.replace(REQUEST, base_side="input"))
            assert await reason(call) == Reason.SERVICE_OVERLOADED
    assert budget.taken_bytes == 0


async def test_idle_workers_are_small_and_have_one_thread(pool: ImagingPool) -> None:
    for pid in pids(pool):
        assert resident_bytes(pid) < 60 << 20
        assert len(os.listdir(f"/proc/{pid}/task")) == 1


async def test_workers_are_confined_and_know_no_secrets(pool: ImagingPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMSERVE_TEST_SECRET", "s3cret")
    before = pids(pool)
    os.kill(min(before), signal.SIGKILL)
    await until(lambda: len(pids(pool) - before) == 1 and pool.stats().alive == 2)
    for pid in pids(pool):
        assert status(pid)["NoNewPrivs"] == "1"
        assert limits(pid)["Max core file size"] == "0"
        assert int(limits(pid)["Max address space"]) < 1 << 30
        assert b"s3cret" not in environment(pid)


async def test_close_leaves_no_process_and_refuses_new_calls() -> None:
    async with running(SETTINGS) as pool:
        before = pids(pool)
    assert not [pid for pid in before if exists(pid)]
    assert await reason(pool.fault("hang")) == Reason.SERVICE_DRAINING


async def test_workers_that_cannot_start_fail_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="imaging worker"):
        await ImagingPool(SETTINGS).start()


PARENT = """
import asyncio
from camserve_server.engine.imaging import ImagingPool, ImagingSettings

async def main():
    pool = ImagingPool(ImagingSettings(workers=2), fault_injection=True)
    await pool.start()
    busy = asyncio.create_task(pool.fault("hang"))
    await asyncio.sleep(0)
    print(*(worker.pid for worker in pool.workers), flush=True)
    await busy

asyncio.run(main())
"""


def test_workers_die_with_a_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(workers) == 2
    for pid in workers:
        wait_gone(pid)


def tiled_jpeg(side: int) -> bytes:
    """Return a baseline JPEG of side x side noise, quickly: one encoded band repeated between restart markers.

    Each row of blocks ends with a restart marker, so rows are independent and may be copied.
    """
    noise = np.random.default_rng(0).integers(0, 256, (32, side // 32, 3), np.uint8)
    band = Image.fromarray(noise).resize((side, 128), Image.Resampling.BILINEAR)
    data = pillow(band, "JPEG", quality=85, subsampling=0, restart_marker_rows=1)
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    body = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    rows = [_restart_row(data[body:-2], index) for index in range(16)]
    head = data[: frame + 5] + side.to_bytes(2, "big") + data[frame + 7 : body]
    count = side // 8
    parts = [rows[i % 16] + (bytes([0xFF, 0xD0 + i % 8]) if i < count - 1 else b"") for i in range(count)]
    return head + b"".join(parts) + b"\xff\xd9"


def _restart_row(entropy: bytes, index: int) -> bytes:
    """Return one row of blocks, without its restart marker."""
    start = 0
    for number in range(index):
        start = entropy.index(bytes([0xFF, 0xD0 + number % 8]), start) + 2
    end = entropy.find(bytes([0xFF, 0xD0 + index % 8]), start)
    return entropy[start : end if end >= 0 else len(entropy)]


async def test_huge_jpeg_is_decoded_in_little_memory() -> None:
    data = tiled_jpeg(16384)
    assert 60_000_000 < len(data) < 100_000_000
    async with running(dataclasses.replace(SETTINGS, workers=1)) as pool:
        (pid,) = pids(pool)
        before = resident_bytes(pid)
        with shared(data) as image:
            for base_side, growth in ((None, 150), ("input", 400)):
                request = DecodeRequest(InputSpec(224, 224, "crop", 256), base_side=base_side)  # type: ignore[arg-type]
                with await pool.decode(image, request) as picture:
                    assert (picture.width, picture.height) == (16384, 16384)
                assert resident_bytes(pid, "VmHWM") - before < growth << 20


async def test_huge_heatmap_is_drawn_in_little_memory() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1)) as pool:
        (pid,) = pids(pool)
        with SharedBuffer.create() as base:
            base.append(np.random.default_rng(0).integers(0, 256, 4096 * 4096 * 3, np.uint8).data)
            heatmap = await pool.render(RenderRequest(CAM, (0.0, 0.0, 1.0, 1.0), 4096, 4096, overlay=True, base=base))
        assert len(heatmap.data) > 1 << 20
        assert resident_bytes(pid, "VmHWM") < 400 << 20


def test_worker_imports_neither_torch_nor_vips() -> None:
    names = "{'torch', 'pyvips', 'grpc'}"
    program = f"import sys, camserve_server.engine.imaging_worker; print(*{names} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"
