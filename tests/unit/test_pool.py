"""A pool of sandboxes: whom it serves, in what order, and what becomes of the sandboxes."""

from __future__ import annotations

import gc
import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from sandbox_sync import (
    AuthenticationException,
    CommandExitException,
    DeadlineExceededException,
    InvalidArgumentException,
    PoolClosedException,
    PoolTimeoutException,
    RequestTimeoutException,
    Sandbox,
    SandboxException,
    SandboxPool,
    TimeoutException,
    deadline,
)
from tests.unit.facade_service import until
from tests.unit.pool_service import PoolService, running


@pytest.fixture
def served() -> Iterator[tuple[PoolService, dict[str, Any]]]:
    with running() as running_service:
        yield running_service


@pytest.fixture
def service(served: tuple[PoolService, dict[str, Any]]) -> PoolService:
    return served[0]


Make = Callable[..., SandboxPool]


@pytest.fixture
def make(served: tuple[PoolService, dict[str, Any]]) -> Iterator[Make]:
    """Makes pools of the service; in the end they are closed, and nothing may be left."""
    service, options = served
    pools: list[SandboxPool] = []

    def make(*arguments: Any, **more: Any) -> SandboxPool:
        pools.append(SandboxPool(*arguments, **{**options, **more}))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close(20)
    assert service.alive == set()


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as executor:
        yield executor


def in_line(
    callers: ThreadPoolExecutor, pool: SandboxPool, work: Callable[[], Any], count: int
) -> list[Future[Any]]:
    """Let so many callers wait for a sandbox, one behind the other."""
    found = []
    before = pool.stats().waiting
    for number in range(1, count + 1):
        found.append(callers.submit(work))

        def arrived(wanted: int = before + number) -> bool:
            return pool.stats().waiting == wanted

        until(arrived)
    return found


def test_nothing_is_made_and_no_thread_runs_before_its_first_use(service: PoolService, make: Make) -> None:
    threads = set(threading.enumerate())
    pool = make(2, 4)
    assert pool.stats().making == 0
    assert set(threading.enumerate()) == threads
    assert not service.asked
    pool.warm()
    assert (pool.stats().idle, len(service.alive)) == (2, 2)


def test_one_that_is_ready_is_handed_out_at_once_and_used_by_nobody_else(
    service: PoolService, make: Make
) -> None:
    pool = make(2, 4)
    pool.warm()
    service.may_create = False
    seen = []
    for _ in range(2):
        with pool.sandbox(timeout=0.001) as sandbox:
            seen.append(sandbox.sandbox_id)
            assert pool.stats().in_use == 1
    service.may_create = True
    for _ in range(6):
        with pool.sandbox() as sandbox:
            seen.append(sandbox.sandbox_id)
    assert len(set(seen)) == 8
    until(lambda: service.alive.isdisjoint(seen))
    assert service.most <= 4


def test_they_are_leased_and_made_as_asked(service: PoolService, make: Make) -> None:
    make(1, 1, "python", lease=7, metadata={"a": "b"}, envs={"C": "d"}).warm()
    (body,) = service.bodies
    assert (body["templateID"], body["timeout"]) == ("python", 7)
    assert (body["metadata"], body["envVars"]) == ({"a": "b"}, {"C": "d"})
    until(lambda: service.asked["renew"], within=10)


def test_callers_are_served_in_the_order_in_which_they_came(
    service: PoolService, make: Make, callers: ThreadPoolExecutor
) -> None:
    pool = make(0, 1)
    order: list[int] = []
    with pool.sandbox():
        waiting = []
        for number in range(8):

            def use(number: int = number) -> None:
                with pool.sandbox():
                    order.append(number)

            waiting += in_line(callers, pool, use, 1)
    for one in waiting:
        one.result(30)
    assert order == list(range(8))
    assert service.most == 1


