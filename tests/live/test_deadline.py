"""The deadline of a block of code, with real sandboxes: what it ends, and what outlasts it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from sandbox_sync import (
    CommandTimeoutException,
    DeadlineExceededException,
    InvalidArgumentException,
    Sandbox,
    SandboxNotFoundException,
    deadline,
)
from tests.live.command_tools import sleeping


def ends_at(seconds: float, action: Callable[[], object]) -> DeadlineExceededException:
    began = time.monotonic()
    named = rf"with deadline\({seconds:g}\)"
    with pytest.raises(DeadlineExceededException, match=named) as caught, deadline(seconds):
        action()
    assert seconds <= time.monotonic() - began < seconds + 1.5
    assert (caught.value.clock, caught.value.limit) == ("deadline", seconds)
    return caught.value


def test_a_foreground_command_ends_with_the_block(sandbox: Sandbox) -> None:
    for timeout in (60, 0):
        error = ends_at(1, partial(sandbox.commands.run, "echo begun; sleep 76541", timeout=timeout))
        assert error.stdout == "begun\n"
        assert error.sandbox_id == sandbox.sandbox_id
        assert not sleeping(sandbox, "76541")


def test_the_shorter_clock_is_the_one_that_is_named(sandbox: Sandbox) -> None:
    with deadline(30), pytest.raises(CommandTimeoutException) as caught:
        sandbox.commands.run("sleep 30", timeout=0.3)
    assert caught.value.clock == "timeout"


def test_what_is_in_the_background_outlasts_the_block(sandbox: Sandbox) -> None:
    with deadline(1):
        handle = sandbox.commands.run("read line; echo got $line", background=True, stdin=True)
    ends_at(0.3, handle.wait)
    ends_at(0.3, lambda: handle.wait(timeout=60))
    ends_at(0.3, lambda: list(handle))
    time.sleep(1)  # by now the block in which it was started is over
    handle.send_stdin("it\n")
    assert handle.wait().stdout == "got it\n"


def test_a_watch_outlasts_the_block_and_waiting_for_it_does_not(sandbox: Sandbox) -> None:
    with deadline(5):
        watch = sandbox.files.watch_dir("/tmp")
    with watch:
        for wait in (watch.poll, watch.wait, lambda: list(watch), lambda: list(watch.events(60))):
            ends_at(0.3, wait)
        assert watch.poll(timeout=0.1) == []
        sandbox.files.write("/tmp/new", "x")
        assert watch.poll(timeout=20)


def test_a_download_ends_with_the_block(sandbox: Sandbox) -> None:
    sandbox.commands.run("mkfifo /tmp/fifo; truncate -s 200M /tmp/large")

    def slowly() -> None:
        for _ in sandbox.files.read("/tmp/large", format="stream"):
            time.sleep(0.05)

    ends_at(1, slowly)


def test_a_call_after_the_end_is_refused_and_does_nothing(sandbox: Sandbox) -> None:
    with deadline(0.05):
        time.sleep(0.1)
        for call in (
            lambda: sandbox.files.write("/tmp/never", "x"),
            lambda: sandbox.commands.run("touch /tmp/never"),
            lambda: sandbox.commands.run("touch /tmp/never", background=True),
            sandbox.get_info,
        ):
            with pytest.raises(DeadlineExceededException):
                call()
    assert not sandbox.files.exists("/tmp/never")


def test_blocks_inside_only_shorten_and_the_outer_one_comes_back(sandbox: Sandbox) -> None:
    with deadline(1) as outer:
        with deadline(60) as inner:
            assert (inner.remaining() or 99) <= 1
            with pytest.raises(DeadlineExceededException, match=r"deadline\(0.2\)"), deadline(0.2):
                sandbox.commands.run("sleep 30")
        assert not outer.expired
        assert sandbox.commands.run("echo on").stdout == "on\n"
    assert sandbox.commands.run("sleep 1.1; echo free").stdout == "free\n"


def test_another_thread_has_no_deadline(sandbox: Sandbox) -> None:
    said: list[str] = []
    with deadline(0.5):
        thread = threading.Thread(target=lambda: said.append(sandbox.commands.run("sleep 1; echo x").stdout))
        thread.start()
    thread.join(30)
    assert said == ["x\n"]


@pytest.mark.parametrize("raising", [True, False])
def test_a_sandbox_is_killed_though_the_time_is_up(
    server_env: dict[str, str], transport: str, raising: bool
) -> None:
    """G22: leaving the block of a sandbox ends it, also after the deadline."""
    with deadline(5) as limit:
        try:
            with Sandbox.create() as sandbox:
                while not limit.expired:
                    time.sleep(0.1)
                if raising:
                    sandbox.commands.run("true")
        except DeadlineExceededException:
            assert raising
    with pytest.raises(SandboxNotFoundException):
        sandbox.get_info()


def test_its_arguments_are_checked() -> None:
    for wrong in (-1, float("inf"), "5"):
        with pytest.raises(InvalidArgumentException, match="seconds"):
            deadline(wrong)  # type: ignore[arg-type]
    with deadline(None) as none:
        assert none.remaining() is None
        with pytest.raises(InvalidArgumentException, match="in use"), none:
            raise AssertionError
