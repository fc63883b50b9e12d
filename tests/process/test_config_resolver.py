"""A resolver that never answers: with namespaces of its own, in which it is the only one there is."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.process.sdk_program import succeeds

# Enter namespaces of the program's own, as root or by way of a user namespace, where a socket that nobody
# reads is the machine's only name server.
SILENT_RESOLVER = """
import ctypes, fcntl, os, socket, struct, tempfile
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, SIOCSIFFLAGS, IFF_UP = 0x1000, 0x4000, 0x40000, 0x8914, 1
libc = ctypes.CDLL(None, use_errno=True)

def checked(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

checked(libc.unshare(CLONE_NEWNS | CLONE_NEWNET | (CLONE_NEWUSER if os.geteuid() else 0)))
checked(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
with tempfile.NamedTemporaryFile() as file:
    file.write(b"nameserver 127.0.0.1\\n")
    file.flush()
    where = os.path.realpath("/etc/resolv.conf")
    checked(libc.mount(file.name.encode(), where.encode(), None, MS_BIND, None))
with socket.socket() as probe:
    fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
resolver.bind(("127.0.0.1", 53))
resolver.setblocking(False)

def was_asked():
    try:
        resolver.recv(512)
    except BlockingIOError:
        return False
    return True
"""

WAYS = """
from sandbox_sync import errors
from sandbox_sync.transport.files import octets
from sandbox_sync.transport.rest import ControlPlane
from sandbox_sync_rest.api.envd import get_files, post_files
from sandbox_sync_rest.api.sandboxes import get_v2_sandboxes

WAYS = {
    "rest": lambda box: ControlPlane(box.config).within().send(get_v2_sandboxes.build()),
    "unary": lambda box: box.unary(box.process.List, pb.ListRequest()),
    "stream": lambda box: box.stream(box.process.Start, pb.StartRequest(), timeout=0),
    "download": lambda box: box.download(get_files.build(path="/a")),
    "upload": lambda box: box.upload(post_files.build(path="/a"), octets(b"x")),
    "health": lambda box: box.is_healthy(),
}
"""


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SILENT_RESOLVER], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        pytest.skip(f"no namespaces of its own can be had here: {done.stderr.splitlines()[-1]}")


@pytest.mark.parametrize("transport", ["connect", "grpc"])
@pytest.mark.parametrize("through", ["directly", "through a proxy"])
def test_a_name_that_is_not_resolved_in_time_ends_the_call(transport: str, through: str) -> None:
    """G2, G4: the system's resolver would wait for half a minute; the deadline of the call counts."""
    program = WAYS + textwrap.dedent("""
        options = {"proxy": "http://proxy.test:3128"} if sys.argv[3] == "through a proxy" else {}
        box = envd(transport=sys.argv[2], request_timeout=1, **options)
        for name, go in WAYS.items():
            begin = time.monotonic()
            try:
                go(box)
            except errors.RequestTimeoutException as error:
                taken = time.monotonic() - begin
                assert 0.95 <= taken < 1.6, (name, taken)
                assert not (error.maybe_executed and sys.argv[2] == "connect"), name
            else:
                raise AssertionError(name)
            # gRPC goes on with the question of an earlier call, so it need not ask anew.
            asked = was_asked()
            assert asked or (sys.argv[2] == "grpc" and name != "rest"), name
            while was_asked():
                pass
    """)
    succeeds(program, "http://sandbox.test", transport, through, before=SILENT_RESOLVER)


def test_ctrl_c_is_felt_while_a_name_is_resolved() -> None:
    """G41: also without any deadline."""
    program = WAYS + textwrap.dedent("""
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        box = envd(request_timeout=0)
        for name in ("rest", "unary", "upload"):
            timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            begin = time.monotonic()
            try:
                WAYS[name](box)
            except KeyboardInterrupt:
                assert time.monotonic() - begin < 0.8, name
            else:
                raise AssertionError(name)
            timer.join()
    """)
    succeeds(program, "http://sandbox.test", before=SILENT_RESOLVER)


def test_addresses_and_local_names_need_no_resolver_and_no_thread() -> None:
    program = """
        from sandbox_sync.deadlines import Deadline
        from sandbox_sync.transport.sockets import dial, time_limit
        with socket.create_server(("127.0.0.1", 0)) as listener:
            started = []
            threading.Thread.start = started.append
            for host in ("127.0.0.1", "localhost", "49983-i1.localhost"):
                dial(host, listener.getsockname()[1], time_limit(Deadline.after(5.0))).close()
        assert started == [] and not was_asked()
    """
    succeeds(program, "http://sandbox.test", before=SILENT_RESOLVER)
