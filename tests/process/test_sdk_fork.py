"""Programs that fork while they use the SDK."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from tests.process.sdk_program import succeeds
from tests.process.sdk_sandbox import grpc_sandbox, sandbox


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_children_and_parent_never_get_each_others_answers(secure: bool, tmp_path: Path) -> None:
    """G44: eight children use what they inherited, all at once, and the parent's open stream is unharmed."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if secure else None
    if context is not None:
        authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    program = """
        shared = envd(ca_bundle=sys.argv[2])
        assert all(ask(shared, f"parent-{n}") for n in range(5))
        stream = shared.stream(shared.process.Start, pb.StartRequest(tag="3"))
        assert next(stream).event.data.stdout == b"first"
        children = []
        for child in range(8):
            pid = os.fork()
            if pid == 0:
                good = all(ask(shared, f"{child}-{n}") for n in range(200))
                os._exit(0 if good else 1)
            children.append(pid)
        assert all(ask(shared, f"parent-{n}") for n in range(200))
        assert exit_codes(children) == [0] * 8
        assert [message.event.data.stdout for message in stream] == [b"last"]
    """
    with sandbox(context) as server:
        url = f"https://127.0.0.1:{server.port}" if secure else server.url
        succeeds(program, url, str(tmp_path / "ca.pem"))


def test_a_child_closes_its_copies_and_harms_nothing() -> None:
    """G44: cancelling, iterating, dropping an inherited stream is felt in the child alone."""
    program = """
        import gc, socket
        from sandbox_sync.errors import ConnectionException

        def sockets():
            count = 0
            for descriptor in os.listdir("/proc/self/fd"):
                try:
                    count += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
                except OSError:
                    pass   # that of the listing itself
            return count

        shared = envd()
        ask(shared, "x")
        streams = [shared.stream(shared.process.Start, pb.StartRequest(tag="2")) for _ in range(3)]
        assert all(next(stream).event.data.stdout == b"first" for stream in streams)
        assert sockets() >= 3
        pid = os.fork()
        if pid == 0:
            try:
                assert sockets() == 0, "the child holds the parent's connections open"
                streams[0].cancel()
                assert list(streams[0]) == []
                try:
                    list(streams[1])
                except ConnectionException as error:
                    assert "forked" in str(error), error
                else:
                    raise AssertionError("an inherited stream ended well")
                del streams
                gc.collect()
                assert ask(shared, "child")
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert exit_codes([pid]) == [0]
        for stream in streams:
            assert [message.event.data.stdout for message in stream] == [b"last"]
    """
    with sandbox() as server:
        succeeds(program, server.url)


def test_forks_in_the_midst_of_busy_threads_go_well() -> None:
    """Locks that other threads hold at the fork are of no concern to the child, to its very end."""
    program = """
        shared = envd()
        stop = threading.Event()

        def work(name):
            n = 0
            while not stop.is_set():
                assert ask(shared, f"{name}-{n}")
                n += 1

        threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        for child in range(25):
            pid = os.fork()
            if pid == 0:
                sys.exit(0 if ask(shared, f"child-{child}") else 1)   # with everything that runs at exit
            assert exit_codes([pid]) == [0]
        stop.set()
        for thread in threads:
            thread.join()
    """
    with sandbox() as server:
        succeeds(program, server.url)


# A fork that Python is not told of: nothing is run that os.register_at_fork was given.
FORK_IN_C = """
import ctypes
from sandbox_sync.transport import forks, watchdog
fork = ctypes.PyDLL(None).fork   # with the GIL, as uWSGI does
"""


