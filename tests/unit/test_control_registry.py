"""The registry: what becomes of a sandbox from create to end."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta, timezone

import pytest

from sandbox_local.control.errors import Conflict, SandboxNotFound
from sandbox_local.control.plan import Plan
from sandbox_local.control.registry import Registry, State
from sandbox_local.http import HttpError
from tests.unit.control_standin import StandinBackend, until, with_registry


def in_seconds(seconds: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def about(one: datetime, other: datetime) -> bool:
    return abs((one - other).total_seconds()) < 2


def test_a_created_sandbox_is_found_and_has_an_id_of_the_documented_form() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=60))
        assert re.fullmatch("i[a-z0-9]{20}", sandbox.sandbox_id)
        assert registry.get(sandbox.sandbox_id) is sandbox
        assert registry.living() == [sandbox]
        assert about(sandbox.end_at, in_seconds(60))

    with_registry(test)


def test_tokens_are_made_for_who_wants_them_and_shown_in_no_repr() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        closed = await registry.create(Plan(timeout=60, public_traffic=False))
        unsecured = await registry.create(Plan(timeout=60, secure=False))
        assert closed.envd_access_token
        assert closed.traffic_access_token
        assert closed.envd_access_token != closed.traffic_access_token
        assert closed.envd_access_token not in repr(closed)
        assert closed.traffic_access_token not in repr(closed)
        assert unsecured.envd_access_token is None
        assert unsecured.traffic_access_token is None

    with_registry(test)


def test_kill_returns_when_the_box_is_closed_and_once_only() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=60))
        box = backend.boxes[0]
        box.may_close.clear()
        first = asyncio.create_task(registry.kill(sandbox.sandbox_id))
        await until(lambda: box.closed == 1)
        assert registry.find(sandbox.sandbox_id) is None
        assert registry.living() == []
        with pytest.raises(Conflict, match="being killed"):
            await registry.connect(sandbox.sandbox_id, 60)
        second = asyncio.create_task(registry.kill(sandbox.sandbox_id))
        await asyncio.sleep(0.01)
        assert not first.done()
        assert not second.done()
        box.may_close.set()
        await first
        with pytest.raises(SandboxNotFound):
            await second
        with pytest.raises(SandboxNotFound, match=sandbox.sandbox_id):
            await registry.kill(sandbox.sandbox_id)

    with_registry(test)


def test_a_kill_goes_on_when_its_caller_goes_away() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=60))
        box = backend.boxes[0]
        box.may_close.clear()
        killing = asyncio.create_task(registry.kill(sandbox.sandbox_id))
        await until(lambda: box.closed == 1)
        killing.cancel()
        box.may_close.set()
        await until(lambda: len(registry) == 0)

    with_registry(test)


def test_a_sandbox_ends_at_its_timeout() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=1))
        await until(lambda: backend.boxes[0].closed == 1)
        assert datetime.now(timezone.utc) >= sandbox.end_at
        await until(lambda: len(registry) == 0)

    with_registry(test)


def test_set_timeout_moves_the_end_both_ways_and_zero_means_now() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=60))
        registry.set_timeout(sandbox.sandbox_id, 600)
        assert about(sandbox.end_at, in_seconds(600))
        registry.set_timeout(sandbox.sandbox_id, 30)
        assert about(sandbox.end_at, in_seconds(30))
        registry.set_timeout(sandbox.sandbox_id, 0)
        await until(lambda: len(registry) == 0)

    with_registry(test)


def test_connect_and_refresh_extend_and_never_shorten() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=60))
        assert await registry.connect(sandbox.sandbox_id, 10) == (sandbox, False)
        assert about(sandbox.end_at, in_seconds(60))
        await registry.connect(sandbox.sandbox_id, 120)
        assert about(sandbox.end_at, in_seconds(120))
        registry.extend(sandbox.sandbox_id, 15)
        assert about(sandbox.end_at, in_seconds(120))
        registry.extend(sandbox.sandbox_id, 240)
        assert about(sandbox.end_at, in_seconds(240))

    with_registry(test)


def test_a_paused_sandbox_stands_still_without_a_timeout_until_it_is_resumed() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=1))
        box = backend.boxes[0]
        await registry.pause(sandbox.sandbox_id)
        assert sandbox.state is State.PAUSED
        assert box.frozen
        assert about(sandbox.end_at, in_seconds(0))
        with pytest.raises(Conflict, match="paused already"):
            await registry.pause(sandbox.sandbox_id)
        with pytest.raises(Conflict, match="connect to it first"):
            registry.set_timeout(sandbox.sandbox_id, 60)
        registry.extend(sandbox.sandbox_id, 1)
        await asyncio.sleep(1.2)
        assert registry.find(sandbox.sandbox_id) is sandbox
        resumed, was_paused = await registry.connect(sandbox.sandbox_id, 60)
        assert (resumed, was_paused) == (sandbox, True)
        assert resumed.state is State.RUNNING
        assert not box.frozen
        assert about(sandbox.end_at, in_seconds(60))
        with pytest.raises(Conflict, match="runs already"):
            await registry.resume(sandbox.sandbox_id, 60)

    with_registry(test)


def test_auto_pause_pauses_at_the_timeout_in_place_of_the_end() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=1, auto_pause=True))
        await until(lambda: sandbox.state is State.PAUSED)
        assert backend.boxes[0].frozen
        await registry.kill(sandbox.sandbox_id)

    with_registry(test)


def test_a_connect_during_a_pause_waits_for_it_and_resumes() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=60))
        pausing = asyncio.create_task(registry.pause(sandbox.sandbox_id))
        await asyncio.sleep(0)
        _, resumed = await registry.connect(sandbox.sandbox_id, 60)
        await pausing
        assert resumed
        assert sandbox.state is State.RUNNING

    with_registry(test)


def test_many_pauses_and_connects_at_once_leave_a_sandbox_in_one_state() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=60))
        changes = [
            registry.pause(sandbox.sandbox_id) if i % 2 else registry.connect(sandbox.sandbox_id, 60)
            for i in range(50)
        ]
        await asyncio.gather(*changes, return_exceptions=True)
        assert backend.boxes[0].frozen == (sandbox.state is State.PAUSED)

    with_registry(test)


def test_a_pause_during_the_end_says_not_found() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=60))
        pausing = asyncio.create_task(registry.pause(sandbox.sandbox_id))
        await asyncio.sleep(0)
        await registry.kill(sandbox.sandbox_id)
        with pytest.raises(SandboxNotFound):
            await pausing

    with_registry(test)


def test_a_sandbox_whose_box_dies_is_gone() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        sandbox = await registry.create(Plan(timeout=60))
        backend.boxes[0].ended.set_result("its first process was killed")
        await until(lambda: len(registry) == 0)
        with pytest.raises(SandboxNotFound):
            registry.get(sandbox.sandbox_id)

    with_registry(test)


def test_more_sandboxes_than_allowed_are_refused_those_being_made_included() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        backend.may_create.clear()
        creations = [registry.create(Plan(timeout=60)) for _ in range(3)]
        with pytest.raises(HttpError) as refusal:
            registry.create(Plan(timeout=60))
        assert refusal.value.status == 429
        backend.may_create.set()
        sandboxes = await asyncio.gather(*creations)
        await registry.kill(sandboxes[0].sandbox_id)
        await registry.create(Plan(timeout=60))

    with_registry(test, most=3)


def test_a_creation_that_fails_leaves_room_for_the_next() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        backend.failure = OSError(28, "No space left on device")
        with pytest.raises(HttpError, match=r"503: .* No space"):
            await registry.create(Plan(timeout=60))
        assert len(registry) == 0
        backend.failure = None
        await registry.create(Plan(timeout=60))

    with_registry(test, most=1)


def test_close_ends_running_paused_and_half_made_sandboxes() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        await registry.create(Plan(timeout=60))
        paused = await registry.create(Plan(timeout=60))
        await registry.pause(paused.sandbox_id)
        backend.may_create.clear()
        registry.create(Plan(timeout=60))
        closing = asyncio.create_task(registry.close())
        await until(lambda: backend.boxes[1].closed == 1)
        backend.may_create.set()
        await closing
        assert len(backend.boxes) == 3

    with_registry(test)
