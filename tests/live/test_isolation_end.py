"""The ends of boxes, however they come: nothing runs on, and nothing is left on the machine."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox_local.isolation.base import BoxGone, BoxSpec, Command, Exit
from tests import processes
from tests.live.boxes import a_backend, in_loop, run, shell, until

_OWNER = """
import asyncio, sys
from sandbox_local.isolation.base import BoxSpec, Command
from sandbox_local.isolation.namespaces import NamespaceBackend

async def main():
    backend = NamespaceBackend()
    await backend.start()
    for number in range(3):
        box = await backend.create(BoxSpec(f"box{number}"))
        await box.spawn(Command(["sleep", "1000"], "user"))
        await box.spawn(Command(["setsid", "bash", "-c", "trap '' HUP TERM; sleep 1000; :"], "root"))
        await box.files("stat", path="/tmp", user="user")
        if number == 2:
            await box.freeze()
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def _in_namespaces(names: set[str], latest: int) -> list[int]:
    """Who runs in them; numbers of namespaces are used again, so who came after `latest` is a stranger."""
    return [
        pid
        for pid in processes.pids()
        if (at := processes.started(pid)) is not None
        and at <= latest
        and processes.namespaces(pid).intersection(names)
    ]


def _mounts() -> set[str]:
    found = set()
    for pid in processes.pids():
        try:
            found |= set(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
        except OSError:
            pass
    return found


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


class _Ours:
    """The processes that a test starts: this process may have others, such as a server that tests share."""

    def __init__(self) -> None:
        self._others = self._children()

    @staticmethod
    def _children() -> set[int]:
        return {pid for pid in processes.pids() if _parent(pid) == os.getpid()}

    def launchers(self) -> set[int]:
        """The children of this process that are the test's."""
        return self._children() - self._others

    def processes(self) -> set[int]:
        """The same, with their descendants."""
        return self.launchers().union(*map(processes.descendants, self.launchers()))


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_when_the_server_dies_its_boxes_die_and_leave_nothing(signum: int, tmp_path: Path) -> None:
    """G6, and more: no process, namespace, mount or file of any box is left."""
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, env=environment)
    assert owner.stdout is not None
    try:
        assert select.select([owner.stdout], [], [], 60)[0]
        assert owner.stdout.readline() == b"ready\n"
        theirs = processes.descendants(owner.pid)
        assert len(theirs) >= 2 + 3 * 4
        latest = max(filter(None, map(processes.started, theirs)))
        namespaces = set().union(*map(processes.namespaces, theirs)) - processes.namespaces(owner.pid)
        assert len(namespaces) >= 3 * 3
        assert any("upperdir" in line for line in _mounts())
    finally:
        owner.send_signal(signum)
        owner.wait()
        owner.stdout.close()
    deadline = time.monotonic() + 2  # it takes some tens of milliseconds
    while time.monotonic() < deadline and (
        _in_namespaces(namespaces, latest) or any(map(processes.is_running, theirs))
    ):
        time.sleep(0.01)
    assert [pid for pid in theirs if processes.is_running(pid)] == []
    assert _in_namespaces(namespaces, latest) == []
    assert list(tmp_path.iterdir()) == []


def test_closing_a_box_ends_everything_in_it_before_it_returns() -> None:
    ours = _Ours()

    async def work() -> None:
        async with a_backend() as backend:
            others = await backend.create(BoxSpec("other"))
            before = ours.processes()
            box = await backend.create(BoxSpec("box"))
            sleeper = await box.spawn(Command(["sleep", "1000"], "user"))
            await shell(
                box, "setsid bash -c 'trap \"\" HUP TERM INT; sleep 1000; :' >/dev/null 2>&1 &", user="root"
            )
            await until(lambda: len(ours.processes() - before) == 4)
            inside = ours.processes() - before
            await box.freeze()
            await box.close()
            assert not any(os.path.exists(f"/proc/{pid}") for pid in inside)
            assert await box.ended == "it was closed"
            with pytest.raises(BoxGone, match="sandbox box has ended: it was closed"):
                await sleeper.exit
            for use in (
                box.spawn(Command(["true"], "user")),
                box.freeze(),
                box.connect(80),
                sleeper.kill_tree(),
            ):
                with pytest.raises(BoxGone):
                    await use
            await box.close()
            assert (await run(others, "true")).exit == Exit(0, None)
            for fd in (sleeper.stdout, sleeper.stderr):
                assert fd is not None
                os.close(fd)

    in_loop(work())