def test_forks_that_python_is_not_told_of_are_noticed() -> None:
    """G44: as in uWSGI, where eight children used one connection of the parent."""
    program = """
        renewed = []
        forks.in_child(lambda: renewed.append(os.getpid()))
        shared = envd()
        stream = shared.stream(shared.process.Start, pb.StartRequest(tag="3"))
        assert next(stream).event.data.stdout == b"first"
        assert ask(shared, "parent")   # leaves an idle connection
        parents = watchdog.watchdog()
        children = []
        for child in range(8):
            pid = fork()
            if pid == 0:
                assert not renewed
                # Several threads are the first to use it, as in a server whose workers have threads.
                good = []
                def work(name):
                    good.append(all(ask(shared, f"{name}-{n}") for n in range(50)))
                threads = [threading.Thread(target=work, args=(f"{child}-{name}",)) for name in range(3)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                fine = good == [True] * 3 and renewed == [os.getpid()] and watchdog.watchdog() is not parents
                os._exit(0 if fine else 1)
            children.append(pid)
        assert all(ask(shared, f"parent-{n}") for n in range(50))
        assert exit_codes(children) == [0] * 8
        assert [message.event.data.stdout for message in stream] == [b"last"]
        assert not renewed and watchdog.watchdog() is parents
    """
    with sandbox() as server:
        succeeds(program, server.url, before=FORK_IN_C)


def test_grpc_notices_forks_that_python_is_not_told_of() -> None:
    """G34: a child has connections of its own."""
    program = """
        shared = envd(transport="grpc", retries=0)
        assert ask(shared, "parent")
        from sandbox_sync.transport.grpc_connections import _connections
        parents = list(_connections.values())
        children = []
        for child in range(4):
            pid = fork()
            if pid == 0:
                good = all(ask(shared, f"{child}-{n}") for n in range(20))
                os._exit(0 if good and _connections and not set(parents) & set(_connections.values()) else 1)
            children.append(pid)
        assert all(ask(shared, f"parent-{n}") for n in range(20))
        assert exit_codes(children) == [0] * 4
    """
    with grpc_sandbox() as url:
        succeeds(program, url, before=FORK_IN_C)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_pools_work(method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from sandbox_sync.config import ConnectionConfig\n"
        "from sandbox_sync.transport.envd import EnvdConnection\n"
        "from sandbox_sync_rpc import process_pb2 as pb\n"
        "import multiprocessing\n"
        "\n"
        "def work(task):\n"
        "    config, nonce = task\n"
        "    envd = EnvdConnection(config, 'i1')\n"
        "    return envd.unary(envd.process.List, pb.ListRequest(), user=nonce).processes[0].tag == nonce\n"
        "\n"
        "if __name__ == '__main__':\n"
        "    config = ConnectionConfig.resolve(api_key='k', sandbox_url=sys.argv[1])\n"
        "    assert work((config, 'parent'))\n"
        "    with multiprocessing.get_context(sys.argv[2]).Pool(3) as pool:\n"
        "        assert all(pool.map(work, [(config, f'n{n}') for n in range(30)]))\n"
    )
    with sandbox() as server:
        runner = "import runpy; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
        succeeds(runner, str(program), server.url, method)


FORK_SUPPORT = [None, "0", "1"]


@pytest.mark.parametrize("setting", FORK_SUPPORT)
def test_grpc_in_children_of_an_idle_parent(setting: str | None) -> None:
    """G34, G36: with connections of their own they work; where gRPC would hang, Connect is tried."""
    program = """
        from sandbox_sync.errors import ForkedWithActiveStreamException

        environment = dict(os.environ)
        shared = envd(transport="grpc", retries=0)   # a retry would hide connections that do not work
        assert all(ask(shared, f"parent-{n}") for n in range(5))
        children = []
        for child in range(6):
            pid = os.fork()
            if pid == 0:
                try:
                    good = all(ask(shared, f"{child}-{n}") for n in range(30))
                except ForkedWithActiveStreamException:
                    os._exit(7)
                os._exit(0 if good else 1)
            children.append(pid)
        assert all(ask(shared, f"parent-{n}") for n in range(30))
        codes = exit_codes(children)
        refused = os.environ.get("GRPC_ENABLE_FORK_SUPPORT") == "0"
        assert codes == [7 if refused else 0] * 6, codes
        assert dict(os.environ) == environment
    """
    environment: dict[str, Any] = {} if setting is None else {"GRPC_ENABLE_FORK_SUPPORT": setting}
    with grpc_sandbox() as url:
        succeeds(program, url, **environment)


