"""What a box may use as a whole: memory, processes, processor time, files."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandbox_local.isolation.base import BoxSpec, Command, Limits
from sandbox_local.isolation.namespace_box import NamespaceBox
from tests.live.boxes import a_backend, in_loop, read_all, read_some, shell

_MIB = 1 << 20
_SMALL = Limits(memory_bytes=128 * _MIB, processes=64)
_BOMB = "bomb() { bomb | bomb & }; bomb"


@asynccontextmanager
async def _boxes(limits: Limits, *resources: str) -> AsyncIterator[tuple[NamespaceBox, NamespaceBox]]:
    """A box with these limits and a neighbour, where these resources are bounded for each as a whole."""
    async with a_backend() as backend:
        for resource in resources:
            if shortfall := backend.enforcement.shortfall(resource):
                pytest.skip(f"{resource}: {shortfall.cause}")
        yield await backend.create(BoxSpec("box", limits=limits)), await backend.create(BoxSpec("neighbour"))


def _with_boxes(
    test: Callable[[NamespaceBox, NamespaceBox], Coroutine[Any, Any, None]], limits: Limits, *resources: str
) -> None:
    async def work() -> None:
        async with _boxes(limits, *resources) as boxes:
            await test(*boxes)

    in_loop(work())


def _python(program: str) -> str:
    return f'python3 -c "{program}"'


def test_a_command_that_takes_too_much_memory_is_killed_and_nothing_else_is() -> None:
    """G7: the box of a command that runs out of memory, and its neighbours, go on answering."""

    async def test(box: NamespaceBox, neighbour: NamespaceBox) -> None:
        await box.files("stat", path="/tmp", user="user")  # the worker runs
        bystander = await box.spawn(Command(["sleep", "1000"], "user"))
        other = await neighbour.spawn(Command(["sleep", "1000"], "user"))
        for _ in range(3):
            hog = await shell(box, "exec " + _python("held = bytearray(1 << 30)"))
            assert hog.exit.signal == 9
        assert (await shell(box, "echo alive")).stdout == "alive\n"
        await box.files("stat", path="/tmp", user="user")
        assert not bystander.exit.done()
        assert not other.exit.done()
        assert not neighbour.ended.done()
        for process in (bystander, other):
            for fd in (process.stdout, process.stderr):
                assert fd is not None
                os.close(fd)

    _with_boxes(test, _SMALL, "memory")


def test_many_processes_together_have_no_more_memory_than_one() -> None:
    async def test(box: NamespaceBox, neighbour: NamespaceBox) -> None:
        hold = _python(
            "import time; held = bytearray(b'x') * (40 << 20); print(1, flush=True); time.sleep(99)"
        )
        output = await shell(box, f"for i in 1 2 3 4 5 6; do {hold} & done; wait -n; kill $(jobs -p); wait")
        assert "Killed" in output.stderr
        assert (await shell(box, "echo alive")).stdout == "alive\n"

    _with_boxes(test, _SMALL, "memory")


def test_full_files_leave_memory_for_commands() -> None:
    async def test(box: NamespaceBox, neighbour: NamespaceBox) -> None:
        for place in ("/tmp/x", "/dev/shm/x"):
            filled = await shell(box, f"head -c 1G /dev/zero > {place}")
            assert filled.exit.signal is None, place
            assert "No space left" in filled.stderr, place
        assert (await shell(box, _python("print(sum(range(10)))"))).stdout == "45\n"
        used = box.usage().memory_used
        assert used is not None
        assert used >= _SMALL.disk_bytes + _SMALL.shm_bytes
        assert used <= _SMALL.memory_bytes
        assert (await shell(box, "rm /tmp/x /dev/shm/x; head -c 1M /dev/zero > /tmp/x")).exit.code == 0

    _with_boxes(test, _SMALL, "memory")


def test_a_command_may_not_be_spared_at_the_cost_of_the_agent() -> None:
    """Where memory is short commands go first: the agent counts for less, and what is born later for more."""

    async def test(box: NamespaceBox, neighbour: NamespaceBox) -> None:
        script = "cat /proc/self/oom_score_adj /proc/1/oom_score_adj"
        command, agent = map(int, (await shell(box, script, user="root")).stdout.split())
        assert command > agent

    _with_boxes(test, _SMALL)


def test_a_command_is_no_more_urgent_than_the_server_and_less_than_the_agent() -> None:
    """G7: where processors are short the agent goes first, as far as the server may arrange that."""

    async def test(box: NamespaceBox, neighbour: NamespaceBox) -> None:
        script = "nice; cut -d ' ' -f 19 /proc/1/stat"
        command, agent = map(int, (await shell(box, script, user="root")).stdout.split())
        assert command == os.getpriority(os.PRIO_PROCESS, 0)
        assert agent == command - 10 if os.geteuid() == 0 else agent == command

    _with_boxes(test, _SMALL)


@pytest.mark.parametrize("user", ["user", "root"])
def test_a_fork_bomb_is_bounded_and_its_box_still_answers(user: str) -> None:
    """G7: under a fork bomb the server's file operations and the neighbours go on, and the end comes fast."""

    async def test(box: NamespaceBox, neighbour: NamespaceBox) -> None:
        bomb = await box.spawn(Command(["bash", "-c", f"{_BOMB}; sleep 1000"], user))
        assert bomb.stdout is not None
        assert bomb.stderr is not None
        drained = asyncio.gather(read_all(bomb.stdout), read_all(bomb.stderr))
        began = time.monotonic()
        assert (await shell(neighbour, "echo alive")).stdout == "alive\n"
        entry, _ = await box.files("stat", path="/tmp", user="user")
        assert entry
        assert time.monotonic() - began < 5
        began = time.monotonic()
        await box.close()
        assert time.monotonic() - began < 5
        await drained
        assert not neighbour.ended.done()

    _with_boxes(test, _SMALL, "pids")


