"""Who may look up a name now, and who waits."""

from __future__ import annotations

import asyncio

import pytest
from tests.clock import FakeClock

from camserve_server.outbound.places import PLACES, Lookup, Name, Places


class Queue:
    """Places, and the lookups that have one."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.places = Places(self.clock.monotonic)
        self.taken: list[Lookup] = []

    def ask(self, owner: str, *hosts: str) -> list[str]:
        """Adds lookups; returns the hosts of those that began."""
        for host in hosts:
            self.places.wait(Lookup(Name(owner, host, 443, 0), asyncio.Future()))
        return self._begun()

    def end(self, host: str, *, after_s: float = 0) -> list[str]:
        """Ends a lookup; returns the hosts of those that began then."""
        self.clock.advance(after_s)
        (lookup,) = (one for one in self.taken if one.name.host == host)
        self.taken.remove(lookup)
        self.places.end(lookup)
        return self._begun()

    def knows(self, owner: str, *hosts: str, took_s: float = 0) -> None:
        """Lets names have been looked up, all as slowly."""
        for host in hosts:
            assert self.ask(owner, host) == [host]
            self.end(host, after_s=took_s)

    def _begun(self) -> list[str]:
        begun = list(self.places.begin())
        self.taken += begun
        return [lookup.name.host for lookup in begun]


@pytest.fixture
async def queue():
    return Queue()


def some(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(count)]


async def test_who_comes_first_has_the_next_place_of_an_owner(queue):
    queue.knows("a", *some("x", 11))
    assert queue.ask("a", *some("x", 11)) == some("x", 8)
    assert queue.end("x5") == ["x8"]
    assert queue.end("x8") == ["x9"]
    assert queue.ask("b", "y") == ["y"]


async def test_one_who_gave_up_has_no_turn(queue):
    queue.ask("a", *some("x", 8))
    queue.places.give_up(queue.places.find(Name("a", "x6", 443, 0)))
    assert queue.end("x0") == ["x7"]


async def test_many_owners_leave_places_for_others(queue):
    owners = some("owner", 40)
    for owner in owners:
        queue.knows(owner, *(f"{owner}{number}" for number in range(8)))
    begun = [len(queue.ask(owner, *(f"{owner}{number}" for number in range(8)))) for owner in owners]
    assert begun[:28] == [8] * 28
    assert begun[28:] == sorted(begun[28:], reverse=True)
    assert begun[-1] == 1
    assert sum(begun) < PLACES
    assert queue.ask("another", "y") == ["y"]


async def test_owners_take_turns_where_nothing_is_free(queue):
    for number in range(PLACES):
        assert queue.ask(f"owner{number}", f"x{number}")
    assert queue.ask("a", *some("a", 9)) == []
    assert queue.ask("b", *some("b", 9)) == []
    assert [queue.end("x0"), queue.end("a0"), queue.end("b0"), queue.end("a1")] == [["a0"], ["b0"], ["a1"], ["b1"]]


async def test_a_quarter_of_an_owners_places_is_for_names_that_were_quick(queue):
    queue.knows("a", *some("quick", 3))
    queue.knows("a", "quick0", "was", took_s=6)
    assert queue.ask("a", *some("new", 8)) == some("new", 6)
    assert queue.ask("a", *some("quick", 3), "was") == ["quick1", "quick2"]
    assert queue.end("quick1") == []
    assert queue.end("new0") == ["new6"]


async def test_names_that_were_slow_have_half_of_the_places(queue):
    queue.knows("a", *some("slow", 8), took_s=6)
    assert queue.ask("a", *some("slow", 8), *some("new", 3)) == [*some("slow", 4), *some("new", 2)]
    assert queue.end("new0") == ["new2"]
    assert queue.end("slow0") == ["slow4"]
    # Nobody else's names are slow for that.
    assert queue.ask("b", *some("slow", 8)) == some("slow", 6)


async def test_names_that_are_slow_now_have_half_of_the_places(queue):
    queue.knows("a", "slow", took_s=6)
    queue.ask("a", *some("x", 4))
    queue.clock.advance(6)
    assert queue.ask("a", "slow", "good") == ["good"]
    assert queue.end("x0") == ["slow"]


async def test_slow_names_of_all_owners_have_half_of_all_places(queue):
    owners = some("owner", 60)
    for owner in owners:
        queue.knows(owner, *(f"{owner}-{number}" for number in range(4)), took_s=6)
    begun = [len(queue.ask(owner, *(f"{owner}-{number}" for number in range(4)))) for owner in owners]
    assert sum(begun) == PLACES // 2
    assert len(queue.end("owner0-0")) == 1
    assert queue.ask("owner0", "good") == ["good"]
    assert queue.ask("another", *some("x", 9)) == some("x", 6)


async def test_a_name_that_is_quick_again_is_slow_no_longer(queue):
    queue.knows("a", *some("x", 8), took_s=6)
    queue.knows("a", *some("x", 8))
    assert queue.ask("a", *some("x", 8)) == some("x", 8)


async def test_names_are_forgotten_where_there_are_too_many(queue):
    queue.knows("a", *some("slow", 4_096 + 6), took_s=6)
    queue.knows("b", *some("quick", 4_096 + 7))
    assert queue.ask("a", *some("slow", 6)) == some("slow", 6)
    assert queue.ask("b", *some("quick", 7)) == some("quick", 6)
    # Who was asked for lately is not the next.
    queue.knows("c", *some("x", 4_096))
    queue.knows("c", "x0", "another")
    assert queue.ask("c", *some("new", 6), "x1", "x0") == [*some("new", 6), "x0"]