def test_grpc_keeps_to_its_clocks_in_children() -> None:
    """G2: what watches the time in the parent does not run in the child."""
    program = """
        from sandbox_sync.errors import CommandTimeoutException

        shared = envd(transport="grpc")

        def times_out():
            begin = time.monotonic()
            request = pb.StartRequest(tag="50")
            try:
                list(shared.stream(shared.process.Start, request, timeout=0.5, tell_server=False))
            except CommandTimeoutException:
                return time.monotonic() - begin < 1.0

        assert times_out()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if times_out() else 1)
        assert exit_codes([pid]) == [0]
    """
    with grpc_sandbox() as url:
        succeeds(program, url)


def test_connect_takes_the_place_of_grpc_in_a_child_forked_under_a_stream(server_env: dict[str, str]) -> None:
    """G35: the child works at once, with what it inherited and anew, says so once, and harms no stream."""
    program = """
        import gc, logging
        from sandbox_sync import ConnectionException, Sandbox

        class Lines(logging.Handler):
            def emit(self, record):
                lines.append(record.getMessage())

        lines = []
        logging.getLogger("sandbox_sync").addHandler(Lines())
        box = Sandbox.create(timeout=60, transport="grpc")
        handle = box.commands.run("for n in $(seq 300); do echo $n; sleep 0.01; done", background=True)

        def child(inherited):
            assert box.commands.run("echo child").stdout == "child\\n"
            assert box.files.read(box.files.write("f", "x").path) == "x"
            with Sandbox.create(timeout=60, transport="grpc") as other:
                assert other.commands.run("echo other").stdout == "other\\n"
            try:
                inherited.wait(5)
            except ConnectionException as error:
                assert "fork" in str(error) and f"commands.connect({inherited.pid})" in str(error), error
            else:
                raise AssertionError("an inherited handle ended well")
            inherited.disconnect()
            del inherited
            gc.collect()
            grandchild = os.fork()   # what cannot be used here cannot be used there
            if grandchild == 0:
                os._exit(0 if box.commands.run("echo 1").stdout == "1\\n" and len(lines) == 2 else 1)
            assert exit_codes([grandchild]) == [0]
            assert len(lines) == 1 and "forked" in lines[0] and "connect" in lines[0], lines

        pid = os.fork()
        if pid == 0:
            child(handle)
            sys.exit(0)   # with everything that runs at exit
        assert exit_codes([pid]) == [0]
        assert handle.wait().stdout == "".join(f"{n}\\n" for n in range(1, 301))
        assert lines == []
        from sandbox_sync.transport import grpc_connections
        while grpc_connections.active:   # the end of the command is told before that of its stream
            time.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            assert box.commands.run("echo after").stdout == "after\\n"
            os._exit(len(lines))
        assert exit_codes([pid]) == [0]
        box.kill()
    """
    succeeds(program)


def test_a_server_without_connect_is_told_of_in_a_child_forked_under_a_stream() -> None:
    """G35: nothing can take the place of gRPC then; the error says what happened and what to do."""
    program = """
        from sandbox_sync.errors import ForkedWithActiveStreamException

        shared = envd(transport="grpc")
        stream = shared.stream(shared.process.Start, pb.StartRequest(tag="3"))
        assert next(stream).event.data.stdout == b"first"
        pid = os.fork()
        if pid == 0:
            for attempt in (shared, envd(transport="grpc")):
                try:
                    ask(attempt, "x")
                except ForkedWithActiveStreamException as error:
                    for words in ("was forked while", "Connect", "spawn", "List"):
                        assert words in str(error), error
                else:
                    os._exit(1)
            os._exit(0)
        assert exit_codes([pid]) == [0]
        assert [message.event.data.stdout for message in stream] == [b"last"]
        pid = os.fork()
        if pid == 0:
            os._exit(0 if ask(shared, "after the stream") else 3)
        assert exit_codes([pid]) == [0]
    """
    with grpc_sandbox() as url:
        succeeds(program, url)