def test_all_users_of_a_box_together_have_a_bounded_number_of_processes() -> None:
    """The limit of each user is no bound of the box: its root can be as many users as it likes."""
    program = (
        "import os, signal\n"
        "n = 0\n"
        "all_there, say_so = os.pipe()\n"
        "for uid in range(2000, 2010):\n"
        "    if os.fork(): continue\n"
        "    os.setresuid(uid, uid, uid)\n"
        "    os.close(say_so)\n"
        "    os.read(all_there, 1)\n"
        "    try:\n"
        "        while os.fork(): n += 1\n"
        "    except OSError: print(n, flush=True)\n"
        "    signal.pause()\n"
        "os.close(say_so)\n"
        "signal.pause()\n"
    )
    limits = Limits(memory_bytes=512 * _MIB, processes=64)

    async def test(box: NamespaceBox, neighbour: NamespaceBox) -> None:
        many = await box.spawn(Command(["python3", "-c", program], "root"))
        assert many.stdout is not None
        assert many.stderr is not None
        os.close(many.stderr)
        output = b""
        while output.count(b"\n") < 10:  # each has found its bound, or the box's
            some = await read_some(many.stdout)
            assert some
            output += some
        os.close(many.stdout)
        assert 0 < sum(map(int, output.split())) <= limits.processes + 32

    _with_boxes(test, limits, "pids")


def test_a_box_gets_the_share_of_a_processor_that_it_may_have() -> None:
    """Two that would take all there is, and one that may have a quarter of one processor."""
    spin = "end=$((SECONDS + 3)); while [ $SECONDS -lt $end ]; do :; done"

    async def test(box: NamespaceBox, neighbour: NamespaceBox) -> None:
        began = time.monotonic()
        output = await shell(box, f"({spin}) & ({spin}) & wait")
        took = time.monotonic() - began
        usage, _ = await box.files("usage")
        share = usage["cpu_seconds"] / took
        assert output.exit.code == 0
        assert 0.02 < share < 0.4

    _with_boxes(test, Limits(cpus=0.25), "cpu")


def test_sandboxes_weigh_less_than_the_server() -> None:
    """G7: threads that spin in as many boxes as there are processors do not keep the server from its work."""

    async def work() -> None:
        async with _boxes(Limits(), "cpu") as boxes:
            spinners = [
                await box.spawn(Command(["bash", "-c", "while :; do :; done"], "user"))
                for box in boxes
                for _ in range(8)
            ]
            worst = 0.0
            for _ in range(20):
                began = time.monotonic()
                await boxes[0].files("stat", path="/tmp", user="user")
                worst = max(worst, time.monotonic() - began)
            assert worst < 2
            for process in spinners:
                for fd in (process.stdout, process.stderr):
                    assert fd is not None
                    os.close(fd)

    in_loop(work())


def test_a_box_sees_nothing_of_the_groups_that_it_is_in() -> None:
    async def test(box: NamespaceBox, neighbour: NamespaceBox) -> None:
        for user in ("user", "root"):
            groups = (await shell(box, "cat /proc/self/cgroup /proc/1/cgroup", user)).stdout
            paths = {line.rpartition(":")[2] for line in groups.splitlines()}
            assert "sandboxes-" not in (await shell(box, "cat /proc/self/mountinfo", user)).stdout
            assert all(set(path) <= set("/.") for path in paths), paths

    _with_boxes(test, _SMALL)


def test_a_limit_that_makes_no_sense_is_refused() -> None:
    for wrong in (
        {"memory_bytes": 1 << 20},
        {"memory_bytes": 1 << 30, "disk_bytes": 1 << 30},
        {"processes": 0},
        {"cpus": 0.0},
    ):
        with pytest.raises(ValueError, match="sandbox"):
            Limits(**wrong)


def test_files_always_leave_memory_for_processes() -> None:
    for memory in (64 * _MIB, 512 * _MIB, 8 << 30, 1 << 40):
        limits = Limits(memory_bytes=memory)
        assert limits.disk_bytes + limits.shm_bytes <= memory * 3 // 4
    most = Limits(memory_bytes=1 << 30, disk_bytes=768 * _MIB)
    assert most.disk_bytes + most.shm_bytes < most.memory_bytes
