"""Watches in programs that are interrupted, that end, and that vanish."""

from __future__ import annotations

import signal
import time

import pytest

from sandbox_local import LocalServer
from sandbox_sync import Sandbox
from tests.process.sdk_program import finish, start, succeeds

CONNECT = """
    import signal
    from sandbox_sync import PtySize, Sandbox
    box = Sandbox.connect(sys.argv[1])
"""

WAITS = {
    "poll": "handle.poll()",
    "poll with a timeout": "handle.poll(timeout=50)",
    "iteration": "for event in handle: pass",
    "events": "list(handle.events(timeout=50))",
    "wait": "handle.wait()",
    "asking again and again": "while True: handle.get_new_events()",
}


@pytest.fixture(params=["connect", "grpc"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SANDBOX_SYNC_TRANSPORT", request.param)
    return str(request.param)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_ctrl_c_is_felt_while_waiting_for_events(
    server_env: dict[str, str], transport: str, wait: str
) -> None:
    """G41: and what comes after it works, the same watch included."""
    program = (
        CONNECT
        + """
    handle = box.files.watch_dir(".", timeout=0)
    rang = []
    signal.signal(signal.SIGALRM, lambda *ignored: rang.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    begin = time.monotonic()
    print("waiting", flush=True)
    try:
        WAIT
    except KeyboardInterrupt:
        print(time.time(), flush=True)
    assert 0.2 < rang[0] - begin < 0.8, "a handler of the program's own waits for the call"
    box.files.make_dir("after")
    assert "after" in [event.name for event in handle.poll(timeout=10)]
    """.replace("WAIT", wait)
    )
    with Sandbox.create() as box:
        process = start(program, box.sandbox_id)
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.8)  # until it waits, and its own signal has come
        sent = time.time()
        process.send_signal(signal.SIGINT)
        outcome = finish(process)
        assert outcome.code == 0, outcome.errors
        assert float(outcome.output) - sent < 0.2
        assert outcome.errors == ""


ENDINGS = {
    "the end of the program": "",
    "in the midst of events": "box.commands.run('mkdir $(seq 1000)')",
    "with an event that nobody took": "box.files.make_dir('d')",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
@pytest.mark.parametrize("callbacks", ["", "lambda _: time.sleep(0.01), print, "])
def test_a_program_can_end_while_it_watches(
    server_env: dict[str, str], transport: str, ending: str, callbacks: str
) -> None:
    """No hang, no traceback; and the sandbox's watcher goes with the program."""
    program = (
        CONNECT
        + f"""
    watch = box.files.watch_dir(".", {callbacks} timeout=0)
    terminal = box.pty.create(PtySize(24, 80), {"print" if callbacks else "None"}, timeout=0)
    print(terminal.pid, file=sys.stderr)
    {ending}
    """
    )
    with Sandbox.create() as box:
        before = watchers(box)
        outcome = finish(start(program, box.sandbox_id))
        assert outcome.code == 0, outcome.errors
        terminal = int(outcome.errors)  # and nothing else stands there
        assert_ends(box, before)
        assert [listed.pid for listed in box.commands.list()] == [terminal], "a terminal is found again"
        assert box.pty.kill(terminal)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_the_watches_of_a_program_that_vanished(
    server_env: dict[str, str], transport: str, number: signal.Signals
) -> None:
    program = (
        CONNECT
        + """
    watches = [box.files.watch_dir(".", print if n % 2 else None, timeout=0) for n in range(20)]
    print("watching", flush=True)
    time.sleep(60)
    """
    )
    with Sandbox.create() as box:
        before = watchers(box)
        process = start(program, box.sandbox_id)
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        assert watchers(box) >= before + 20
        process.send_signal(number)
        assert finish(process).code == -number
        assert_ends(box, before)


def test_a_program_with_a_watch_can_fork(server_env: dict[str, str], server: LocalServer) -> None:
    """Children have no part in it, can watch for themselves, and end well."""
    program = (
        CONNECT
        + """
    from sandbox_sync import ConnectionException
    names = []
    called_back = box.files.watch_dir(".", lambda event: names.append(event.name), timeout=0)
    asked = box.files.watch_dir(".", timeout=0)
    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            for ask in (asked.poll, called_back.wait):
                try:
                    ask()
                except ConnectionException as error:
                    assert "watch_dir" in str(error)
                else:
                    os._exit(1)
            called_back.stop()
            with box.files.watch_dir(".") as own:
                box.files.make_dir(f"by{child}")
                while f"by{child}" not in [event.name for event in own.poll(timeout=10)]:
                    pass
            sys.exit(0)   # with everything that runs at exit
        children.append(pid)
    assert exit_codes(children) == [0] * 4
    box.files.make_dir("last")
    seen = []
    for event in asked.events(timeout=10):
        seen.append(event.name)
        if event.name == "last":
            break
    assert set(seen) == {"by0", "by1", "by2", "by3", "last"}, seen
    while "last" not in names:
        time.sleep(0.01)
    assert set(names) == set(seen)
    """
    )
    with Sandbox.create() as box:
        succeeds(program, box.sandbox_id, SANDBOX_SYNC_TRANSPORT="connect")


def watchers(box: Sandbox) -> int:
    """How many processes of the server's are in a sandbox."""
    box.files.exists("/")  # which needs one of them
    found = box.commands.run("grep -lsx sandbox /proc/[0-9]*/comm | wc -l", user="root")
    return int(found.stdout)


def assert_ends(box: Sandbox, before: int) -> None:
    deadline = time.monotonic() + 5
    while watchers(box) > before:
        assert time.monotonic() < deadline, "watchers are left in the sandbox"
        time.sleep(0.05)