@pytest.mark.parametrize("transport", ["connect", "grpc"])
def test_what_a_child_leaves_it_does_not_end(server_env: dict[str, str], transport: str) -> None:
    """G44: leaving an inherited `with`, or a call by an error of a callback, ends nothing of the parent's."""
    program = """
        from sandbox_sync import Sandbox

        parent = os.getpid()
        pids = []

        def forks(text):
            if not pids:
                pids.append(os.fork())
                if pids[0] == 0:
                    sys.exit(0)   # out of the command, and out of all blocks around it

        with Sandbox.create(transport=sys.argv[1], timeout=60) as box:
            with box.commands.run("sleep 30; echo no", background=True) as handle:
                with box.files.watch_dir(".") as watch:
                    pids.append(os.fork())
                    if pids[0] == 0:
                        raise SystemExit
                    assert exit_codes(pids) == [0]
                    pids.clear()
                    box.files.write("new", "")
                    assert watch.poll(20)
                assert box.commands.run("echo 1; sleep 0.5; echo 2", on_stdout=forks).stdout == "1\\n2\\n"
                assert exit_codes(pids) == [0]
                assert handle.poll() is None and box.is_running()
        assert os.getpid() == parent
        assert not box.is_running()
        pid = os.fork()
        if pid == 0:
            with Sandbox.create(transport=sys.argv[1], timeout=60) as own:
                pass
            os._exit(1 if own.is_running() else 0)   # what it made itself it ends
        assert exit_codes([pid]) == [0]
    """
    succeeds(program, transport)


def test_a_child_of_a_parent_that_is_just_connecting_holds_no_connection() -> None:
    """G44: also a socket on which encryption is only being agreed upon stays with the parent."""
    program = """
        import socket, ssl
        from sandbox_sync.transport.connections import Route, connect

        listener = socket.create_server(("127.0.0.1", 0))   # it accepts, and never says anything
        route = Route(True, "127.0.0.1", listener.getsockname()[1], None, sys.argv[1], None)
        thread = threading.Thread(target=connect, args=(route, None), daemon=True)
        thread.start()
        accepted = listener.accept()[0]
        accepted.recv(1)   # the handshake has begun
        pid = os.fork()
        if pid == 0:
            accepted.close()
            listener.close()
            left = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if n not in "012"
                    and os.path.exists(f"/proc/self/fd/{n}")]
            os._exit(any("socket" in name for name in left))
        assert exit_codes([pid]) == [0]
        os._exit(0)
    """
    succeeds(program, DEFAULT_CA_BUNDLE_PATH)


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.2, 0.3])
def test_a_child_works_that_was_forked_while_another_thread_made_the_first_call(
    moment: float, server_env: dict[str, str]
) -> None:
    """The first call loads modules and builds models, under locks that a child would inherit."""
    program = """
        from sandbox_sync import Sandbox

        begun = threading.Event()

        def first():
            begun.set()
            with Sandbox.create(timeout=60) as box:
                box.commands.run("true")

        thread = threading.Thread(target=first)
        thread.start()
        begun.wait()
        time.sleep(float(sys.argv[1]))   # there is no event inside of an import
        pid = os.fork()
        if pid == 0:
            first()
            os._exit(0)
        assert exit_codes([pid]) == [0]
        thread.join()
    """
    succeeds(program, str(moment))


def test_a_listing_that_a_thread_fetches_can_be_gone_through_in_a_child() -> None:
    """The lock that keeps threads from fetching a page twice is not one of the child's."""
    program = """
        from sandbox_sync import Listing

        fetching, go_on = threading.Event(), threading.Event()

        def fetch(token):
            if os.getpid() == parent:
                fetching.set()
                go_on.wait()
            return [1, 2], None

        parent = os.getpid()
        listing = Listing(fetch)
        thread = threading.Thread(target=listing.__len__)
        thread.start()
        fetching.wait()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if list(listing) == [1, 2] else 1)
        assert exit_codes([pid]) == [0]
        go_on.set()
        thread.join()
        assert len(listing) == 2
    """
    succeeds(program)
