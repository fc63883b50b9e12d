"""Signals that come while a call waits."""

from __future__ import annotations

import signal
import time

import pytest

from tests.process.sdk_program import finish, start, succeeds
from tests.process.sdk_sandbox import grpc_sandbox, sandbox

CALLS = {
    "unary": "box.unary(box.process.SendInput, pb.SendInputRequest(), request_timeout=0)",
    "opening a stream": "box.stream(box.process.Connect, pb.ConnectRequest(), request_timeout=0)",
    "client stream": "box.client_stream(box.process.StreamInput, never_ending(), request_timeout=0)",
    "following a stream": "list(box.stream(box.process.Start, pb.StartRequest(tag='50'), timeout=0))",
    "download": "box.download(get_files.build(path='/a'), request_timeout=0)",
    "upload": "box.upload(post_files.build(path='/a'), octets(b'x' * 50_000_000), request_timeout=0)",
    "control plane": "ControlPlane(box.config).within(0).send(get_v2_sandboxes.build())",
    "waiting to try again": "retries.call(fail, repeatable=True, deadline=Deadline.after(None), sleep=long)",
}

PROGRAM = """
    import signal
    from sandbox_sync import retries
    from sandbox_sync.deadlines import Deadline
    from sandbox_sync.transport.failures import Failure
    from sandbox_sync.transport.files import octets
    from sandbox_sync.transport.rest import ControlPlane
    from sandbox_sync_rest.api.envd import get_files, post_files
    from sandbox_sync_rest.api.sandboxes import get_v2_sandboxes

    def fail():
        raise Failure("no", reason="connect", sent=False)

    def long(seconds):
        time.sleep(60)

    def never_ending():
        yield pb.StreamInputRequest()
        threading.Event().wait(60)

    box = envd(transport=sys.argv[2])
    ask(box, "warm") if sys.argv[2] == "grpc" or sys.argv[3] != "cold" else None
    rang = []
    signal.signal(signal.SIGALRM, lambda *ignored: rang.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    print("waiting", flush=True)
    begin = time.monotonic()
    try:
        CALL
    except KeyboardInterrupt:
        print("interrupted", time.time(), flush=True)
    else:
        print("ended", flush=True)
    assert 0.2 < rang[0] - begin < 0.8, "a handler of the program's own waits for the call"
    ask(box, "after")   # the next call works
"""


def interrupt(call: str, url: str, transport: str) -> None:
    process = start(PROGRAM.replace("CALL", call), url, transport, "cold")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.8)
    sent = time.time()
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code == 0, outcome.errors
    word, _, at = outcome.output.strip().partition(" ")
    assert word == "interrupted"
    assert float(at) - sent < 0.5


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_ctrl_c_is_felt_at_once(call: str) -> None:
    """G41: whatever waits, on a server that says nothing; and handlers of the program run meanwhile."""
    with sandbox() as server:
        interrupt(call, server.url, "connect")


@pytest.mark.parametrize("name", ["unary", "client stream", "opening a stream", "following a stream"])
def test_ctrl_c_is_felt_at_once_over_grpc(name: str) -> None:
    """G41."""
    with grpc_sandbox() as url:
        interrupt(CALLS[name], url, "grpc")


def feels_what_strikes_elsewhere(call: str, url: str, transport: str) -> None:
    program = """
        import signal
        from sandbox_sync.transport.conditions import Waiter
        from sandbox_sync.deadlines import Deadline
        from sandbox_sync.transcript import Transcript
        from sandbox_sync_rest.api.envd import get_files
        class Rang(Exception):
            pass
        def ring(*ignored):
            raise Rang
        def strike():
            time.sleep(0.3)
            struck.append(time.monotonic())
            signal.pthread_kill(threading.get_ident(), signal.SIGALRM)
        box, struck = envd(transport=sys.argv[2]), []
        ask(box, "warm")
        signal.signal(signal.SIGALRM, ring)
        threading.Thread(target=strike).start()
        try:
            CALL
        except Rang:
            late = time.monotonic() - struck[0]
            assert late < 0.6, late
        else:
            raise AssertionError("it was not felt")
        ask(box, "after")
    """
    succeeds(program.replace("CALL", call), url, transport)


WAITS = {
    **{name: CALLS[name] for name in ("unary", "following a stream", "download")},
    "background": "Transcript(None).wait(Deadline.after(30))",
    "pool": "Waiter().wait(Deadline.after(30))",
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_a_signal_that_does_not_interrupt_the_system_call_is_felt(wait: str) -> None:
    """G41: such as one that strikes just before it; here it strikes another thread, to the same effect."""
    with sandbox() as server:
        feels_what_strikes_elsewhere(wait, server.url, "connect")


def test_a_signal_that_does_not_interrupt_the_system_call_is_felt_over_grpc() -> None:
    """G41."""
    with grpc_sandbox() as url:
        feels_what_strikes_elsewhere(CALLS["unary"], url, "grpc")


def test_handlers_that_raise_leave_nothing_of_grpc_locked_or_under_way() -> None:
    """G41: wherever in a call they strike."""
    program = """
        import random, signal
        from sandbox_sync.transport.grpc_connections import active
        class Rang(Exception):
            pass
        def ring(*ignored):
            if armed:
                raise Rang
        def followed():
            stream = box.stream(box.process.Start, pb.StartRequest(tag="0.003"), timeout=0)
            try:
                assert len(list(stream)) == 2
            finally:
                stream.cancel()
        armed, rang = False, 0
        signal.signal(signal.SIGALRM, ring)
        box = envd(transport="grpc")
        ask(box, "warm")
        for number in range(300):
            try:
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.006))
                    ask(box, "x") if number % 2 else followed()
                finally:
                    armed = False
            except Rang:
                rang += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert rang > 30, rang
        end = time.monotonic() + 10
        while active:
            assert time.monotonic() < end, active
            time.sleep(0.01)
        assert ask(box, "after")
        helpers = [thread for thread in threading.enumerate() if thread.name == "sandbox-sync-grpc"]
        assert len(helpers) <= 4, helpers
    """
    with grpc_sandbox() as url:
        succeeds(program, url)


def test_a_handler_that_forks_and_returns_in_the_child_does_not_hang_it() -> None:
    """G34: the call is the parent's."""
    program = """
        import signal
        from sandbox_sync import SandboxException
        box = envd(transport="grpc")
        ask(box, "warm")
        parent, children = os.getpid(), []
        signal.signal(signal.SIGALRM, lambda *ignored: children.append(os.fork()))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        stream = box.stream(box.process.Start, pb.StartRequest(tag="1"), timeout=0)
        try:
            messages = list(stream)
        except SandboxException as error:
            os._exit(3 if "forked from" in str(error) and os.getpid() != parent else 4)
        assert os.getpid() == parent and len(messages) == 2
        assert exit_codes(children) == [3]
    """
    with grpc_sandbox() as url:
        succeeds(program, url)


def test_no_signal_handler_is_installed() -> None:
    program = """
        import signal
        before = {number: signal.getsignal(number) for number in signal.valid_signals()}
        assert ask(envd(), "x")
        assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    """
    with sandbox() as server:
        succeeds(program, server.url)
