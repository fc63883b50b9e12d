"""What becomes of commands and their handles when a sandbox ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox_sync import CommandHandle, Sandbox, SandboxException, SandboxNotRunningException
from tests.live.command_tools import threads, until


def ended(handle: CommandHandle) -> SandboxException | None:
    try:
        handle.wait(timeout=10)
    except SandboxException as error:
        return error
    return None


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("how", ["kill", "lifetime"])
def test_a_sandbox_that_ends_tells_every_handle(sandbox: Sandbox, how: str) -> None:
    """20 commands run: each handle has a clear error within two seconds; no thread or descriptor is left."""
    # Connections that are kept open for other calls are there before, too.
    warm = [sandbox.commands.run("cat", background=True, stdin=True) for _ in range(20)]
    for handle in warm:
        handle.close_stdin()
        handle.wait(timeout=10)
    until(lambda: not threads("sandbox-sync-command"))
    before, others = descriptors(), len(threads())
    handles = [
        sandbox.commands.run("echo begun; echo wrong >&2; sleep 1000", background=True) for _ in range(20)
    ]
    until(lambda: all(handle.stdout and handle.stderr for handle in handles))
    with ThreadPoolExecutor(20) as pool:
        ending = [pool.submit(ended, handle) for handle in handles]
        begin = time.monotonic()
        if how == "kill":
            assert sandbox.kill()
        else:
            sandbox.set_timeout(0)
        errors = [one.result(10) for one in ending]
        assert time.monotonic() - begin < 2
    for handle, error in zip(handles, errors, strict=True):
        assert isinstance(error, SandboxNotRunningException), error
        assert (error.sandbox_state, error.clock) == ("gone", "sandbox lifetime")
        assert (error.sandbox_id, error.pid) == (sandbox.sandbox_id, handle.pid)
        assert (error.stdout, error.stderr) == ("begun\n", "wrong\n")
        assert handle.exit_code is None
        assert "disconnected" in repr(handle)
    until(lambda: len(threads()) <= others, within=2)
    until(lambda: descriptors() <= before, within=2)


def test_everything_about_a_handle_of_a_dead_sandbox_is_clear(sandbox: Sandbox) -> None:
    """G28: gone is a class of its own, whichever call is made."""
    handle = sandbox.commands.run("echo begun; sleep 1000", background=True, stdin=True)
    until(lambda: handle.stdout)
    assert sandbox.kill()
    calls: list[Callable[[], object]] = [
        lambda: handle.wait(timeout=5),
        lambda: handle.wait(),
        lambda: [*handle],
        lambda: handle.send_stdin("x"),
        lambda: handle.stream_input(["x"]),
        handle.close_stdin,
        handle.poll,
        handle.kill,
        sandbox.commands.list,
        lambda: sandbox.commands.connect(handle.pid),
        lambda: sandbox.commands.run("true"),
        lambda: sandbox.commands.run("true", background=True),
    ]
    for call in calls:
        before = time.monotonic()
        with pytest.raises(SandboxNotRunningException) as caught:
            call()
        assert caught.value.sandbox_state == "gone"
        assert time.monotonic() - before < 2
    assert handle.stdout == "begun\n"
    handle.disconnect()


def test_a_foreground_command_ends_with_its_sandbox(sandbox: Sandbox) -> None:
    """G1, G12: it neither hangs nor succeeds, and what had arrived is in the error."""
    with pytest.raises(SandboxNotRunningException) as caught:
        sandbox.commands.run("echo begun; sleep 1000", timeout=0, on_stdout=lambda _: sandbox.kill())
    assert (caught.value.stdout, caught.value.sandbox_state) == ("begun\n", "gone")
    assert not threads("sandbox-sync-kill")


def test_a_block_can_be_left_when_the_sandbox_is_gone(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("sleep 1000", background=True)
    sandbox.kill()
    with pytest.raises(ZeroDivisionError), handle:
        raise ZeroDivisionError
