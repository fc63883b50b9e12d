"""Ctrl-C while a program waits for a command in a real sandbox."""

from __future__ import annotations

import json
import signal
import time

import pytest
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_sync import CommandTimeoutException, Sandbox
from tests.live.command_tools import sleeping, until
from tests.process.sdk_program import finish, start
from tests.unit.facade_service import PID, playing, running

# What the program waits in, and whether that ends the command.
WAITS = {
    "run": ('sandbox.commands.run("sleep 66666 & sleep 66666", timeout=0)', True),
    "run with output": ('sandbox.commands.run("while sleep .01; do echo x; done", timeout=0)', True),
    "run without retention": ('sandbox.commands.run("yes", timeout=0, retain_output=False)', True),
    "wait": ("handle.wait()", False),
    "wait with a timeout": ("handle.wait(timeout=50)", False),
    "wait with callbacks": ("handle.wait(on_stdout=print)", False),
    "iteration": ("[*handle]", False),
    "send_stdin": ("handle.send_stdin(b'x' * 1_000_000, request_timeout=0)", False),
    "stream_input": ("handle.stream_input(iter(lambda: b'x' * 1_000_000, b''), timeout=0)", False),
    "write": ("sandbox.files.write('never', iter(lambda: time.sleep(0.01) or b'x', b''))", False),
}  # fmt: skip

LONGEST = 0.2

PROGRAM = """
    from sandbox_sync import Sandbox
    sandbox = Sandbox.connect(sys.argv[1])
    handle = None
    if sys.argv[2] == "False":
        handle = sandbox.commands.run("sleep 66666", background=True, stdin=True)
    print("waiting", flush=True)
    try:
        WAIT
    except KeyboardInterrupt:
        print("interrupted", time.time(), flush=True)
    if handle is not None:  # the handle goes on, and the command can be killed
        assert handle.poll() is None
        assert handle.kill() is True
        try:
            handle.wait(timeout=10)
        except Exception as error:
            assert handle.exit_code == -1, error
    assert sandbox.commands.run("echo still", timeout=10).stdout == "still\\n"
    os.kill(os.getpid(), 2)
"""


def seconds_to_feel_it(sandbox: Sandbox, wait: str, ends: bool) -> float:
    process = start(PROGRAM.replace("WAIT", wait), sandbox.sandbox_id, str(ends))
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    until(lambda: sandbox.commands.list())
    time.sleep(0.2)
    sent = time.time()
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code in (-signal.SIGINT, 130), outcome.errors  # the second one nobody has caught
    word, _, at = outcome.output.strip().rpartition("\n")[2].partition(" ")
    assert word == "interrupted", outcome
    until(lambda: not sandbox.commands.list())
    assert not sleeping(sandbox, "66666")
    return float(at) - sent


@pytest.mark.parametrize("transport", ["connect", "grpc"])
@pytest.mark.parametrize("way", WAITS)
def test_ctrl_c_is_felt_at_once(
    server_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, transport: str, way: str
) -> None:
    """G41: in run, wait, iteration and write: KeyboardInterrupt within 0.2 s, and exit by SIGINT, so 130.

    A foreground command is killed, with its children; that of a handle can be killed afterwards.
    """
    monkeypatch.setenv("SANDBOX_SYNC_TRANSPORT", transport)
    wait, ends = WAITS[way]
    with Sandbox.create(timeout=300) as sandbox:
        felt = [seconds_to_feel_it(sandbox, wait, ends)]
        # What a busy machine adds is not the same every time; what the SDK does is.
        while min(felt) >= LONGEST and len(felt) < 3:
            felt.append(seconds_to_feel_it(sandbox, wait, ends))
        assert min(felt) < LONGEST


LEFT = """
    from sandbox_sync import Sandbox
    sandbox = Sandbox.connect(sys.argv[1])
    print("waiting", flush=True)
    sandbox.commands.run("sleep 2000; echo never", timeout=0, kill_on_interrupt=False)
"""


@pytest.mark.parametrize("transport", ["connect", "grpc"])
def test_ctrl_c_leaves_a_command_that_is_not_to_end_with_the_call(
    server_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setenv("SANDBOX_SYNC_TRANSPORT", transport)
    with Sandbox.create(timeout=300) as sandbox:
        process = start(LEFT, sandbox.sandbox_id)
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        until(lambda: sleeping(sandbox, "2000"))
        process.send_signal(signal.SIGINT)
        assert finish(process).code in (-signal.SIGINT, 130)
        (left,) = sandbox.commands.list()
        assert sandbox.commands.run("echo beside").stdout == "beside\n"
        assert sandbox.commands.connect(left.pid).kill()


def test_a_timeout_ends_also_a_command_that_no_interrupt_ends(server_env: dict[str, str]) -> None:
    with Sandbox.create(timeout=300) as sandbox:
        with pytest.raises(CommandTimeoutException):
            sandbox.commands.run("sleep 2001", timeout=0.5, kill_on_interrupt=False)
        until(lambda: not sandbox.commands.list())
        assert not sleeping(sandbox, "2001")


EARLY = """
    import json
    from sandbox_sync import Sandbox
    sandbox = Sandbox.create(**json.loads(sys.argv[1]))
    print("waiting", flush=True)
    try:
        sandbox.commands.run("sleep 1000", timeout=0, background=sys.argv[2] == "True")
    except KeyboardInterrupt:
        print("interrupted", time.time(), flush=True)
"""


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("transport", ["connect", "grpc"])
def test_ctrl_c_before_the_start_is_told_leaves_no_command(transport: str, background: bool) -> None:
    """G41: the command is found by its tag and killed, though its process id was never told."""
    with running(transport) as (service, options):
        service.start = playing()
        process = start(EARLY, json.dumps(options), str(background))
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        until(lambda: service.starts)
        service.listed = [pb.ProcessInfo(pid=PID, tag=service.starts[0][0].tag)]
        sent = time.time()
        process.send_signal(signal.SIGINT)
        outcome = finish(process)
        assert outcome.code == 0, outcome.errors
        word, _, at = outcome.output.strip().partition(" ")
        assert word == "interrupted", outcome
        assert float(at) - sent < 0.5
        assert service.signals == [(PID, pb.SIGNAL_SIGKILL)]