def test_a_box_whose_first_process_dies_tells_so_and_its_ids_are_used_again() -> None:
    ours = _Ours()

    async def work() -> None:
        async with a_backend() as backend:
            before = ours.processes()
            box = await backend.create(BoxSpec("box"))
            ids = (await run(box, "cat", "/proc/self/uid_map")).stdout
            (first,) = ours.processes() - before
            asking = asyncio.ensure_future(box.spawn(Command(["sleep", "10"], "user")))
            os.kill(first, signal.SIGSTOP)
            await asyncio.sleep(0)
            os.kill(first, signal.SIGKILL)
            with pytest.raises(BoxGone):
                await asking
            assert await box.ended == "its first process died"
            await box.close()
            assert not os.path.exists(f"/proc/{first}"), "it was not waited for"
            again = await backend.create(BoxSpec("again"))
            assert (await run(again, "cat", "/proc/self/uid_map")).stdout == ids

    in_loop(work())


def test_when_the_zygote_dies_its_boxes_end_and_the_next_has_a_new_one() -> None:
    ours = _Ours()

    async def work() -> None:
        async with a_backend() as backend:
            boxes = [await backend.create(BoxSpec(f"box{number}")) for number in range(3)]
            sleeper = await boxes[0].spawn(Command(["sleep", "1000"], "user", pty=(80, 24)))
            (launcher,) = ours.launchers()
            (zygote,) = (pid for pid in processes.descendants(launcher) if _parent(pid) == launcher)
            os.kill(zygote, signal.SIGKILL)
            await asyncio.wait_for(asyncio.gather(*(box.ended for box in boxes)), 2)
            with pytest.raises(BoxGone):
                await sleeper.exit
            late = await asyncio.gather(*(backend.create(BoxSpec(f"late{number}")) for number in range(3)))
            assert len(ours.launchers()) == 1
            assert (await run(late[0], "echo", "here")).stdout == "here\n"
            for box in boxes:
                await box.close()
            assert sleeper.pty is not None
            os.close(sleeper.pty)

    in_loop(work())


def test_a_stopped_zygote_does_not_keep_boxes_from_ending() -> None:
    ours = _Ours()

    async def work() -> None:
        async with a_backend() as backend:
            box = await backend.create(BoxSpec("box"))
            (launcher,) = ours.launchers()
            (zygote,) = (pid for pid in processes.descendants(launcher) if _parent(pid) == launcher)
            os.kill(zygote, signal.SIGSTOP)
            closing = asyncio.ensure_future(box.close())
            try:
                assert await asyncio.wait_for(asyncio.shield(box.ended), 2) == "it was closed"
            finally:
                os.kill(zygote, signal.SIGCONT)
            await closing

    in_loop(work())


def test_a_hundred_boxes_live_side_by_side_and_end_together() -> None:
    ours = _Ours()

    async def work() -> None:
        async with a_backend() as backend:
            before = len(os.listdir("/proc/self/fd"))
            boxes = await asyncio.gather(*(backend.create(BoxSpec(f"box{number}")) for number in range(100)))
            told = await asyncio.gather(*(run(box, "cat", "/proc/self/uid_map") for box in boxes))
            if os.geteuid() == 0:
                assert len({output.stdout for output in told}) == 100
            await asyncio.gather(*(box.close() for box in boxes))
            assert len(os.listdir("/proc/self/fd")) == before
            assert len(ours.processes()) == 2

    in_loop(work())


def test_closing_the_backend_ends_all_boxes_and_the_zygote() -> None:
    ours = _Ours()

    async def work() -> None:
        descriptors = len(os.listdir("/proc/self/fd"))
        async with a_backend() as backend:
            boxes = [await backend.create(BoxSpec(f"box{number}")) for number in range(5)]
        assert all(box.ended.done() for box in boxes)
        assert ours.processes() == set()
        await until(lambda: len(os.listdir("/proc/self/fd")) == descriptors)

    in_loop(work())


def test_a_creation_that_nobody_waits_for_any_more_leaves_no_box() -> None:
    ours = _Ours()

    async def work() -> None:
        async with a_backend() as backend:
            for delay in (0, 0.0005, 0.002, 0.004):
                creating = asyncio.ensure_future(backend.create(BoxSpec("box")))
                await asyncio.sleep(delay)
                creating.cancel()
                try:
                    await (await creating).close()
                except asyncio.CancelledError:
                    pass
            await until(lambda: len(ours.processes()) == 2)

    in_loop(work())