def test_there_are_never_more_than_max(service: PoolService, make: Make, callers: ThreadPoolExecutor) -> None:
    pool = make(2, 3)
    service.creation_takes = 0.005
    in_use: set[str] = set()

    def use() -> None:
        for _ in range(8):
            with pool.sandbox(timeout=60) as sandbox:
                assert sandbox.sandbox_id not in in_use
                in_use.add(sandbox.sandbox_id)
                assert len(in_use) <= 3
                in_use.remove(sandbox.sandbox_id)

    for one in [callers.submit(use) for _ in range(16)]:
        one.result(60)
    assert service.most == 3
    assert pool.stats().lent == 128
    assert pool.stats().made >= 128


def test_the_wait_is_bounded_and_the_error_tells_all(service: PoolService, make: Make) -> None:
    pool = make(1, 2)
    with pool.sandbox(), pool.sandbox():
        began = time.monotonic()
        with pytest.raises(
            PoolTimeoutException, match=r"within 0.2 s.* 2 sandboxes 2 are in use.*max"
        ) as caught:
            pool.acquire(timeout=0.2)
        assert 0.2 <= time.monotonic() - began < 2
        assert isinstance(caught.value, TimeoutException)
        assert (caught.value.clock, caught.value.limit) == ("pool", 0.2)
        twin = pickle.loads(pickle.dumps(caught.value))
        assert twin.stats == caught.value.stats
        assert twin.stats.in_use == 2
        assert pool.stats().waiting == 0
    until(lambda: pool.stats().in_use == 0)
    service.may_create = False
    patient = make(0, 1, wait=0.1)
    with pytest.raises(PoolTimeoutException, match=r"within 0.1 s.* 1 being made.*min"):
        patient.acquire()
    service.may_create = True
    with patient.sandbox(timeout=20):  # the one that was being made is not lost
        assert patient.stats().made == 1


def test_the_block_of_a_deadline_bounds_the_wait(make: Make) -> None:
    pool = make(1, 1)
    with pool.sandbox():
        for timeout in (None, 60, 0):
            with (
                pytest.raises(DeadlineExceededException, match=r"1 are in use.*deadline\(0.1\)"),
                deadline(0.1),
            ):
                pool.acquire(timeout)
        with pytest.raises(PoolTimeoutException), deadline(60):
            pool.acquire(timeout=0.1)
    assert pool.stats().timed_out == 4
    with deadline(0.01):
        time.sleep(0.02)
        with pytest.raises(DeadlineExceededException):
            pool.acquire()


def test_an_error_reaches_one_caller_and_the_pool_goes_on(
    service: PoolService, make: Make, callers: ThreadPoolExecutor
) -> None:
    pool = make(0, 2)
    service.may_create = False
    service.refusals = [(401, "no such key")]
    waiting = in_line(callers, pool, pool.acquire, 2)
    service.may_create = True
    outcomes = [one.exception(20) for one in waiting]
    (error,) = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(error, AuthenticationException)
    (sandbox,) = [one.result() for one in waiting if one.exception() is None]
    pool.release(sandbox)
    assert pool.stats().failed == 1
    with pool.sandbox():
        pass


