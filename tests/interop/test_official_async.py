"""The official `e2b` package, unmodified, against the embedded server: the asyncio half."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

e2b = pytest.importorskip("e2b")

pytestmark = pytest.mark.usefixtures("server_env")


def with_sandbox(test: Callable[[Any], Awaitable[None]], **options: Any) -> None:
    """Run a test with a sandbox of its own."""

    async def body() -> None:
        sandbox = await e2b.AsyncSandbox.create(**{"timeout": 120, **options})
        try:
            await asyncio.wait_for(test(sandbox), 60)
        finally:
            await sandbox.kill()

    asyncio.run(body())


def test_the_life_of_a_sandbox() -> None:
    mark = uuid.uuid4().hex

    async def test(sandbox: Any) -> None:
        assert await sandbox.is_running()
        info = await sandbox.get_info()
        assert (info.sandbox_id, info.metadata) == (sandbox.sandbox_id, {"mark": mark})
        await sandbox.set_timeout(600)
        assert 590 < ((await sandbox.get_info()).end_at - info.started_at).total_seconds() < 620
        paginator = e2b.AsyncSandbox.list(query=e2b.SandboxQuery(metadata={"mark": mark}))
        assert [item.sandbox_id for item in await paginator.next_items()] == [sandbox.sandbox_id]
        assert not paginator.has_next
        again = await e2b.AsyncSandbox.connect(sandbox.sandbox_id)
        assert (await again.commands.run("echo hi")).stdout == "hi\n"
        assert await again.pause() is True
        assert not await again.is_running()
        await again.connect()
        assert await again.is_running()
        assert await sandbox.kill() is True
        assert await sandbox.kill() is False
        assert not await sandbox.is_running()
        with pytest.raises(e2b.SandboxNotFoundException):
            await e2b.AsyncSandbox.connect(sandbox.sandbox_id)

    with_sandbox(test, metadata={"mark": mark})


def test_commands_give_output_and_exit_code() -> None:
    async def test(sandbox: Any) -> None:
        heard: list[str] = []
        result = await sandbox.commands.run(
            "echo out; echo err >&2; echo $MINE", envs={"MINE": "yes"}, on_stdout=heard.append
        )
        assert (result.stdout, result.stderr, result.exit_code) == ("out\nyes\n", "err\n", 0)
        assert "".join(heard) == "out\nyes\n"
        with pytest.raises(e2b.CommandExitException) as failure:
            await sandbox.commands.run("exit 3")
        assert failure.value.exit_code == 3
        with pytest.raises(e2b.TimeoutException):
            await sandbox.commands.run("sleep 30", timeout=1)

    with_sandbox(test)


def test_background_commands_are_listed_fed_and_killed() -> None:
    async def test(sandbox: Any) -> None:
        handle = await sandbox.commands.run(
            "read line; echo got $line", background=True, stdin=True, timeout=0
        )
        assert handle.pid in [process.pid for process in await sandbox.commands.list()]
        await sandbox.commands.send_stdin(handle.pid, "this\n")
        assert (await handle.wait()).stdout == "got this\n"
        sleeping = await sandbox.commands.run("sleep 100", background=True, timeout=0)
        assert await sleeping.kill() is True
        assert await sandbox.commands.kill(sleeping.pid) is False

    with_sandbox(test)


def test_many_commands_run_at_once() -> None:
    async def test(sandbox: Any) -> None:
        results = await asyncio.gather(*(sandbox.commands.run(f"sleep 0.2; echo {n}") for n in range(20)))
        assert [result.stdout for result in results] == [f"{n}\n" for n in range(20)]

    with_sandbox(test)


def test_files_are_written_read_and_found() -> None:
    async def test(sandbox: Any) -> None:
        files = sandbox.files
        await files.write("dir/a.txt", "text")
        assert await files.read("dir/a.txt") == "text"
        assert bytes(await files.read("dir/a.txt", format="bytes")) == b"text"
        assert [entry.name for entry in await files.list("dir")] == ["a.txt"]
        assert await files.exists("dir/a.txt")
        await files.rename("dir/a.txt", "dir/b.txt")
        await files.remove("dir")
        assert not await files.exists("dir/b.txt")
        with pytest.raises(e2b.FileNotFoundException):
            await files.read("dir/b.txt")

    with_sandbox(test)


def test_a_directory_is_watched() -> None:
    async def test(sandbox: Any) -> None:
        seen: asyncio.Queue[Any] = asyncio.Queue()
        await sandbox.files.make_dir("watched")
        handle = await sandbox.files.watch_dir("watched", on_event=seen.put_nowait)
        await sandbox.files.write("watched/new.txt", "x")
        event = await asyncio.wait_for(seen.get(), 10)
        assert (event.name, event.type) == ("new.txt", e2b.FilesystemEventType.CREATE)
        await handle.stop()

    with_sandbox(test)
