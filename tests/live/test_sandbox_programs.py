"""Whole programs that use real sandboxes: where they run, how they end, and what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from uuid import uuid4

import pytest

from sandbox_sync import Sandbox, SandboxQuery
from tests.strictness import WATCHFUL

pytestmark = pytest.mark.usefixtures("server_env", "transport")

PRELUDE = """
import os, sys, threading, time
from sandbox_sync import Sandbox
mark = {"mark": sys.argv[1]}
"""


def start(program: str, mark: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *options, "-c", PRELUDE + textwrap.dedent(program), mark],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise AssertionError(f"it hung; it had said:\n{output}\n{errors}") from None
    return process.returncode, output, errors


def run(program: str, *options: str, seconds: float = 60) -> str:
    """Run a program that has to end well and to leave no sandbox; its output."""
    mark = uuid4().hex
    code, output, errors = finish(start(program, mark, *options), seconds)
    assert code == 0, output + errors
    assert errors == ""
    assert not Sandbox.list(query=SandboxQuery(metadata={"mark": mark}))
    return output


def test_inside_a_running_event_loop() -> None:
    """G18: in the loop's own thread and in asyncio.to_thread, and nothing of asyncio is loaded by the SDK."""
    output = run(
        """
        with Sandbox.create(metadata=mark) as sandbox:
            assert sandbox.commands.run("echo before").stdout == "before\\n"
            sandbox.files.write("x", "y")
            handle = sandbox.commands.run("sleep 100", background=True)
            assert handle.kill()
            if os.environ["SANDBOX_SYNC_TRANSPORT"] == "connect":
                assert "asyncio" not in sys.modules
            import asyncio

            async def main():
                assert sandbox.commands.run("echo in the loop").stdout == "in the loop\\n"
                streamed = []
                sandbox.commands.run("echo streamed", on_stdout=streamed.append)
                assert streamed == ["streamed\\n"]
                async def one(n):
                    return await asyncio.to_thread(sandbox.commands.run, f"sleep 1; echo {n}")
                begin = time.monotonic()
                results = await asyncio.gather(*[one(n) for n in range(8)])
                assert [result.stdout for result in results] == [f"{n}\\n" for n in range(8)]
                assert time.monotonic() - begin < 6, "they waited for each other"
                with Sandbox.create(metadata=mark) as other:
                    assert other.files.list(".") is not None

            asyncio.run(main())
            print(sandbox.commands.run("echo after").stdout)
        """
    )
    assert output.strip() == "after"


def test_at_exit() -> None:
    """G18: sandboxes can be used and killed in functions of atexit."""
    output = run(
        """
        import atexit
        sandbox = Sandbox.create(metadata=mark)

        def at_exit():
            print(sandbox.commands.run("echo at exit").stdout, flush=True)
            sandbox.files.write("x", "y")
            assert sandbox.kill() is True

        atexit.register(at_exit)
        """
    )
    assert output.strip() == "at exit"


def test_at_exit_while_a_command_is_followed() -> None:
    """G18: not even a reader that is at work keeps the program from its end."""
    output = run(
        """
        import atexit
        sandbox = Sandbox.create(metadata=mark)
        forever = "while sleep 0.05; do echo x; done"
        handle = sandbox.commands.run(forever, background=True, on_stdout=lambda _: None)
        atexit.register(sandbox.kill)
        atexit.register(lambda: print("ends", flush=True))
        """
    )
    assert output.strip() == "ends"


@pytest.mark.parametrize(
    "call",
    [
        'sandbox.commands.run("sleep 1000", timeout=0)',
        'sandbox.commands.run("sleep 1000", background=True, timeout=0).wait()',
        'list(sandbox.files.watch_dir("/home/user", timeout=0))',
    ],
)
def test_after_ctrl_c(call: str) -> None:
    """G18: kill() works in a `finally` that Ctrl-C has led to, and so does the end of a `with` block."""
    mark = uuid4().hex
    program = f"""
        with Sandbox.create(metadata=mark) as held:
            sandbox = Sandbox.create(metadata=mark)
            try:
                print("waiting", flush=True)
                {call}
            finally:
                print(sandbox.commands.run("echo still usable").stdout, flush=True)
                print(sandbox.kill(), flush=True)
        """
    process = start(program, mark)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    # What is waited for begins a moment later.
    for _ in range(200):
        if process.poll() is not None:
            break
        with open(f"/proc/{process.pid}/stat") as stat:
            if stat.read().rpartition(")")[2].split()[0] == "S":
                break
    os.kill(process.pid, signal.SIGINT)
    code, output, errors = finish(process, 30)
    assert output.split("\n")[:3] == ["still usable", "", "True"], output + errors
    assert "KeyboardInterrupt" in errors
    assert code == -signal.SIGINT
    assert not Sandbox.list(query=SandboxQuery(metadata={"mark": mark}))


LEAKS = """
    import gc

    def once():
        with Sandbox.create(metadata=mark) as sandbox:
            assert sandbox.commands.run("echo x").stdout == "x\\n"
            sandbox.files.write("a", "b")
            assert sandbox.files.read("a") == "b"
            handle = sandbox.commands.run("sleep 100", background=True, check=False)
            HANDLE

    def open_now():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    for _ in range(3):
        once()
    before = open_now()
    for _ in range(int(TIMES)):
        once()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        after = open_now()
        if abs(after[0] - before[0]) <= 3 and abs(after[1] - before[1]) <= 3:
            break
        time.sleep(0.05)
    else:
        raise AssertionError(f"descriptors, threads: {before}, then {after}; {threading.enumerate()}")
"""

OPTIONS = (*WATCHFUL, "-W", "error::ResourceWarning")


def test_nothing_is_left_open() -> None:
    """G19: descriptors and threads are back where they were after many sandboxes, with no ResourceWarning.

    The guarantee says 500 times; this is a part of it.
    """
    program = LEAKS.replace("HANDLE", "assert handle.kill(); handle.wait()").replace("TIMES", "25")
    run(program, *OPTIONS, seconds=100)


def test_nothing_is_left_open_of_handles_that_are_dropped() -> None:
    """G19: nor of what nobody cleaned up after."""
    run(LEAKS.replace("HANDLE", "del handle").replace("TIMES", "15"), *OPTIONS, seconds=100)