def test_warming_is_tried_again_with_pauses_and_told_in_the_log(
    service: PoolService, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    service.refusals = [(400, "not now")] * 2
    pool = make(2, 4)
    with caplog.at_level(logging.WARNING), pytest.raises(SandboxException, match="not now"):
        pool.warm()
    until(lambda: pool.stats().idle == 2, within=20)
    assert service.asked["create"] == 4
    told = [record.getMessage() for record in caplog.records]
    assert any("not now" in line and "again" in line for line in told)
    assert all("key" not in line for line in told)


def test_a_timeout_names_the_failure_behind_it(service: PoolService, make: Make) -> None:
    service.refusals = [(400, "no room for it")]
    pool = make(1, 1)
    with pytest.raises(SandboxException, match="no room for it"):
        pool.acquire()
    service.may_create = False
    with pytest.raises(PoolTimeoutException) as caught:
        pool.acquire(timeout=0.1)
    assert "no room for it" in str(caught.value.__cause__)
    service.may_create = True


def test_dead_ones_are_replaced_and_the_turn_is_kept(
    service: PoolService, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make(2, 4)
    pool.warm()
    time.sleep(1.1)  # for so long they are trusted
    gone = set(service.alive)
    service.dead |= gone
    with caplog.at_level(logging.INFO), ExitStack() as stack:
        handed_out = {stack.enter_context(pool.sandbox()).sandbox_id for _ in range(4)}
    assert handed_out.isdisjoint(gone)
    assert pool.stats().unhealthy == 2
    assert all(any(one in line.getMessage() for line in caplog.records) for one in gone)
    until(lambda: service.alive.isdisjoint(gone))


def test_one_that_was_just_seen_alive_is_not_asked(service: PoolService, make: Make) -> None:
    pool = make(1, 2)
    pool.warm()
    with pool.sandbox():
        assert service.asked["health"] == 0
    pool.warm()
    time.sleep(1.1)
    with pool.sandbox():
        assert service.asked["health"] == 1


def test_recycled_ones_are_cleaned_before_anybody_gets_them(service: PoolService, make: Make) -> None:
    dirty: set[str] = set()

    def clean(sandbox: Sandbox) -> bool:
        dirty.discard(sandbox.sandbox_id)
        return True

    pool = make(0, 1, None, clean, max_uses=3)
    seen = []
    for _ in range(7):
        with pool.sandbox() as sandbox:
            assert sandbox.sandbox_id not in dirty
            dirty.add(sandbox.sandbox_id)
            seen.append(sandbox.sandbox_id)
    assert seen == ["i1"] * 3 + ["i2"] * 3 + ["i3"]


def raising(error: BaseException) -> Callable[[Sandbox], bool]:
    def clean(_sandbox: Sandbox) -> bool:
        raise error

    return clean


def handing_over(sandbox: Sandbox) -> bool:
    sandbox.set_timeout(60)
    return True


@pytest.mark.parametrize(
    "recycle",
    [lambda _: False, lambda _: None, lambda _: "yes", raising(ValueError("spilt")), handing_over],
    ids=["no", "nothing", "words", "an error", "no longer leased"],
)
def test_what_was_not_cleaned_is_killed(make: Make, recycle: Any, caplog: pytest.LogCaptureFixture) -> None:
    pool = make(0, 1, None, recycle)
    with pool.sandbox() as first:
        pass
    with pool.sandbox() as second:
        assert second.sandbox_id != first.sandbox_id
    told = "spilt" in caplog.text
    assert told == (getattr(recycle, "__qualname__", "").startswith("raising"))


@pytest.mark.parametrize(
    ("error", "reused"),
    [
        (CommandExitException(exit_code=1), True),
        (ValueError(), True),
        (RequestTimeoutException("slow"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_block_that_ended_unsurely_leaves_nothing_to_recycle(
    make: Make, error: BaseException, reused: bool
) -> None:
    pool = make(0, 1, None, lambda _: True)
    with pytest.raises(type(error)), pool.sandbox() as first:
        raise error
    with pool.sandbox() as second:
        assert (second.sandbox_id == first.sandbox_id) is reused
    sandbox = pool.acquire()
    pool.release(sandbox, reuse=False)
    with pool.sandbox() as third:
        assert third.sandbox_id != sandbox.sandbox_id


def test_old_and_spare_ones_are_replaced(
    service: PoolService, make: Make, callers: ThreadPoolExecutor
) -> None:
    pool = make(1, 3, max_age=0.5)
    pool.warm()
    until(lambda: service.made >= 2 and pool.stats().idle == 1, within=20)
    pool.close()
    spare = make(1, 3, None, lambda _: True, max_idle=0.2)
    with spare.sandbox(), spare.sandbox(), spare.sandbox():
        pass
    until(lambda: spare.stats().idle == 1 and spare.stats().ending == 0, within=20)
    assert spare.stats().in_use == 0


def test_giving_back_what_was_not_taken_is_an_error(served: Any, make: Make) -> None:
    pool, other = make(0, 2), make(0, 2)
    with Sandbox.create(**served[1]) as stranger, pytest.raises(InvalidArgumentException, match="this pool"):
        pool.release(stranger)
    with pool.sandbox() as sandbox, pytest.raises(InvalidArgumentException):
        other.release(sandbox)
    with pytest.raises(InvalidArgumentException, match="already"):
        pool.release(sandbox)


def test_what_is_dropped_without_being_given_back_is_killed_and_told(
    service: PoolService, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make(0, 1)
    sandbox_id = pool.acquire().sandbox_id
    gc.collect()
    with pool.sandbox(timeout=20) as sandbox:
        assert sandbox.sandbox_id != sandbox_id
    assert pool.stats().dropped == 1
    assert f"sandbox {sandbox_id} was never given back" in caplog.text


def test_a_pool_that_is_dropped_ends_its_sandboxes(served: Any) -> None:
    service, options = served
    pool = SandboxPool(2, 4, **options)
    pool.warm()
    assert service.alive
    del pool
    gc.collect()
    until(lambda: not service.alive, within=20)


def test_closing_wakes_who_waits_and_ends_all_but_what_is_in_use(
    service: PoolService, make: Make, callers: ThreadPoolExecutor
) -> None:
    pool = make(1, 1)
    sandbox = pool.acquire()
    waiting = in_line(callers, pool, pool.acquire, 3)
    other = make(3, 3)
    other.warm()
    with other:
        assert len(service.alive) == 4
    pool.close()
    for one in waiting:
        with pytest.raises(PoolClosedException, match="closed"):
            one.result(10)
    assert service.alive == {sandbox.sandbox_id}
    for call in (pool.acquire, pool.warm):
        with pytest.raises(PoolClosedException, match="closed"):
            call()
    pool.release(sandbox)
    until(lambda: not service.alive)
    pool.close()
    assert "closed" in repr(pool)


def test_closing_does_not_wait_longer_than_it_is_told(
    service: PoolService, make: Make, callers: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make(0, 1)
    service.may_create = False
    (waiting,) = in_line(callers, pool, pool.acquire, 1)
    until(lambda: service.asked["create"] == 1)
    began = time.monotonic()
    pool.close(0.2)
    assert time.monotonic() - began < 5
    assert isinstance(waiting.exception(10), PoolClosedException)
    assert "still being ended" in caplog.text
    service.may_create = True
    until(lambda: service.made == 1)
    until(lambda: not service.alive)  # what came too late does not stay


def test_one_that_cannot_be_killed_gives_its_room_back_and_is_renewed_no_more(
    service: PoolService, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make(0, 1, lease=3)
    with pool.sandbox() as sandbox:
        service.kill_refusals = 1
    with pool.sandbox() as other:
        assert other.sandbox_id != sandbox.sandbox_id
    assert f"sandbox {sandbox.sandbox_id} was not killed" in caplog.text
    assert sandbox._lease is not None
    assert sandbox._lease.ended
    service.alive.discard(sandbox.sandbox_id)  # as its lease would have it


@pytest.mark.parametrize(
    "options",
    [
        {"min": -1},
        {"max": 0},
        {"min": 3, "max": 2},
        {"min": True},
        {"recycle": 3600},
        {"max_uses": 0},
        {"max_age": -1},
        {"wait": float("nan")},
        {"lease": 2},
        {"timeout": 60},
        {"lifecycle": {"on_timeout": "pause"}},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_when_the_pool_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentException, match=next(iter(options))):
        SandboxPool(**options)


def test_it_does_not_pickle_and_shows_no_secret(make: Make) -> None:
    pool = make(1, 1, api_key="e2b_secret")
    with pytest.raises(TypeError, match="in each process"):
        pickle.dumps(pool)
    assert "secret" not in repr(pool) + repr(pool._settings)


def test_planning_twice_changes_nothing(make: Make) -> None:
    pool = make(2, 3)
    pool.warm()
    with pool.sandbox():
        pool.warm()
        before = pool.stats()
        with pool._slots.lock:
            for _ in range(5):
                pool._slots.plan()
        assert pool.stats() == before


def test_no_thread_to_be_had_is_told_to_the_caller(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make(0, 1)

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(SandboxException, match="can't start new thread"):
            pool.acquire(timeout=5)
    with pool.sandbox(timeout=20):
        assert pool.stats().in_use == 1
