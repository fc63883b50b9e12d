"""G60: a start that is asked for again with the same request id starts nothing a second time."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from sandbox_local.envd import starts
from sandbox_local.rpc import Code, RpcError
from tests.unit.test_envd_process import Fixture, Transcript, context, with_service

KEYED = context(idempotency_key="one")
ADD = "echo x >> started; echo said; read -r _; echo more"


@with_service
async def test_a_repeated_start_follows_the_first_ones_process_from_its_first_byte(fix: Fixture) -> None:
    """G60: the first answer is lost after a part of the output; nothing of it is lost to who asks again."""
    events = fix.start(ADD, KEYED)
    async with aclosing(events):
        pid = (await anext(events)).event.start.pid
        assert (await anext(events)).event.data.stdout == b"said\n"
    again = fix.start(ADD, KEYED)
    async with aclosing(again):
        said = Transcript()
        said.add(await anext(again))
        assert said.pid == pid
        await fix.send(pid, stdin=b"\n")
        await said.read(again)
    assert said.stdout == b"said\nmore\n"
    late = await fix.run(ADD, KEYED)
    assert (late.pid, late.stdout, late.end.exit_code) == (pid, b"said\nmore\n", 0)
    assert (await fix.run("wc -l < started; rm started")).stdout == b"1\n"


@with_service
async def test_starts_at_the_same_time_start_one_process(fix: Fixture) -> None:
    """G60: a proxy that repeats a request before it is answered."""
    said = await asyncio.gather(*(fix.run("echo $$", KEYED) for _ in range(10)))
    assert len({each.stdout for each in said}) == 1
    assert len({each.pid for each in said}) == 1


@with_service
async def test_another_id_or_none_is_another_process(fix: Fixture) -> None:
    keys = [KEYED, context(idempotency_key="two"), context(), context()]
    assert len({(await fix.run("echo $$", key)).stdout for key in keys}) == 4


@with_service
async def test_an_id_can_not_be_used_for_two_requests(fix: Fixture) -> None:
    """G60: reuse with another command or user is an error and starts nothing."""
    await fix.run("true", KEYED)
    for script, ctx in (
        ("false", KEYED),
        ("true", context(idempotency_key="one", authorization="Basic cm9vdDo=")),
    ):
        with pytest.raises(RpcError) as caught:
            await fix.run(script, ctx)
        assert caught.value.code is Code.ALREADY_EXISTS


@with_service
async def test_a_malformed_id_is_refused(fix: Fixture) -> None:
    for key in ("", "a b", "x" * 256, "ü"):
        with pytest.raises(RpcError) as caught:
            await fix.run("true", context(idempotency_key=key))
        assert caught.value.code is Code.INVALID_ARGUMENT


@with_service
async def test_a_start_that_failed_may_be_tried_again(fix: Fixture) -> None:
    request = starts.Starts()
    calls = []

    async def fail() -> starts.Started:
        calls.append(1)
        raise RpcError(Code.INTERNAL, "no")

    for _ in range(2):
        with pytest.raises(RpcError):
            await request.once("k", b"", lambda: asyncio.create_task(fail()))
        await asyncio.sleep(0)
    assert len(calls) == 2


@with_service
async def test_output_that_is_no_longer_kept_is_not_passed_off_as_whole(fix: Fixture) -> None:
    script = f"head -c {starts.OUTPUT_KEPT + 1} /dev/zero"
    first = await fix.run(script, KEYED)
    assert len(first.stdout) == starts.OUTPUT_KEPT + 1
    with pytest.raises(RpcError, match=f"started process {first.pid} before") as caught:
        await fix.run(script, KEYED)
    assert caught.value.code is Code.ABORTED


@with_service
async def test_who_asked_again_is_told_of_the_timeout_like_who_asked_first(fix: Fixture) -> None:
    timed = context(idempotency_key="one", connect_timeout_ms="300")

    async def follow() -> Code:
        with pytest.raises(RpcError) as caught:
            await fix.run("sleep 60", timed)
        return caught.value.code

    assert set(await asyncio.gather(follow(), follow())) == {Code.DEADLINE_EXCEEDED}


@with_service
async def test_only_so_many_ids_are_remembered(fix: Fixture) -> None:
    known = starts.Starts()
    running = (await _launched(fix)).running

    async def launch() -> starts.Started:
        return starts.Started(running, running.output.reader())

    tasks = [known.once(f"k{n}", b"", lambda: asyncio.create_task(launch())) for n in range(300)]
    assert known.once("k299", b"", lambda: pytest.fail("was launched again")) is tasks[299]
    assert known.once("k0", b"", lambda: asyncio.create_task(launch())) is not tasks[0]
    await asyncio.gather(*tasks)


async def _launched(fix: Fixture) -> starts.Started:
    await fix.run("true", KEYED)
    return await fix.service._starts._entries["one"].task
