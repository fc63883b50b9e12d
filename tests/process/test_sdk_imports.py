"""What using the SDK loads and starts."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from tests.process.sdk_program import succeeds
from tests.process.sdk_sandbox import grpc_sandbox, sandbox
from tests.strictness import STRICT, WATCHFUL


def test_connect_loads_no_grpc_and_starts_no_thread() -> None:
    """G33, G18: so a fork finds one thread, and Python 3.12 and later have nothing to warn of."""
    program = """
        from sandbox_sync.transport.rest import ControlPlane
        box = envd()
        ControlPlane(box.config)
        assert ask(box, "x")
        assert len(list(box.stream(box.process.Start, pb.StartRequest(tag="0.1"), timeout=5))) == 2
        assert "grpc" not in sys.modules
        assert "asyncio" not in sys.modules
        assert threading.active_count() == 1
        assert len(os.listdir("/proc/self/task")) == 1
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert exit_codes([pid]) == [0]
    """
    with sandbox() as server:
        succeeds(program, server.url, options=STRICT)


def test_nothing_is_left_open(tmp_path: Path) -> None:
    """G19: descriptors and threads are back where they were, and no ResourceWarning is given."""
    program = """
        def descriptors():
            return len(os.listdir("/proc/self/fd"))

        box = envd()
        ask(box, "warm")
        before = descriptors()
        for n in range(200):
            box = envd()
            assert ask(box, f"{n}")
            stream = box.stream(box.process.Start, pb.StartRequest(tag="30"), timeout=0)
            next(stream)
            if n % 2:
                stream.cancel()
            del stream
        assert abs(descriptors() - before) <= 3, (before, descriptors())
        assert threading.active_count() == 1
    """
    with sandbox() as server:
        output = succeeds(program, server.url, options=(*WATCHFUL, "-W", "error::ResourceWarning"))
    assert output == ""


def test_grpc_leaves_nothing_behind_either() -> None:
    """G19."""
    program = """
        box = envd(transport="grpc")
        for n in range(30):
            assert ask(box, f"{n}")
            stream = box.stream(box.process.Start, pb.StartRequest(tag="30"), timeout=0)
            next(stream)
            del stream
        from sandbox_sync.transport import grpc_connections
        assert grpc_connections.active == set()
    """
    with grpc_sandbox() as url:
        succeeds(program, url)


PATCHED = "from gevent import monkey; monkey.patch_all()"


def test_a_program_may_be_patched_by_gevent_after_the_import(tmp_path: Path) -> None:
    """G52: nothing that gevent replaces has been loaded by then; HTTPS works afterwards."""
    pytest.importorskip("gevent")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    before = f"import sandbox_sync\n{PATCHED}"
    with sandbox(context) as server:
        url = f"https://127.0.0.1:{server.port}"
        program = "assert ask(envd(ca_bundle=sys.argv[2]), 'x')"
        succeeds(program, url, str(tmp_path / "ca.pem"), before=before, options=STRICT)


@pytest.mark.parametrize("transport", ["connect", "grpc"])
def test_greenlets_do_not_wait_for_each_other(transport: str) -> None:
    """G37: 50 commands of a second take little more than one, and a gevent timeout ends a wait."""
    pytest.importorskip("gevent")
    program = """
        import gevent
        box = envd(transport=sys.argv[2])
        ask(box, "warm")
        begin = time.monotonic()

        def command(n):
            stream = box.stream(box.process.Start, pb.StartRequest(tag="1"), timeout=30)
            return [message.event.data.stdout for message in stream]

        jobs = [gevent.spawn(command, n) for n in range(50)]
        gevent.joinall(jobs, timeout=30)
        assert [job.value for job in jobs] == [[b"first", b"last"]] * 50
        assert time.monotonic() - begin < 3.0, time.monotonic() - begin

        begin = time.monotonic()
        try:
            with gevent.Timeout(0.5):
                list(box.stream(box.process.Start, pb.StartRequest(tag="30"), timeout=0))
        except gevent.Timeout:
            assert time.monotonic() - begin < 1.0
        else:
            raise AssertionError("the timeout did not fire")
        assert ask(box, "after")

        # A greenlet that follows a stream is woken up by another that cancels it.
        stream = box.stream(box.process.Start, pb.StartRequest(tag="30"), timeout=0)
        next(stream)
        gevent.spawn_later(0.3, stream.cancel)
        begin = time.monotonic()
        assert list(stream) == []
        assert time.monotonic() - begin < 1.5
    """
    with sandbox() as server, grpc_sandbox() as grpc_url:
        url = server.url if transport == "connect" else grpc_url
        succeeds(program, url, transport, before=PATCHED)
