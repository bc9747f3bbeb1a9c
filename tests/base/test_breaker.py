"""A breaker opens on failures in a row, lets one call try, and believes only what began in its present state."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY
from tests.clock import FakeClock

from camserve_server.base.breaker import Breaker, Breakers, CircuitState, Turn
from camserve_server.base.errors import ApiError, Reason


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker("part", "it", monotonic=clock.monotonic, failures=3, pause_s=2, longest_s=7, patience_s=5)


def opened(breaker: Breaker) -> Breaker:
    for turn in [breaker.enter() for _ in range(3)]:
        turn.failed()
    return breaker


def refused(breaker: Breaker) -> int | None:
    """Returns the hint with which a call is refused, None when it is not."""
    if breaker.lets_through:
        breaker.enter().left()
        return None
    with pytest.raises(ApiError) as caught:
        breaker.enter()
    assert caught.value.reason is Reason.CIRCUIT_OPEN
    return caught.value.retry_after_s


def state_shown() -> float | None:
    return REGISTRY.get_sample_value("camserve_circuit_state", {"part": "part", "name": "it"})


def test_failures_in_a_row_open_and_a_success_between_them_starts_the_count_again(breaker: Breaker) -> None:
    for succeeds in (False, False, True, False, False):
        turn = breaker.enter()
        turn.succeeded() if succeeds else turn.failed()
    assert refused(breaker) is None
    breaker.enter().failed()
    assert refused(breaker) == 2


def test_the_hint_is_the_time_until_the_next_try_and_at_least_a_second(breaker: Breaker, clock: FakeClock) -> None:
    opened(breaker)
    clock.advance(0.5)
    assert refused(breaker) == 2
    clock.advance(1.2)
    assert refused(breaker) == 1
    clock.advance(0.3)
    assert refused(breaker) is None


async def test_of_twenty_calls_at_once_one_tries(breaker: Breaker, clock: FakeClock) -> None:
    opened(breaker)
    clock.advance(2)
    through, answer = 0, asyncio.Event()

    async def call() -> None:
        nonlocal through
        with breaker.guard(lambda _: True):
            through += 1
            await answer.wait()

    calls = [asyncio.create_task(call()) for _ in range(20)]
    await asyncio.sleep(0)
    answer.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert through == 1
    assert sum(isinstance(outcome, ApiError) for outcome in outcomes) == 19
    assert breaker.state is CircuitState.CLOSED


def test_each_try_that_fails_doubles_the_pause_up_to_the_longest_and_a_success_ends_it(
    breaker: Breaker, clock: FakeClock
) -> None:
    opened(breaker)
    hints = []
    for _ in range(4):
        hints.append(refused(breaker))
        clock.advance(hints[-1] or 0)
        breaker.enter().failed()
    assert hints == [2, 4, 7, 7]
    clock.advance(7)
    breaker.enter().succeeded()
    opened(breaker)
    assert refused(breaker) == 2


async def test_a_try_that_is_canceled_hands_its_turn_on(breaker: Breaker, clock: FakeClock) -> None:
    opened(breaker)
    clock.advance(2)

    async def call() -> None:
        with breaker.guard(lambda _: True):
            await asyncio.Event().wait()

    trying = asyncio.create_task(call())
    await asyncio.sleep(0)
    assert refused(breaker) == 1
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    breaker.enter().succeeded()
    assert breaker.state is CircuitState.CLOSED


async def test_calls_that_are_given_up_late_count_as_failed(breaker: Breaker, clock: FakeClock) -> None:
    async def call() -> None:
        with breaker.guard(lambda _: None):
            await asyncio.Event().wait()

    for waits_s, state in ((4.9, CircuitState.CLOSED), (5, CircuitState.OPEN)):
        calls = [asyncio.create_task(call()) for _ in range(3)]
        await asyncio.sleep(0)
        clock.advance(waits_s)
        for each in calls:
            each.cancel()
        await asyncio.wait(calls)
        assert breaker.state is state


def test_a_try_that_takes_too_long_no_longer_keeps_others_off_and_is_not_believed(
    breaker: Breaker, clock: FakeClock
) -> None:
    opened(breaker)
    clock.advance(2)
    slow = breaker.enter()
    clock.advance(5)
    quick = breaker.enter()
    assert not slow.succeeded()
    assert breaker.state is CircuitState.HALF_OPEN
    assert quick.failed()
    assert refused(breaker) == 4


def test_what_began_before_the_state_changed_tells_nothing(breaker: Breaker, clock: FakeClock) -> None:
    late: list[Turn] = [breaker.enter() for _ in range(2)]
    opened(breaker)
    assert not late[0].succeeded()
    assert breaker.state is CircuitState.OPEN
    clock.advance(2)
    breaker.enter().succeeded()
    assert not late[1].failed()


def test_a_turn_ends_once(breaker: Breaker) -> None:
    turn = breaker.enter()
    assert [turn.failed(), turn.failed(), turn.failed(), turn.succeeded()] == [True, False, False, False]
    assert breaker.state is CircuitState.CLOSED


@pytest.mark.parametrize(
    ("blame", "state"),
    [(True, CircuitState.OPEN), (False, CircuitState.CLOSED), (None, CircuitState.OPEN)],
)
def test_only_what_the_part_is_to_blame_for_counts(
    breaker: Breaker, clock: FakeClock, blame: bool | None, state: CircuitState
) -> None:
    opened(breaker)
    clock.advance(2)
    with pytest.raises(OSError, match="wrong"):
        with breaker.guard(lambda _: blame):
            raise OSError("wrong")
    assert breaker.state is state
    # Nothing became known: the next call tries at once.
    assert breaker.lets_through is (blame is not True)


def test_work_under_way_is_not_refused_and_does_not_close_what_is_open(breaker: Breaker) -> None:
    opened(breaker)
    with breaker.guard(lambda _: True, under_way=True):
        pass
    assert refused(breaker) == 2


def test_states_are_in_the_metrics(breaker: Breaker, clock: FakeClock) -> None:
    states = [state_shown()]
    opened(breaker)
    states.append(state_shown())
    clock.advance(2)
    turn = breaker.enter()
    states.append(state_shown())
    turn.succeeded()
    states.append(state_shown())
    assert states == [0, 2, 1, 0]


def test_while_it_is_held_nobody_tries_and_then_the_next_call_does(breaker: Breaker, clock: FakeClock) -> None:
    before = breaker.enter()
    breaker.hold()
    assert (breaker.state, state_shown()) == (CircuitState.OPEN, 2)
    hints = []
    for after_s in (0, 3, 2, 1000):
        clock.advance(after_s)
        hints.append(refused(breaker))
    # As long as it has hung, from the first pause to the longest.
    assert hints == [2, 3, 5, 7]
    assert not before.succeeded()
    assert not breaker.join().succeeded()
    breaker.release()
    assert breaker.state is CircuitState.OPEN
    trial = breaker.enter()
    assert refused(breaker) == 1
    trial.succeeded()
    assert (breaker.state, state_shown()) == (CircuitState.CLOSED, 0)


def test_places_have_breakers_of_their_own_and_only_so_many_are_kept(clock: FakeClock) -> None:
    places = Breakers("places", monotonic=clock.monotonic, failures=1, pause_s=2, most=2)
    for place in "ab":
        places[place].enter().failed()
    assert places.left_alone() == {"a", "b"}
    assert REGISTRY.get_sample_value("camserve_circuits_open", {"part": "places"}) == 2
    assert not places["a"].lets_through  # b is the one not used for longest now
    assert places["c"].lets_through
    assert places.left_alone() == {"a"}
    assert places["b"].lets_through
    clock.advance(2)
    assert places.left_alone() == set()
    assert REGISTRY.get_sample_value("camserve_circuits_open", {"part": "places"}) == 0
