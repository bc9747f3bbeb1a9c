from __future__ import annotations

import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.buffers import ByteBudget, SharedBuffer, open_anonymous


def test_buffer_holds_what_was_appended() -> None:
    with SharedBuffer.create("test") as buffer:
        buffer.append(b"one ")
        buffer.append(memoryview(bytearray(b"two")))
        assert (buffer.size, bytes(buffer.view())) == (7, b"one two")


def test_empty_buffer_has_an_empty_view() -> None:
    with SharedBuffer.create() as buffer:
        assert bytes(buffer.view()) == b""


def test_viewed_buffer_does_not_grow() -> None:
    with SharedBuffer.create() as buffer:
        buffer.append(b"x")
        buffer.view()
        with pytest.raises(ValueError, match="viewed"):
            buffer.append(b"y")


def test_closing_twice_is_harmless_and_views_survive() -> None:
    buffer = SharedBuffer.create()
    buffer.append(b"still here")
    view = buffer.view()
    fd = buffer.fd
    buffer.close()
    buffer.close()
    assert bytes(view) == b"still here"
    assert buffer.fd == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_budget_refuses_what_passes_its_limit() -> None:
    budget = ByteBudget(10)
    with SharedBuffer.create(budget=budget) as buffer:
        buffer.append(b"12345678")
        with pytest.raises(ApiError) as caught:
            buffer.append(b"9ab")
        assert caught.value.reason == Reason.SERVICE_OVERLOADED
        assert (budget.taken_bytes, buffer.size) == (8, 8)
    assert budget.taken_bytes == 0


def test_a_tenant_holds_at_most_twice_what_it_leaves_free() -> None:
    budget = ByteBudget(90)
    assert not budget.try_take(61, "a")
    assert budget.try_take(60, "a")
    assert not budget.try_take(1, "a")
    assert not budget.try_take(21, "b")
    assert budget.try_take(20, "b")
    # What is the service's own has no share, and what comes back is free for everybody.
    assert budget.try_take(10)
    budget.give(60, "a")
    assert budget.try_take(20, "b")


def test_a_tenant_always_gets_the_least_that_fits_in() -> None:
    budget = ByteBudget(90, least_bytes=80)
    assert budget.try_take(80, "a")
    assert not budget.try_take(1, "a")
    assert budget.try_take(10, "b")


def test_the_same_bytes_shared_are_charged_to_their_tenant() -> None:
    budget = ByteBudget(90)
    with SharedBuffer.create(budget=budget, tenant="a") as buffer:
        buffer.append(bytes(40))
        with pytest.raises(ApiError):
            buffer.share()
        with SharedBuffer.create(budget=budget, tenant="b") as other:
            other.append(bytes(30))
    assert budget.try_take(60, "a")


def test_what_was_reserved_is_not_taken_again() -> None:
    budget = ByteBudget(10)
    with SharedBuffer.create(budget=budget) as buffer:
        buffer.reserve(8)
        buffer.append(b"12345")
        assert budget.taken_bytes == 8
        buffer.append(b"67890")
        assert budget.taken_bytes == 10
        with pytest.raises(ApiError):
            buffer.reserve(11)
    assert budget.taken_bytes == 0


def test_forgotten_buffer_gives_everything_back() -> None:
    budget = ByteBudget(10)
    buffer = SharedBuffer.create(budget=budget)
    buffer.append(b"123")
    fd = buffer.fd
    del buffer
    gc.collect()
    assert budget.taken_bytes == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_adopted_descriptor_cannot_shrink_afterwards() -> None:
    fd = open_anonymous("test")
    os.write(fd, b"12345")
    with SharedBuffer.adopt(fd, 5) as buffer:
        with pytest.raises(PermissionError):
            os.ftruncate(buffer.fd, 1)
        assert bytes(buffer.view()) == b"12345"


def test_adopting_another_size_is_refused_and_closes() -> None:
    fd = open_anonymous("test")
    os.write(fd, b"12345")
    with pytest.raises(ValueError, match="declared number"):
        SharedBuffer.adopt(fd, 6)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_adopting_beyond_the_budget_is_refused() -> None:
    budget = ByteBudget(4)
    fd = open_anonymous("test")
    os.write(fd, b"12345")
    with pytest.raises(ApiError):
        SharedBuffer.adopt(fd, 5, budget)
    assert budget.taken_bytes == 0


def test_a_shared_buffer_outlives_the_first_and_is_charged_once_more() -> None:
    budget = ByteBudget(10)
    first = SharedBuffer.create("a", budget)
    first.append(b"12345")
    second = first.share()
    with pytest.raises(ApiError):
        first.share()
    first.close()
    assert bytes(second.view()) == b"12345"
    second.close()
    assert budget.try_take(10)


def test_a_closed_buffer_takes_nothing() -> None:
    budget = ByteBudget(100)
    buffer = SharedBuffer.create("test", budget, "tenant")
    buffer.append(b"12345")
    buffer.close()
    for take in (lambda: buffer.append(b"12345"), lambda: buffer.reserve(50), buffer.share):
        with pytest.raises((ValueError, OSError), match=r"closed|Bad file"):
            take()
    assert budget.taken_bytes == 0


def test_close_waits_for_what_a_thread_appends(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = ByteBudget(100)
    buffer = SharedBuffer.create("test", budget)
    writing, write = threading.Event(), os.pwrite

    def slowly(fd: int, data: memoryview, offset: int) -> int:
        writing.set()
        time.sleep(0.2)
        return write(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", slowly)
    with ThreadPoolExecutor() as pool:
        appended = pool.submit(buffer.append, b"12345")
        writing.wait()
        buffer.close()
        appended.result()
    assert (buffer.size, budget.taken_bytes) == (5, 0)
