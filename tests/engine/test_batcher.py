"""Batches are built fairly, bounded, and from those who still wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.batcher import Batch, Batcher, Entry, Lane

TURN_S = 2.0


class HandClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def batcher(
    *, max_batch: int = 4, delay_s: float = 0.0, queue_limit: int = 100, clock: Callable[[], float] | None = None
) -> Batcher:
    made = Batcher(
        max_batch=max_batch, delay_s=delay_s, queue_limit=queue_limit, turn_s=TURN_S, monotonic=clock or HandClock()
    )
    made.open_queue("m")
    return made


def entry(
    tenant: str = "t", lane: Lane = "unary", *, queue: str = "m", cost: float = 1.0, deadline: float | None = None
) -> Entry:
    return Entry(
        queue=queue,
        pixels=np.zeros((1, 1, 3), np.uint8),
        explain=None,
        tenant=tenant,
        lane=lane,
        deadline_monotonic=deadline,
        enqueued_monotonic=100.0,
        future=asyncio.get_running_loop().create_future(),
        cost=cost,
    )


def put(made: Batcher, *entries: Entry) -> None:
    for one in entries:
        made.put(one)


def take(made: Batcher, queue: str = "m") -> Batch:
    work = made.take(queue)
    assert isinstance(work, Batch)
    return work


def tenants(batch: Batch) -> str:
    return "".join(one.tenant for one in batch.entries)


async def test_whatever_waits_makes_the_batch_up_to_its_largest_size() -> None:
    made = batcher(max_batch=4)
    put(made, *(entry() for _ in range(6)))
    assert [len(take(made).entries), len(take(made).entries)] == [4, 2]


async def test_a_model_may_take_smaller_batches_than_others() -> None:
    made = batcher(max_batch=4)
    made.open_queue("one")
    made.limit("one", 1)
    put(made, entry(queue="one"), entry(queue="one"))
    assert [len(take(made, "one").entries), len(take(made, "one").entries)] == [1, 1]


async def test_tenants_are_served_in_turn_whoever_came_first() -> None:
    made = batcher(max_batch=6)
    put(made, *(entry("a") for _ in range(20)), entry("b"), entry("b"), entry("c"))
    assert sorted(tenants(take(made))) == list("aaabbc")


async def test_a_tenant_with_dear_entries_gets_fewer_of_them() -> None:
    made = batcher(max_batch=9)
    put(made, *(entry("a", cost=2.0) for _ in range(20)), *(entry("b") for _ in range(20)))
    assert sorted(tenants(take(made))) == list("aaabbbbbb")


async def test_unary_goes_ahead_of_stream_and_does_not_starve_it() -> None:
    made = batcher(max_batch=18)
    put(made, *(entry("s", "stream") for _ in range(5)), *(entry("u") for _ in range(40)))
    assert tenants(take(made)) == ("u" * 8 + "s") * 2
    made = batcher(max_batch=4)
    put(made, entry("s", "stream"), entry("u"))
    assert tenants(take(made)) == "us"


async def test_who_asks_for_little_gets_a_batch_that_others_do_not_fill() -> None:
    made = batcher(max_batch=4)
    made.limit("m", 4, 1)
    put(made, *(entry("s", "stream") for _ in range(5)), entry("u"), entry("u"))
    assert [tenants(take(made)), tenants(take(made))] == ["uus", "ssss"]
    put(made, *(entry("a") for _ in range(9)))
    assert tenants(take(made)) == "aaaa"
    assert tenants(take(made)) == "aaaa"
    put(made, *(entry("a") for _ in range(9)), entry("b"), entry("b"))
    assert [tenants(take(made)), tenants(take(made))] == ["bba", "aaaa"]
    # Who had as much as the others fills nothing up.
    put(made, *(entry("c") for _ in range(3)), entry("d"))
    assert sorted(tenants(take(made))) == list("cccd")


async def test_streams_go_on_beside_calls_that_they_may_not_fill() -> None:
    made = batcher(max_batch=4)
    made.limit("m", 4, 0)
    put(made, *(entry("u") for _ in range(12)), entry("s", "stream"))
    assert [tenants(take(made)) for _ in range(4)] == ["uuuu", "uuuu", "suuu", "u"]


async def test_models_take_turns_under_a_flood_on_one() -> None:
    made = batcher(max_batch=2)
    made.open_queue("other")
    put(made, *(entry() for _ in range(6)), entry(queue="other"))
    taken = [take(made).queue]

    def run(queue: str) -> None:
        while (work := made.take(queue)) is not None:
            assert isinstance(work, Batch)
            taken.append(work.queue)
            if len(taken) == 4:
                made.close()

    threads = [threading.Thread(target=run, args=(queue,)) for queue in ("m", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert taken == ["m", "other", "m", "m"]


async def test_a_batch_has_the_device_to_itself_for_its_turn_and_no_longer() -> None:
    clock = HandClock()
    made = batcher(clock=clock)
    for queue in ("other", "third"):
        made.open_queue(queue)
    put(made, entry(), entry(queue="other"))
    take(made)
    assert made.due_in_s("other") == TURN_S
    clock.now += TURN_S / 2
    assert made.due_in_s("other") == TURN_S / 2
    clock.now += TURN_S / 2
    assert take(made, "other").queue == "other"
    # Its turn counts too, and the batch that has had its own does not.
    put(made, entry(queue="third"))
    clock.now += 0.5
    assert made.due_in_s("third") == TURN_S - 0.5
    clock.now += TURN_S
    assert made.due_in_s("third") == 0


async def test_a_batch_that_ends_makes_room_at_once() -> None:
    made = batcher()
    made.open_queue("other")
    put(made, entry(), entry(queue="other"))
    take(made)
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(made.take("other")))
    thread.start()
    # The thread that had the device comes for its next batch.
    ends = threading.Thread(target=lambda: made.take("m"))
    ends.start()
    await asyncio.to_thread(thread.join)
    assert isinstance(taken[0], Batch)
    made.close()
    await asyncio.to_thread(ends.join)


async def test_a_queue_whose_thread_does_something_else_keeps_nobody_from_the_device() -> None:
    made = batcher()
    made.open_queue("other")
    made.call("m", print)
    put(made, entry(), entry(queue="other"))
    assert made.due_in_s("other") is None
    assert made.take("m") is print
    assert take(made, "other").queue == "other"


async def test_whoever_is_next_and_leaves_makes_room() -> None:
    made = batcher()
    made.open_queue("other")
    leaves = entry()
    put(made, leaves, entry(queue="other"))
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(made.take("other")))
    thread.start()
    made.discard(leaves)
    await asyncio.to_thread(thread.join)
    assert isinstance(taken[0], Batch)


async def test_a_queue_that_is_closed_ends_its_thread() -> None:
    made = batcher()
    thread = threading.Thread(target=lambda: made.take("m"))
    thread.start()
    made.close_queue("m")
    await asyncio.to_thread(thread.join)
    assert made.take("m") is None
    assert made.depth("m") == 0


async def test_a_full_queue_refuses_unary_at_once_and_lets_streams_in() -> None:
    made = batcher(queue_limit=2)
    put(made, entry(), entry())
    with pytest.raises(ApiError) as refused:
        made.put(entry())
    assert refused.value.reason is Reason.SERVICE_OVERLOADED
    made.put(entry(lane="stream"))
    assert made.depth("m") == 3
    take(made)
    made.put(entry())


async def test_callers_who_left_are_not_in_the_batch() -> None:
    made = batcher()
    stays, leaves, cancelled = entry("a"), entry("b"), entry("c")
    put(made, leaves, stays, cancelled)
    made.discard(leaves)
    cancelled.future.cancel()
    assert take(made).entries == [stays]
    assert made.depth("m") == 0


async def test_discarding_twice_or_after_the_batch_changes_nothing() -> None:
    made = batcher()
    one = entry()
    made.put(one)
    take(made)
    made.discard(one)
    made.put(entry())
    assert made.depth("m") == 1


async def test_an_entry_past_its_deadline_is_set_apart() -> None:
    clock = HandClock()
    made = batcher(clock=clock)
    late, early = entry(deadline=101.0), entry(deadline=103.0)
    put(made, late, early)
    clock.now = 102.0
    batch = take(made)
    assert (batch.entries, batch.expired) == ([early], [late])


async def test_a_batch_waits_for_company_until_its_delay_or_until_full() -> None:
    clock = HandClock()
    made = batcher(max_batch=2, delay_s=5.0, clock=clock)
    made.put(entry())
    assert made.due_in_s("m") == 5.0
    clock.now += 3.0
    assert made.due_in_s("m") == 2.0
    made.put(entry())
    assert made.due_in_s("m") == 0.0
    assert len(take(made).entries) == 2
    assert made.due_in_s("m") is None


async def test_errands_run_before_batches() -> None:
    made = batcher()
    made.put(entry())
    made.call("m", print)
    assert made.take("m") is print
    assert isinstance(made.take("m"), Batch)


async def test_taking_waits_until_something_comes() -> None:
    made = batcher()
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(made.take("m")))
    thread.start()
    one = entry()
    made.put(one)
    await asyncio.to_thread(thread.join)
    assert isinstance(taken[0], Batch)
    assert taken[0].entries == [one]


async def test_closing_returns_who_waits_and_refuses_who_comes() -> None:
    made = batcher()
    waiting = [entry(), entry(lane="stream")]
    put(made, *waiting)
    assert made.close() == waiting
    assert made.take("m") is None
    for lane in ("unary", "stream"):
        with pytest.raises(ApiError) as refused:
            made.put(entry(lane=lane))
        assert refused.value.reason is Reason.SERVICE_DRAINING
