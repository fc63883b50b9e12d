"""Idempotency-Key: one creation for each, however it is asked for."""

from __future__ import annotations

import asyncio

import pytest

from sandbox_local.control import creations as module
from sandbox_local.control.creations import Creations
from sandbox_local.control.errors import BadRequest, Conflict
from sandbox_local.control.plan import Plan
from sandbox_local.control.registry import Registry
from sandbox_local.http import HttpError
from tests.unit.control_standin import StandinBackend, until, with_registry

PLAN = Plan(timeout=60)


def test_equal_requests_with_one_key_make_one_sandbox_one_after_the_other_and_at_once() -> None:
    """G21: one Idempotency-Key per logical create leaves exactly one sandbox."""

    async def test(registry: Registry, backend: StandinBackend) -> None:
        creations = Creations(registry)
        backend.may_create.clear()
        asking = [asyncio.create_task(creations.create(PLAN, b"request", "key")) for _ in range(20)]
        await asyncio.sleep(0.01)
        backend.may_create.set()
        made = {sandbox.sandbox_id for sandbox in await asyncio.gather(*asking)}
        made.add((await creations.create(PLAN, b"request", "key")).sandbox_id)
        assert len(made) == len(backend.boxes) == 1

    with_registry(test)


def test_another_request_with_the_same_key_is_a_conflict() -> None:
    """G21: reuse of a key with other parameters is a conflict error."""

    async def test(registry: Registry, backend: StandinBackend) -> None:
        creations = Creations(registry)
        await creations.create(PLAN, b"request", "key")
        with pytest.raises(Conflict, match="other parameters"):
            await creations.create(PLAN, b"another", "key")
        await creations.create(PLAN, b"another", "another-key")
        assert len(backend.boxes) == 2

    with_registry(test)


def test_who_went_away_and_asks_again_with_the_key_gets_the_sandbox_that_was_made() -> None:
    """G21: a lost answer followed by a retry leaves exactly one sandbox."""

    async def test(registry: Registry, backend: StandinBackend) -> None:
        creations = Creations(registry)
        backend.may_create.clear()
        asking = asyncio.create_task(creations.create(PLAN, b"request", "key"))
        await asyncio.sleep(0.01)
        asking.cancel()
        backend.may_create.set()
        await until(lambda: len(registry.living()) == 1)
        sandbox = await creations.create(PLAN, b"request", "key")
        assert registry.living() == [sandbox]
        assert len(backend.boxes) == 1

    with_registry(test)


def test_who_went_away_without_a_key_leaves_no_sandbox() -> None:
    """G22: a create whose answer nobody got leaves nothing behind."""

    async def test(registry: Registry, backend: StandinBackend) -> None:
        backend.may_create.clear()
        asking = asyncio.create_task(Creations(registry).create(PLAN, b"request", None))
        await asyncio.sleep(0.01)
        asking.cancel()
        backend.may_create.set()
        await until(lambda: len(backend.boxes) == 1 and backend.boxes[0].closed == 1)
        await until(lambda: len(registry) == 0)

    with_registry(test)


def test_a_failed_creation_may_be_tried_again_with_its_key() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        creations = Creations(registry)
        backend.failure = OSError(12, "no room")
        with pytest.raises(HttpError, match="no room"):
            await creations.create(PLAN, b"request", "key")
        backend.failure = None
        await creations.create(PLAN, b"request", "key")
        assert len(backend.boxes) == 1

    with_registry(test)


def test_the_key_of_a_sandbox_that_has_ended_makes_no_new_one() -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        creations = Creations(registry)
        sandbox = await creations.create(PLAN, b"request", "key")
        await registry.kill(sandbox.sandbox_id)
        with pytest.raises(Conflict, match="has ended"):
            await creations.create(PLAN, b"request", "key")
        assert len(backend.boxes) == 1

    with_registry(test)


def test_keys_are_forgotten_in_time_and_kept_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        creations = Creations(registry)
        monkeypatch.setattr(module, "MOST_KEYS", 2)
        for key in ("one", "two", "three"):
            await creations.create(PLAN, b"request", key)
        await creations.create(PLAN, b"request", "three")
        assert len(backend.boxes) == 3
        await creations.create(PLAN, b"request", "one")
        assert len(backend.boxes) == 4, "the oldest key was given up for the third"
        monkeypatch.setattr(module, "WINDOW", 0.0)
        await creations.create(PLAN, b"request", "three")
        assert len(backend.boxes) == 5, "out of the window, a key is as good as new"

    with_registry(test)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é", "a\n"])
def test_a_malformed_key_is_refused(key: str) -> None:
    async def test(registry: Registry, backend: StandinBackend) -> None:
        with pytest.raises(BadRequest, match="Idempotency-Key"):
            await Creations(registry).create(PLAN, b"request", key)
        assert backend.boxes == []

    with_registry(test)
