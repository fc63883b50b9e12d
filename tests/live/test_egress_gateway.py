"""The way out of real boxes, to a machine outside that is a network namespace with real servers."""

from __future__ import annotations

import asyncio
import os
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from sandbox_local.egress.gateway import Egress, Gateway
from sandbox_local.egress.policy import Policy
from sandbox_local.egress.resolver import Resolver
from sandbox_local.isolation.base import Command
from sandbox_local.isolation.namespace_box import NamespaceBox
from tests.live import far_machine as far
from tests.live.boxes import a_box, finish, in_loop, read_some, shell, until
from tests.live.unprivileged import run_unprivileged

OPEN = Policy()
NAMED = Policy(False, ("good.test", "*.good.test", "rebound.test", "private.test"))

# Says something, ends its half, and prints all that comes back.
TALK = """
import errno, socket, sys
try:
    sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), 15)
    sock.sendall(sys.argv[3].encode().decode("unicode_escape").encode("latin-1"))
    sock.shutdown(socket.SHUT_WR)
    answer = b""
    while data := sock.recv(65536):
        answer += data
    print(answer.decode())
except socket.gaierror:
    print("no such name")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.fixture(autouse=True)
def _root() -> None:
    far.require_root()


@asynccontextmanager
async def a_way_out(policy: Policy = OPEN) -> AsyncIterator[tuple[NamespaceBox, Gateway]]:
    async with a_box() as box:
        resolver = Resolver(lambda: [(far.OUTSIDE, 53)])
        gateway = await Egress(1, resolver).open(box, policy)
        try:
            yield box, gateway
        finally:
            await gateway.close()


def outside(work: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await work()

    far.in_far_network(lambda: in_loop(run()))


async def talk(box: NamespaceBox, address: str, port: int, said: str = "hello", user: str = "user") -> str:
    command = Command(["python3", "-c", TALK, address, str(port), said], user)
    return (await finish(await box.spawn(command))).stdout.strip()


def test_what_is_said_arrives_and_each_half_ends_when_it_ended() -> None:
    async def work() -> None:
        async with a_way_out() as (box, _):
            assert await talk(box, far.OUTSIDE, far.ECHO) == "hello[end]"
            assert await talk(box, far.OUTSIDE, far.ECHO, user="root") == "hello[end]"

    outside(work)


GONE = {"ECONNRESET", "ECONNREFUSED", "ENOTCONN", "EPIPE"}
TABLE = [
    (OPEN, far.OUTSIDE, True),
    (OPEN, far.PRIVATE, False),
    (OPEN, far.METADATA, False),
    (OPEN, far.OURS, False),
    (Policy(True, ("0.0.0.0/0",)), far.PRIVATE, False),
    (Policy(True, (far.PRIVATE,)), far.PRIVATE, True),
    (Policy(True, ("10.0.0.0/8",)), far.PRIVATE, True),
    (Policy(True, (far.METADATA, "169.254.0.0/16")), far.METADATA, False),
    (Policy(True, (far.OURS,)), far.OURS, True),
    (Policy(True, ("198.51.100.0/24",)), far.OURS, False),
    (Policy(True, (), (far.OUTSIDE,)), far.OUTSIDE, False),
    (Policy(True, (), (far.OUTSIDE,)), far.OTHER, True),
    (Policy(True, (far.OUTSIDE,), ("0.0.0.0/0",)), far.OUTSIDE, True),
    (Policy(True, (far.OUTSIDE,), ("0.0.0.0/0",)), far.OTHER, False),
    (Policy(False), far.OUTSIDE, False),
    (Policy(False, (far.OUTSIDE,)), far.OUTSIDE, True),
    (NAMED, far.OUTSIDE, False),
]


def test_each_policy_lets_through_what_it_permits_and_refuses_the_rest_at_once() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read() + b"[end]")
        writer.close()

    async def work() -> None:
        async with a_way_out() as (box, gateway):
            # On this machine: only who is told its address gets there.
            server = await asyncio.start_server(answer, far.OURS, far.ECHO)
            for policy, address, permitted in TABLE:
                gateway.apply(policy)
                said = await talk(box, address, far.ECHO)
                assert (said == "hello[end]") is permitted, (policy, address, said)
                assert permitted or said in GONE, (policy, address, said)
            server.close()

    outside(work)


def test_the_loopback_of_a_sandbox_is_its_own_and_that_of_the_host_out_of_reach() -> None:
    async def work() -> None:
        async with a_way_out(Policy(True, ("127.0.0.1",))) as (box, _):
            server = await asyncio.start_server(lambda r, w: w.write(b"host"), "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            assert await talk(box, "127.0.0.1", port) == "ECONNREFUSED"
            assert await talk(box, "127.255.255.254", 1) in GONE
            server.close()

    outside(work)


def test_the_port_of_the_server_is_closed_even_to_who_may_reach_its_machine() -> None:
    async def work() -> None:
        async with a_box() as box:
            server = await asyncio.start_server(lambda r, w: w.close(), far.OURS, 0)
            port = server.sockets[0].getsockname()[1]
            gateway = await Egress(port).open(box, Policy(True, (far.OURS,)))
            assert await talk(box, far.OURS, port) in GONE
            await gateway.close()
            server.close()

    outside(work)


def test_names_are_resolved_but_lead_nowhere_that_their_address_does_not() -> None:
    async def work() -> None:
        async with a_way_out() as (box, gateway):
            assert await talk(box, "good.test", far.ECHO) == "hello[end]"
            for name in ("rebound.test", "host.test", "private.test", "metadata.test"):
                assert await talk(box, name, far.ECHO) in GONE, name
            assert await talk(box, "nowhere.test", far.ECHO) == "no such name"
            by_stream = await shell(
                box, "echo options use-vc >> /etc/resolv.conf; getent hosts good.test", "root"
            )
            assert by_stream.stdout.split() == [far.OUTSIDE, "good.test"]
            gateway.apply(Policy(False))
            assert await talk(box, "good.test", far.ECHO) == "no such name"

    outside(work)


def _hello(name: str) -> str:
    import ssl

    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return "".join(f"\\x{byte:02x}" for byte in outgoing.read())


def test_an_allowed_name_is_reached_whatever_the_address_and_no_other_name_is() -> None:
    def request(host: str) -> str:
        return f"GET / HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n"

    async def work() -> None:
        async with a_way_out(NAMED) as (box, _):
            for port, say in ((far.WEB, request), (far.TLS, _hello)):
                for name in ("good.test", "www.good.test"):
                    assert f"this is {far.OUTSIDE}" in await talk(box, name, port, say(name))
                # It goes where the name leads, not where it was sent.
                assert f"this is {far.OUTSIDE}" in await talk(box, far.OTHER, port, say("good.test"))
                assert await talk(box, far.OUTSIDE, port, say("bad.test")) in GONE
                for name in ("rebound.test", "private.test"):
                    assert await talk(box, far.OUTSIDE, port, say(name)) in GONE
                assert await talk(box, far.OUTSIDE, port, "nonsense\\n\\n") in GONE
            assert await talk(box, "bad.test", far.WEB) == "no such name"

    outside(work)


def test_other_ports_of_an_allowed_name_are_open_to_who_has_asked_for_it() -> None:
    async def work() -> None:
        async with a_way_out(NAMED) as (box, _):
            assert await talk(box, far.OUTSIDE, far.OTHER_PORT) in GONE
            assert "this is" in await talk(box, "good.test", far.OTHER_PORT)
            assert "this is" in await talk(box, far.OUTSIDE, far.OTHER_PORT)
            assert await talk(box, "private.test", far.OTHER_PORT) in GONE

    outside(work)


def test_what_is_not_tcp_is_refused_at_once() -> None:
    script = """
        import socket, time
        began = time.monotonic()
        for family, kind, to in (
            (socket.AF_INET, socket.SOCK_DGRAM, ("203.0.113.5", 443)),
            (socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", 443)),
            (socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", 9)),
        ):
            try:
                socket.socket(family, kind).connect(to)
                socket.socket(family, kind).sendto(b"x", to)
            except OSError as error:
                print(error.errno)
        assert time.monotonic() - began < 2
    """

    async def work() -> None:
        async with a_way_out() as (box, _):
            done = await finish(await box.spawn(Command(["python3", "-c", textwrap.dedent(script)], "root")))
            assert done.stdout.split() == ["1", "101", "111"], done.stderr

    outside(work)


def test_root_inside_can_undo_nothing_of_it() -> None:
    # By messages of its own: delete the table, flush everything, add a route.
    script = """
        import socket, struct
        def tell(protocol, kind, flags, body):
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
                head = struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0)
                begin = struct.pack("=IHHIIBBH", 20, 16, 1, 0, 0, 0, 0, 10 << 8)
                end = struct.pack("=IHHIIBBH", 20, 17, 1, 2, 0, 0, 0, 10 << 8)
                sock.settimeout(5)
                sock.send(begin + head + body + end if protocol == 12 else head + body)
                print(struct.unpack_from("=i", sock.recv(65536), 16)[0])
        table = struct.pack("!BBH", 2, 0, 0) + struct.pack("=HH", 11, 1) + b"egress\\0\\0"
        tell(12, 10 << 8 | 2, 5, table)
        tell(12, 10 << 8 | 2, 5, struct.pack("!BBH", 0, 0, 0))
        tell(0, 25, 5, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 4, 253, 1, 0))
        tell(0, 20, 0x405, struct.pack("=BBBBI", 10, 64, 0, 0, 1) + struct.pack("=HH", 20, 1) + bytes(16))
        try:
            socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
        except OSError as error:
            print(-error.errno)
    """

    async def work() -> None:
        async with a_way_out(Policy(False)) as (box, _):
            for user in ("root", "user"):
                command = Command(["python3", "-c", textwrap.dedent(script)], user)
                done = await finish(await box.spawn(command))
                assert done.stdout.split() == ["-1"] * 5, done.stderr
            for program in ("nft flush ruleset", "iptables -t nat -F", "ip route del default"):
                done = await shell(box, f"command -v {program.split()[0]} || exit 99; {program}", "root")
                assert done.exit.code != 0
            assert await talk(box, far.OUTSIDE, far.ECHO) in GONE

    outside(work)


def test_new_rules_cut_what_they_refuse_and_keep_the_rest() -> None:
    script = f"exec 3<>/dev/tcp/{far.OUTSIDE}/{far.ECHO} 4<>/dev/tcp/{far.OTHER}/{far.ECHO}; " + (
        "echo a >&3; read x <&3; echo b >&4; read y <&4; echo $x$y; "
        "read z <&4 || echo cut; echo c >&3; read z <&3; echo $z"
    )

    async def work() -> None:
        async with a_way_out() as (box, gateway):
            process = await box.spawn(Command(["/bin/bash", "-c", script], "user"))
            assert process.stdout is not None
            assert await read_some(process.stdout) == b"ab\n"
            gateway.apply(Policy(True, (far.OUTSIDE,), ("0.0.0.0/0",)))
            done = await finish(process)
            assert done.stdout.split() == ["cut", "c"], done

    outside(work)


def test_a_frozen_box_keeps_its_connections_and_nothing_is_left_of_an_ended_one() -> None:
    script = (
        f"exec 3<>/dev/tcp/{far.OUTSIDE}/{far.ECHO}; echo a >&3; read x <&3; echo $x; read; echo b >&3; "
        + ("read x <&3; echo $x; sleep 60")
    )

    async def work() -> None:
        before: set[str] = set()
        async with a_box() as box:
            before = set(os.listdir("/proc/self/fd"))
            gateway = await Egress(1).open(box, OPEN)
            process = await box.spawn(Command(["/bin/bash", "-c", script], "user", stdin=True))
            assert process.stdin is not None
            assert process.stdout is not None
            assert await read_some(process.stdout) == b"a\n"
            await box.freeze()
            os.write(process.stdin, b"\n")
            await box.thaw()
            assert await read_some(process.stdout) == b"b\n"
            connections = list(gateway._connections)
            assert len(connections) == 1
            await box.close()
            await asyncio.wait_for(asyncio.wait([connection.task for connection in connections]), 10)
            await gateway.close()
            assert not gateway._connections
            for fd in (process.stdin, process.stdout, process.stderr):
                os.close(fd or 0)
            await until(lambda: not set(os.listdir("/proc/self/fd")) - before)

    outside(work)


def test_two_hundred_connections_at_once() -> None:
    script = f"""
        import socket
        socks = [socket.create_connection(("{far.OUTSIDE}", {far.ECHO}), 20) for _ in range(200)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%03d" % number * 1000)
        for number, sock in enumerate(socks):
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while data := sock.recv(65536):
                answer += data
            assert answer == b"%03d" % number * 1000 + b"[end]", number
        print("all")
    """

    async def work() -> None:
        async with a_way_out() as (box, gateway):
            done = await finish(await box.spawn(Command(["python3", "-c", textwrap.dedent(script)], "user")))
            assert done.stdout == "all\n", done.stderr
            for connection in list(gateway._connections):
                await asyncio.wait_for(asyncio.shield(connection.task), 10)

    outside(work)


def test_more_connections_than_a_sandbox_may_have_are_reset() -> None:
    script = f"""
        import socket
        socks, refused = [], 0
        for _ in range(520):
            try:
                sock = socket.create_connection(("{far.OUTSIDE}", {far.ECHO}), 20)
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
                socks.append(sock)
            except OSError:
                refused += 1
        print(len(socks), refused)
    """

    async def work() -> None:
        async with a_way_out() as (box, _):
            done = await finish(await box.spawn(Command(["python3", "-c", textwrap.dedent(script)], "user")))
            assert done.stdout == "512 8\n", done.stderr

    outside(work)


def test_a_fast_server_does_not_fill_the_memory_for_a_slow_sandbox() -> None:
    script = f"""
        import socket, sys
        sock = socket.create_connection(("{far.OUTSIDE}", {far.BLAST}))
        sys.stdin.readline()
        length = 0
        while data := sock.recv(1 << 20):
            length += len(data)
        print(length)
    """

    async def work() -> None:
        async with a_way_out() as (box, gateway):
            command = Command(["python3", "-c", textwrap.dedent(script)], "user", stdin=True)
            process = await box.spawn(command)
            await until(lambda: any(connection._outer for connection in gateway._connections))
            (connection,) = gateway._connections
            await until(lambda: connection._inner.full)
            assert connection._inner.transport.get_write_buffer_size() < 1 << 20
            assert process.stdin is not None
            os.write(process.stdin, b"\n")
            os.close(process.stdin)
            done = await finish(process)
            assert done.stdout == f"{far.BLAST_BYTES}\n", done.stderr

    outside(work)


def test_it_works_without_privileges() -> None:
    program = f"""
import asyncio
from sandbox_local.egress.gateway import Egress
from sandbox_local.egress.policy import Policy
from sandbox_local.isolation.base import BoxSpec, Command
from sandbox_local.isolation.namespaces import NamespaceBackend

TALK = {TALK!r}

async def main():
    backend = NamespaceBackend()
    await backend.start()
    box = await backend.create(BoxSpec("box"))
    gateway = await Egress(1).open(box, Policy())
    for address in ({far.OUTSIDE!r}, {far.METADATA!r}):
        for user in ("user", "root"):
            process = await box.spawn(Command(["python3", "-c", TALK, address, "{far.ECHO}", "hello"], user))
            await process.exit
            import os
            print(os.read(process.stdout, 4096).decode().strip())
    await gateway.close()
    await backend.close()

asyncio.run(asyncio.wait_for(main(), 50))
"""
    said = far.in_far_network(lambda: run_unprivileged(program)).split()
    assert said[:2] == ["hello[end]"] * 2
    assert set(said[2:]) <= GONE
    assert len(said) == 4
